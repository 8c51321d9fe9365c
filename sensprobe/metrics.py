"""What evaluations keep of each sample, by name, and what it is called where it is the headline."""

from __future__ import annotations

DIVERGENCE = "divergence"
"""The metric that needs no labels: how far outputs are from those of full precision."""
PRIMARY = {
    "classification": "correct",
    "regression": "squared_error",
    "language": "bits_per_byte",
    "unlabelled": "kl",
}
"""The per-sample array behind a task's headline metric."""
NAMES = {
    "correct": "accuracy",
    "squared_error": "mse",
    "bits_per_byte": "bits_per_byte",
    "custom": "custom",
    "kl": DIVERGENCE,
    "distance": DIVERGENCE,
}
ADDITIVE = {
    "classification": "kl",
    "regression": "distance",
    "language": "kl",
    "unlabelled": "kl",
}
"""The per-sample array that sensitivities add up in."""
LOWER_IS_BETTER = frozenset({"squared_error", "bits_per_byte", *ADDITIVE.values()})
