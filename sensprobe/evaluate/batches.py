"""The number of sequences that run together."""

from __future__ import annotations

BATCH = 128
"""Fixed: float sums may depend on the shape they are computed in."""
