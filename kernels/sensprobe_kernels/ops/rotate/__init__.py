"""Hadamard transforms of rows: see `cpu`."""
