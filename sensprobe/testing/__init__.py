"""Suites that every family, kernel, format, executor and runtime passes, one's own included."""
