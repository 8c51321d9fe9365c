"""Which implementation runs an operation: a kernel where one computes the same, else the reference.

    from sensprobe.runtime import diagonal_scan, selective_scan, head_scan

with the signatures and meaning of sensprobe.ops.

A kernel never computes something else: on the CPU it equals the reference bit for bit. Where there
is none, the reference runs and the logger `sensprobe.runtime` says why, once a reason: as a warning
where a kernel could have been expected, as information where the reference is what was asked for.

Kernels use as many threads as torch (`torch.set_num_threads`, OMP_NUM_THREADS). They are compiled
on first use and cached beside the package, in the user's cache folder where that cannot be written,
or where NUMBA_CACHE_DIR says.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import torch

from sensprobe.runtime.activations import rounded
from sensprobe.runtime.convolution import causal_conv
from sensprobe.runtime.diagonal import diagonal_scan
from sensprobe.runtime.rotation import rotate, rotate_back
from sensprobe.runtime.selective import head_scan, selective_scan

__all__ = [
    "OPERATIONS",
    "Implementation",
    "causal_conv",
    "describe",
    "diagonal_scan",
    "head_scan",
    "rotate",
    "rotate_back",
    "rounded",
    "selective_scan",
]

OPERATIONS = ("diagonal_scan", "selective_scan", "head_scan", "causal_conv", "rounded", "rotate")


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
    fast = [Implementation(name, "cpu", f"kernel (Numba, {_threads()})") for name in OPERATIONS]
    return [row for pair in zip(fast, slow, strict=True) for row in pair]


def _threads() -> str:
    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"
