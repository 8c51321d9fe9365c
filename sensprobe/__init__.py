"""sensprobe."""
