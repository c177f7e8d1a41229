"""What a stage is, what its key is made of, and having one done. Knows no method by its name."""
