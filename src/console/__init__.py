"""What is said on screen while something runs, and how it is interrupted."""
