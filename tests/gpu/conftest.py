"""Triton kernels on the device there is: a GPU, under the marker `gpu`, or Triton's interpreter
under TRITON_INTERPRET=1, for which `tests/kernels/test_triton.py` starts a process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

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


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger tiles where a program takes milliseconds to interpret."""
    if INTERPRETED:
        from sensprobe_kernels.linear import launches

        monkeypatch.setattr(launches, "PROGRAMS", 1)
