"""A model opened on data and a run."""
