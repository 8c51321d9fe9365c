"""One folder an operation: `cpu` (Numba) and `gpu` (Triton)."""
