"""Rounding, storing and calibrating numbers: tensors, and no model."""

SEMANTICS = 1
"""Raised whenever the same model, data and plan would give other numbers than before."""
