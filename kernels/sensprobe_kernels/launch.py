"""Triton launches as values: the same value is run, compiled ahead of time, or captured in a graph.

Kernels repeat the float32 arithmetic of the reference, so products and sums are never contracted.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

_TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
}
_ALIGNED = [["tt.divisibility", 16]]


class LoweringError(Exception):
    """No kernel for GPUs does what an operation asks; the text says what."""


Argument = Tensor | int | float


class Launch(NamedTuple):
    """A kernel, its grid of programs, its arguments in order, and the constants it is compiled for.

    `registers` limits those of a thread; None leaves the choice to the assembler.
    """

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Argument, ...]
    constants: Mapping[str, Any]
    warps: int = 4
    stages: int = 2
    registers: int | None = None


class Assembly(NamedTuple):
    """A kernel compiled ahead of time: its code, the registers of a thread, and the bytes that a
    thread spills to memory because its registers do not suffice."""

    ptx: str
    registers: int
    spilled_bytes: int


def run(launch: Launch) -> None:
    """Start it on the device of its tensors."""
    launch.kernel[launch.grid](
        *launch.args, **launch.constants, num_warps=launch.warps, num_stages=launch.stages,
        enable_fp_fusion=False, maxnreg=launch.registers,
    )  # fmt: skip


def assembly(launch: Launch, capability: int, *, fuse: bool = False) -> Assembly:
    """Compile for GPUs of a compute capability (80, 90, …); no GPU is needed.

    Numbers that are 1 or multiples of 16 are known to the compiler, as they are when it compiles at
    a launch. fuse: let products and sums be contracted, as `run` never does.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = launch.kernel
    names = [name for name in kernel.arg_names if name not in launch.constants]
    assert len(names) == len(launch.args), f"{kernel.__name__}: {names}"
    given = dict(zip(names, launch.args, strict=True))
    ones = {name: 1 for name, x in given.items() if isinstance(x, int) and x == 1}
    signature = {name: _type(x) for name, x in given.items()} | dict.fromkeys(ones, "constexpr")
    attributes = {
        (kernel.arg_names.index(name),): _ALIGNED for name, x in given.items() if _aligned(x)
    }
    source = ASTSource(
        fn=kernel,
        signature=signature | dict.fromkeys(launch.constants, "constexpr"),
        constexprs=ones | dict(launch.constants),
        attrs=attributes,
    )
    options = {
        "num_warps": launch.warps, "num_stages": launch.stages, "enable_fp_fusion": fuse,
        "maxnreg": launch.registers,
    }  # fmt: skip
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return Assembly(made.asm["ptx"], *_resources(made.asm["ptx"], capability))


def _type(x: Argument) -> str:
    if isinstance(x, Tensor):
        return "*" + _TYPES[x.dtype]
    return "fp32" if isinstance(x, float) else "i32"


def _aligned(x: Argument) -> bool:
    if isinstance(x, Tensor):
        return x.data_ptr() % 16 == 0
    return isinstance(x, int) and x % 16 == 0


def _resources(ptx: str, capability: int) -> tuple[int, int]:
    """Registers of a thread and the bytes it spills, as reported by NVIDIA's assembler, which comes
    with Triton."""
    from triton.backends.nvidia.compiler import get_ptxas

    arch = f"sm_{capability}" + ("a" if capability >= 90 else "")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        told = subprocess.run(
            [get_ptxas(capability).path, "-v", f"-arch={arch}", str(path), "-o", f"{path}.cubin"],
            capture_output=True, text=True, check=True,
        ).stderr  # fmt: skip
    words = told.replace(",", " ").split()
    return int(words[words.index("registers") - 1]), int(words[words.index("spill") - 2])
