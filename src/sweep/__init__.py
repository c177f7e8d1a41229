"""The variants of one multirun: planned, done in waves, closed."""
