"""The description of how a number is stored (`spec`), and its arithmetic on CPU and GPU."""
