"""Vectors of sixteen float32 numbers, packed bytes and integer products inside Numba functions."""
