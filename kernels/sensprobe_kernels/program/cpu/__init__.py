"""The interpreter of streaming programs on the CPU.

`run.CpuProgram` is what a caller makes and runs. `steps` is compiled once for all models and plans:
schemes, sizes and places are numbers that it reads.
"""
