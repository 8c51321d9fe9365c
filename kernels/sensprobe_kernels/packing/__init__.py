"""Packed tensors: how codes lie in bytes, and reading them on the CPU and in Triton."""
