"""How numbers are rounded, stored and calibrated: tensors, and no model."""

SEMANTICS = 1
"""Raised whenever the same model, data and plan would give other numbers than before."""
