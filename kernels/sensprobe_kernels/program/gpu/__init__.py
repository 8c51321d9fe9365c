"""Streaming programs as launches of Triton kernels, for many tokens of many sequences at once.

`run.GpuProgram` is what a caller makes and runs; `lowering` makes the launches.
"""
