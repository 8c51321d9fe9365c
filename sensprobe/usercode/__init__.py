"""The user's own code: the files it consists of, and whether they may run."""
