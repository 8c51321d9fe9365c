"""Streamlit dashboard over run folders (not built yet)."""
