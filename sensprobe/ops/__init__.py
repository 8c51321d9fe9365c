"""The operations of a model, one file each: the reference in plain PyTorch, and the choice of a
kernel where one computes the same.

    from sensprobe import ops

    y, carry = ops.diagonal_scan(u, A, B, C, storage)

The file of one of OPERATIONS has `reference`, which defines what is computed, and a function of
the file's name, which calls it or a kernel of `sensprobe_kernels.ops`; `rotate` and `normals` have
their references in `sensprobe.numerics`. A kernel never computes something else: on the CPU
it equals the reference bit for bit. Where there is no kernel the reference runs, and the logger
`sensprobe.ops` says why, once a reason: as a warning where a kernel could have been expected, as
information where the reference is what was asked for.

Kernels use as many threads as torch (`torch.set_num_threads`, OMP_NUM_THREADS). They are compiled
on first use and cached beside the package, in the user's cache folder where that cannot be written,
or where NUMBA_CACHE_DIR says.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import torch

from sensprobe.ops.causal_conv import causal_conv
from sensprobe.ops.diagonal_scan import diagonal_scan
from sensprobe.ops.head_scan import head_scan
from sensprobe.ops.modal_scan import modal_scan
from sensprobe.ops.normals import normals
from sensprobe.ops.rotate import rotate, rotate_back
from sensprobe.ops.rounded import rounded
from sensprobe.ops.selective_scan import selective_scan

__all__ = [
    "OPERATIONS",
    "Implementation",
    "causal_conv",
    "describe",
    "diagonal_scan",
    "head_scan",
    "modal_scan",
    "normals",
    "rotate",
    "rotate_back",
    "rounded",
    "selective_scan",
]

OPERATIONS = (
    "diagonal_scan", "modal_scan", "selective_scan", "head_scan", "causal_conv", "rounded",
    "rotate", "normals",
)  # fmt: skip
"""Those that kernels exist for."""


class Implementation(NamedTuple):
    """One way to run an operation, for `sensprobe doctor`."""

    operation: str
    device: str
    name: str


def describe() -> list[Implementation]:
    """Every operation and what runs it, the fast ones first."""
    slow = [Implementation(name, "any", "reference loop (PyTorch)") for name in OPERATIONS]
    if not find_spec("numba"):
        return slow
    count = torch.get_num_threads()
    kernel = f"kernel (Numba, {count} thread{'s' if count > 1 else ''})"
    fast = [Implementation(name, "cpu", kernel) for name in OPERATIONS]
    return [row for pair in zip(fast, slow, strict=True) for row in pair]
