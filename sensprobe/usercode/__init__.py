"""Code of the user's own: what it is made of, and whether it may run."""
