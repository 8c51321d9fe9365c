"""How much memory is free, and what needs more than that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensprobe import load, memory
from sensprobe.errors import CapacityError
from sensprobe.export import export_model
from sensprobe.memory import free_bytes, room
from sensprobe.models.apply import Applier
from sensprobe.packed import lacking
from sensprobe.plans.sites import Kind
from sensprobe.session import loaded
from sensprobe.session.plans import as_plan
from sensprobe.session.source import open_model

HUGE = 1 << 60


def test_what_is_free_is_the_least_of_machine_and_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo, limit, used = (tmp_path / name for name in ("meminfo", "limit", "used"))
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    monkeypatch.setattr(memory, "LIMITS", ((limit, used), (tmp_path / "no", tmp_path / "no")))
    assert free_bytes() is None
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:  4000 kB\n")
    assert free_bytes() == 4_096_000
    limit.write_text("max\n")
    used.write_text("100\n")
    assert free_bytes() == 4_096_000
    limit.write_text("1000\n")
    assert free_bytes() == 900
    used.write_text("2000\n")
    assert free_bytes() == 0


def test_nothing_runs_where_more_is_needed_than_is_free() -> None:
    ran = []
    with pytest.raises(CapacityError) as told, room(2000, 1999, "a thing", "Ask for less."):
        ran.append(1)
    assert str(told.value) == ("a thing: that needs 2,000 bytes, and 1,999 are free. Ask for less.")
    assert not ran
    with room(2000, 2000, "a thing", "Ask for less."):
        ran.append(1)
    assert ran


@pytest.mark.parametrize(
    "allocate", [lambda: np.zeros(HUGE, np.uint8), lambda: torch.empty(HUGE, dtype=torch.uint8)]
)
def test_memory_that_the_system_refuses(allocate: Callable[[], Any]) -> None:
    words = "needs 5 bytes, and the system refused memory .*Ask for less"
    with pytest.raises(CapacityError, match=words), room(5, None, "a thing", "Ask for less."):
        allocate()


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), room(5, None, "a thing", "Ask for less."):
        raise RuntimeError("shapes do not fit")


def test_a_batch_whose_state_finds_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("s4d-digits")
    each = model.cost().state_bytes
    assert model.state_bytes(3) == 3 * each
    monkeypatch.setattr(loaded, "free_bytes", lambda: 10 * each)
    model.start(10)
    with pytest.raises(CapacityError) as told:
        model.start(11)
    assert str(told.value) == (
        f"the state of 11 sequences of s4d-digits ({each:,} bytes each, beside "
        f"{model.weight_bytes:,} of weights): that needs {11 * each:,} bytes, and {10 * each:,} "
        "are free. Ask for a smaller batch: 10 at most fit now."
    )


def test_weights_that_find_no_room_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before any of them is put there."""
    model = open_model("s4d-digits").model
    plan = as_plan({"layers.*.A": "int8/head"}, model).resolve(model.sites.values())
    export_model(model, plan, Applier(model), tmp_path / "small", name="s4d-digits")
    needed = load(tmp_path / "small").weight_bytes
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (needed - 101, 1 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)  # 100 are at hand
    with pytest.raises(CapacityError) as told:
        load(tmp_path / "small", device="cuda")
    assert f"needs {needed:,} bytes, and {needed - 1:,} are free" in str(told.value)
    assert "the weights of s4d-digits on cuda: " in str(told.value)
    full = sum(4 * s.reals for s in model.sites.values() if s.kind is Kind.WEIGHT)
    with pytest.raises(CapacityError, match=f"on cuda in float32: that needs {full:,} bytes"):
        load("s4d-digits", device="cuda")


def test_a_gpu_without_the_instructions_has_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    why = lacking(torch.device("cuda"))
    assert "compute capability 8.0 or more" in why
    assert why.endswith("Tesla T4 has 7.5")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert lacking(torch.device("cuda")) == lacking(torch.device("cpu")) == ""
