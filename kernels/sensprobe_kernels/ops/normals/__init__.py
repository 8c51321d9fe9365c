"""Normal numbers of counters: see `cpu`."""
