"""A model's streaming step as one call: a list of operations on packed tensors and packed states.

`cpu.Program` is what a caller fills and runs; `steps` is what is compiled, once for all models and
plans: schemes, sizes and places are numbers it reads. On a GPU the same list becomes launches of
Triton kernels (`lowering`), for many tokens of many sequences at once (`gpu.GpuProgram`).
"""
