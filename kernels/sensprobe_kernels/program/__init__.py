"""A model's streaming step as data: operations on packed tensors and packed states.

`ir` has the operations, `program.Program` holds a list of them with the tables they refer to. `cpu`
interprets a program, a step as one call; `gpu` makes launches of Triton kernels of it.
"""
