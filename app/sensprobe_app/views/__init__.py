"""One file a view; each draws what `sensprobe.report` made of a run."""
