"""Triton kernels on the device there is: a GPU, under the marker `gpu`, or Triton's interpreter
under TRITON_INTERPRET=1, for which `tests/kernels/test_triton.py` starts a process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not INTERPRETED and HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device() -> str:
    if INTERPRETED:
        return "cpu"
    assert torch.cuda.is_available(), "these tests need a CUDA device, or TRITON_INTERPRET=1"
    return "cuda"


class Bounds:
    """Allocations a launch was given; a kernel that reads or writes beside them is found out."""

    def __init__(self) -> None:
        self.starts = self.ends = np.zeros(0, np.uint64)

    def known(self, given: Iterable[object]) -> None:
        stores = [x.untyped_storage() for x in given if isinstance(x, torch.Tensor)]
        spans = sorted({(s.data_ptr(), s.data_ptr() + s.nbytes()) for s in stores}) or [(0, 0)]
        self.starts, self.ends = np.array(spans, np.uint64).reshape(-1, 2).T

    def check(self, pointers: Any, mask: Any) -> None:
        """IndexError for a place outside that the mask lets through."""
        size = np.dtype(interpreter._get_np_dtype(pointers.get_element_ty())).itemsize
        places = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)].astype(np.uint64)
        at = np.searchsorted(self.starts, places, side="right") - 1
        inside = (at >= 0) & (places + np.uint64(size) <= self.ends[at])
        if not inside.all():
            raise IndexError(f"{(~inside).sum()} of {places.size} places lie outside all arguments")


@pytest.fixture(scope="session", autouse=True)
def bounds() -> Iterator[None]:
    """Whatever a kernel reads or writes lies in the allocation of one of its arguments."""
    if not INTERPRETED:
        yield
        return
    bounds, patch = Bounds(), pytest.MonkeyPatch()
    builder, grid = interpreter.InterpreterBuilder, interpreter.GridExecutor
    load, store, begin = (
        builder.create_masked_load, builder.create_masked_store, grid._init_args_hst
    )  # fmt: skip

    def loaded(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        bounds.check(pointers, mask)
        return load(self, pointers, mask, *rest)

    def stored(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        bounds.check(pointers, mask)
        return store(self, pointers, value, mask, *rest)

    def begun(self: Any, args: Any, kwargs: Any) -> Any:
        bounds.known([*args, *kwargs.values()])
        return begin(self, args, kwargs)

    patch.setattr(builder, "create_masked_load", loaded)
    patch.setattr(builder, "create_masked_store", stored)
    patch.setattr(grid, "_init_args_hst", begun)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger tiles where a program takes milliseconds to interpret."""
    if INTERPRETED:
        from sensprobe_kernels.ops.linear import launches

        monkeypatch.setattr(launches, "PROGRAMS", 1)


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of few vectors are those of many, which add in the same order. Otherwise vectors are
    summed one at a time by other operations, whose last bits may decide how a state is rounded."""
    from sensprobe_kernels.ops.linear import launches

    monkeypatch.setattr(launches, "FEW", 0)
