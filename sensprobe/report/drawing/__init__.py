"""A `charts.Chart` on a screen (Plotly), on paper (matplotlib) or in a terminal (characters).

Nothing is imported here, so that each place waits for its own library alone.
"""
