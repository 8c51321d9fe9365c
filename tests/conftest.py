"""What every test shares: one thread, and properties tried on the same examples each time."""

from __future__ import annotations

import os

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from sensprobe import runtime
from sensprobe.ops import diagonal_scan

torch.set_num_threads(1)
settings.register_profile("sensprobe", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("sensprobe")


@pytest.fixture(scope="session", autouse=True)
def _allowed_code(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What code tests allow is not remembered for whoever runs them."""
    os.environ["SENSPROBE_TRUST"] = str(tmp_path_factory.mktemp("trust") / "allowed-code.json")


@pytest.fixture
def reference_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """States run on the reference loop: for tiny models it is done before a kernel compiles."""
    monkeypatch.setattr(runtime, "diagonal_scan", diagonal_scan.diagonal_scan)
