"""Products shared among threads: the same bits whatever their number."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from packed_memory import packed
from selective import inputs, tiny
from sensprobe_kernels.program.cpu import run as cpu

from sensprobe.models.mamba import MambaConfig

CONFIG = MambaConfig(
    d_input=131, d_output=131, d_model=56, encoder="embedding", tied_head=True, head_bias=False,
    pooling="none", dt_rank=3, d_state=16, layers=3,
)  # fmt: skip
PLANS = {
    "float32": {},
    "weights": {"layers.*.in_proj.?": "int8/channel", "embedding": "int4/group16/asym"},
    "integers": {
        "layers.*.in_proj.?": "int8/channel", "layers.*.in_proj_in": "int8/dynamic",
        "layers.*.out_proj": "int4/group8", "layers.*.out_proj_in": "int8/dynamic",
        "layers.*.state": "int8/head/dynamic",
    },
}  # fmt: skip


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of a tiny model are large, and cut into many pieces."""
    monkeypatch.setattr(cpu, "LEAST_BYTES", 64)
    monkeypatch.setattr(cpu, "PIECE_BYTES", 256)


def run(case, threads: int, steps: int = 30):
    torch.set_num_threads(threads)
    try:
        state, found = case.stream.start(3), []
        for x in inputs(CONFIG, 3, steps).unbind(1):
            out, state = case.stream.advance(x, state)
            found.append(out)
        return torch.stack(found), state.carry
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("name", PLANS)
def test_any_number_of_threads_gives_the_same_bits(name, small_pieces):
    case = packed(tiny(CONFIG), PLANS[name])
    pieces, ends = case.stream.program(3).on_cpu.pieces()
    assert len(pieces) > 3 * len(set(ends)) > 20, "many products are cut, and into several pieces"
    want, memory = run(case, 1)
    for threads in (2, 3, 7):
        got, left = run(case, threads)
        torch.testing.assert_close(got, want, rtol=0, atol=0)
        np.testing.assert_array_equal(left, memory)


def test_pieces_are_every_row_of_a_product_once(small_pieces):
    case = packed(tiny(CONFIG), PLANS["integers"])
    program = case.stream.program(1).program
    pieces, ends = case.stream.program(1).on_cpu.pieces()
    for i, o in enumerate(program.ops):
        mine = [p for p in pieces if p[0] == i]
        assert ends[i] - (ends[i - 1] if i else 0) == len(mine)
        if mine:
            rows = [r for _, first, last in mine for r in range(first, last)]
            assert rows == list(range(program.tensors[o.tensor].rows))


def test_streams_that_run_at_once_share_apart(small_pieces):
    """Two models' steps, each with helpers of its own."""
    cases = [packed(tiny(CONFIG), PLANS[name]) for name in ("weights", "integers")]
    want = [run(case, 1) for case in cases]
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(2) as threads:
            got = list(threads.map(lambda case: _steps(case), cases))
    finally:
        torch.set_num_threads(1)
    for (one, memory), (other, left) in zip(want, got, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0)
        np.testing.assert_array_equal(left, memory)


def _steps(case):
    state, found = case.stream.start(3), []
    for x in inputs(CONFIG, 3, 30).unbind(1):
        out, state = case.stream.advance(x, state)
        found.append(out)
    return torch.stack(found), state.carry


def test_small_models_start_no_thread(monkeypatch):
    """A thread costs more than their steps."""
    case = packed(tiny(CONFIG), PLANS["weights"])
    monkeypatch.setattr(cpu, "Thread", None)
    assert run(case, 4, 2)[0].isfinite().all()
