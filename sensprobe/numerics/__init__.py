"""How numbers are rounded, stored and calibrated: tensors, and no model."""
