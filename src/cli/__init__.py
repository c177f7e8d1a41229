"""The command line: composing configs as Hydra is told to, and what is said to a user who got something wrong."""
