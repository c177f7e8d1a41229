"""One file per method: from a checkpoint to a checkpoint, or to an artifact. Knows no store."""
