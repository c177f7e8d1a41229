"""Every setting: its type, its range, what it means, and what is said of a value that does not fit."""
