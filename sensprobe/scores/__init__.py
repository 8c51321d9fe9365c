"""Scores with their errors, metrics and fronts: numbers per sample, without a tensor."""
