"""The selective kernels against the references, bit for bit, for every way to round and keep."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from recurrence import assert_same
from scans import MAMBA, MAMBA2, REFERENCES, Problem, kept, problem, sites
from schemes import schemes_for
from sensprobe_kernels.ops.selective_scan import cpu

from sensprobe import ops
from sensprobe.numerics.storage import Carry, Storage, Watched, fresh
from sensprobe.testing.kernel import KernelContract

both = pytest.mark.parametrize("name", [MAMBA, MAMBA2])

CODES = [
    *("int2", "int3/head", "int8", "int16", "int8/head/asym", "int16/asym", "int8/group2"),
    *("int8/group3/asym", "int5/channel", "e4m3/head", "e2m1/group2", "log3/head", "log8/head"),
]
STATIC = [*CODES, "int8/head/s32", "int8/head/asym/s32", "int8/head/pow2", "e4m3/s32"]
DYNAMIC = [
    *(f"{code}/dynamic" for code in CODES),
    *("int8/head/dynamic/s32", "int8/head/asym/dynamic/pow2", "int4/asym/dynamic/s32"),
]
OPTIONS = [
    *("bf16", "fp16", "fp32/clip1.5", "int8/head/clip1.5", "int8/head/asym/dynamic/clip1.5"),
    *("int8/head/truncate", "int8/asym/dynamic/truncate", "bf16/truncate", "bf16/stochastic9"),
    *("int8/head/stochastic3", "int4/dynamic/stochastic", "int4/asym/dynamic/stochastic"),
    *("int8/head/feedback", "int4/head/asym/dynamic/feedback", "bf16/feedback"),
    *("int6/dynamic/feedback", "int8/head/every4", "int8/dynamic/every3"),
    *("int4/head/every3/feedback/clip2", "int4/head/dynamic/every2/stochastic"),
]
DECAYS = [
    *("int8/head", "int8/channel", "int4/asym", "int8/head/asym/dynamic", "int6/dynamic"),
    *("int4/group2/asym/dynamic", "int8/group3", "e4m3", "log5/dynamic", "bf16", "bf16/truncate"),
    *("int8/stochastic5", "int4/asym/dynamic/stochastic"),
]


def assert_equal(
    name: str, p: Problem, decay: Any = None, state: Any = None, memory: Carry | None = None
) -> None:
    """The same from both, and the kernel's own arguments as they were."""
    given_ = [*p, *([memory.state] if memory else [])]
    before = [x.clone() for x in given_]
    got = getattr(ops, name)(*p, decay, state, memory)
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(before, given_, strict=True))
    assert_same(got, REFERENCES[name](*p, decay, state, memory))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the kernel ran."""
    found: list[int] = []
    scan = cpu.scan

    def counted(*args: Any) -> Any:
        found.append(1)
        return scan(*args)

    monkeypatch.setattr(cpu, "scan", counted)
    return found


SIZES = {MAMBA: (2, 9, 21, 5), MAMBA2: (2, 9, 3, 21, 3, 5)}


@both
@pytest.mark.parametrize("scheme", [None, *STATIC, *DYNAMIC, *OPTIONS])
def test_every_state_equals_the_reference(name: str, scheme: str | None, calls) -> None:
    p = problem(name, *SIZES[name])
    assert_equal(name, p, None, kept(scheme, sites(name, p)[0], 2.0))
    assert calls


@both
@pytest.mark.parametrize("scheme", DECAYS)
def test_every_decay_equals_the_reference(name: str, scheme: str, calls) -> None:
    p = problem(name, *SIZES[name])
    state, decay = sites(name, p)
    if name == MAMBA2:
        scheme = scheme.replace("head/asym/dynamic", "asym/dynamic")  # one decay a head
    assert_equal(name, p, kept(scheme, decay, 0.7), kept("int8/head", state, 2.0))
    assert calls


@pytest.mark.parametrize("scheme", [None, "int8/head/asym/dynamic", "int4/asym/dynamic/stochastic"])
@pytest.mark.parametrize(
    "size",
    [(1, 1, 1, 2), (3, 2, 16, 1), (1, 40, 150, 4), (2, 5, 64, 17), (2, 0, 3, 2), (0, 4, 3, 2)],
)
def test_odd_sizes_of_mamba(size: tuple[int, ...], scheme: str | None) -> None:
    p = problem(MAMBA, *size)
    state, decay = sites(MAMBA, p)
    if size[-1] == 1:
        scheme = scheme and "int4/asym/dynamic"  # else a scale for each value
    assert_equal(MAMBA, p, kept(scheme, decay, 0.7), kept(scheme, state, 2.0))


@pytest.mark.parametrize("scheme", [None, "int8/head/asym/dynamic", "int8/channel/dynamic"])
@pytest.mark.parametrize(
    "size",
    [(1, 1, 1, 1, 1, 2), (2, 7, 4, 16, 2, 3), (1, 20, 2, 70, 1, 6), (2, 3, 6, 5, 6, 9)],
)
def test_odd_sizes_of_mamba2(size: tuple[int, ...], scheme: str | None) -> None:
    p = problem(MAMBA2, *size)
    state, _ = sites(MAMBA2, p)
    assert_equal(MAMBA2, p, None, kept(scheme, state, 2.0))


@both
@examples(40)
@given(data=st.data())
def test_any_scheme_that_makes_sense_equals_the_reference(name: str, data: st.DataObject) -> None:
    p = problem(name, *((1, 4, 5, 4) if name == MAMBA else (1, 4, 2, 5, 2, 4)))
    state, decay = sites(name, p)
    drawn = data.draw(schemes_for(state)), data.draw(schemes_for(decay))
    first = data.draw(st.integers(0, 5))
    assert_equal(name, p, kept(drawn[1], decay, 0.7, first), kept(drawn[0], state, 2.0, first))


@both
@pytest.mark.parametrize("scheme", ["int8/head/feedback", "int4/stochastic/dynamic/every3", None])
def test_it_goes_on_where_it_was(name: str, scheme: str | None) -> None:
    """Cut anywhere, the pieces give the whole."""
    p = problem(name, *SIZES[name])
    state, decay = sites(name, p)
    storage, passing = kept(scheme, state, 2.0), kept("int8/stochastic2", decay, 0.7)
    scan = getattr(ops, name)
    whole, last = scan(*p, passing, storage)
    memory, pieces = fresh(2, state.shape, storage), []
    for steps in (slice(0, 1), slice(1, 5), slice(5, 5), slice(5, 9)):
        x, dt, A, B, C = p
        out, memory = scan(
            x[:, steps], dt[:, steps], A, B[:, steps], C[:, steps], passing, storage, memory
        )
        pieces.append(out)
    assert_same((torch.cat(pieces, dim=1), memory), (whole, last))


@both
@pytest.mark.parametrize("exact", ["", "decay", "state"])
def test_a_sequence_does_not_depend_on_its_batch(name: str, exact: str) -> None:
    p = problem(name, *SIZES[name])
    state, decay = sites(name, p)
    scan = getattr(ops, name)

    def run(p: Problem, first: int) -> torch.Tensor:
        passing = None if exact == "decay" else kept("int4/stochastic", decay, 0.7, first)
        storage = None if exact == "state" else kept("int4/stochastic/dynamic", state, 2.0, first)
        return scan(*p, passing, storage)[0]

    x, dt, A, B, C = p
    assert torch.equal(run(p, 6)[1:], run((x[1:], dt[1:], A, B[1:], C[1:]), 7))


@both
@pytest.mark.parametrize("scheme", [None, "int8/head", "int8/head/dynamic", "int8/asym/dynamic"])
@pytest.mark.parametrize("bad", [nan, inf, -inf, 3e38])
def test_numbers_beyond_the_finite_do_as_in_the_reference(
    name: str, scheme: str | None, bad: float
) -> None:
    p = problem(name, *SIZES[name])
    p[0][0, 3].view(-1)[4] = bad
    p[2].view(-1)[1] = 40.0  # grows
    p[1][1, 2].view(-1)[2] = bad
    state, decay = sites(name, p)
    passing = scheme if name == MAMBA or scheme is None else scheme.replace("/head", "")
    assert_equal(name, p, kept(passing, decay, 0.7), kept(scheme, state, 2.0))


@both
def test_threads_change_nothing(name: str) -> None:
    p = problem(name, *((3, 40, 300, 8) if name == MAMBA else (3, 40, 6, 48, 2, 8)))
    state, _ = sites(name, p)
    storage = kept("int4/head/dynamic/feedback", state, 2.0)
    scan, threads = getattr(ops, name), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = scan(*p, None, storage)
        torch.set_num_threads(3)
        assert_same(scan(*p, None, storage), one)
    finally:
        torch.set_num_threads(threads)


@both
def test_arguments_that_are_views_are_read_as_they_look(name: str) -> None:
    p = problem(name, *SIZES[name])
    views = tuple(x.mT.contiguous().mT if x.ndim > 1 else x for x in p)
    assert_same(getattr(ops, name)(*views), REFERENCES[name](*p))


@both
@pytest.mark.parametrize("at_once", [1, 1000, 2**24])
@pytest.mark.parametrize("rounded", ["", "decay", "state"])
def test_what_is_watched_is_shown_as_by_the_reference(
    name: str, at_once: int, rounded: str, monkeypatch: pytest.MonkeyPatch, calls: list[int]
) -> None:
    """Each step once, in order, however many are shown at a time; what is watched stays exact."""
    monkeypatch.setattr("sensprobe.numerics.storage.SHOWN_BYTES", at_once)
    p = problem(name, *SIZES[name])
    state, decay = sites(name, p)
    start = Carry(fresh(2, state.shape, None).state + 0.5, None, 5)

    def run(scan: Any, watch: bool) -> tuple[Any, dict[str, list[tuple[int, torch.Tensor]]]]:
        seen: dict[str, list[tuple[int, torch.Tensor]]] = {"decay": [], "state": []}

        def look(what: str) -> Watched:
            def add(values: torch.Tensor, step: int) -> None:
                seen[what] += [(step + t, v) for t, v in enumerate(values)]

            return Watched(add)

        exact = look if watch else lambda what: None
        a = kept("int8", decay, 1.0) if rounded == "decay" else exact("decay")
        h = kept("int8", state, 4.0) if rounded == "state" else exact("state")
        return scan(*p, a, h, start), seen

    got, seen = run(getattr(ops, name), watch=True)
    assert calls
    want, wanted = run(REFERENCES[name], watch=True)
    assert_same(got, want)
    assert_same(got, run(REFERENCES[name], watch=False)[0])
    for what, steps in wanted.items():
        assert len(steps) == (0 if what == rounded else 9)
        assert [step for step, _ in seen[what]] == [step for step, _ in steps]
        pairs = zip(seen[what], steps, strict=True)
        assert all(torch.equal(a, b) for (_, a), (_, b) in pairs)


class SelectiveKernel(KernelContract):
    """`timed` are x and dt; B and C are too."""

    name: str
    size: tuple[int, ...]
    timed = 2

    def problem(self, length: int) -> Problem:
        return problem(self.name, 3, length, *self.size)

    def storage(self, scheme: str) -> Storage:
        state, _ = sites(self.name, self.problem(1))
        return kept(scheme, state, 2.0)

    def part(self, problem: Problem, steps: slice) -> Problem:
        x, dt, A, B, C = problem
        return x[:, steps], dt[:, steps], A, B[:, steps], C[:, steps]


class TestChannels(SelectiveKernel):
    name, size = MAMBA, (4, 3)

    @staticmethod
    def kernel(x, dt, A, B, C, storage, memory=None):
        return ops.selective_scan(x, dt, A, B, C, None, storage, memory)

    @staticmethod
    def reference(x, dt, A, B, C, storage, memory=None):
        return REFERENCES[MAMBA](x, dt, A, B, C, None, storage, memory)


class TestHeads(SelectiveKernel):
    name, size = MAMBA2, (4, 2, 2, 3)

    @staticmethod
    def kernel(x, dt, A, B, C, storage, memory=None):
        return ops.head_scan(x, dt, A, B, C, None, storage, memory)

    @staticmethod
    def reference(x, dt, A, B, C, storage, memory=None):
        return REFERENCES[MAMBA2](x, dt, A, B, C, None, storage, memory)
