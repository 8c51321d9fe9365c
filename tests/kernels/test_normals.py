"""Normal numbers by the kernel against the reference, bit for bit."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sensprobe_kernels.ops.normals import cpu

from sensprobe import ops
from sensprobe.numerics.noise import normals
from sensprobe.numerics.noise import numbers as reference
from sensprobe.numerics.philox import Grid

WORD = st.integers(0, 2**32 - 1)
START = st.integers(0, 2**32 - 8)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("sensprobe.ops.normals"), "SMALL", 0)


@pytest.mark.parametrize("pairs", [False, True])
@given(
    starts=st.tuples(START, START, START, START),
    sizes=st.tuples(*[st.integers(0, 5)] * 4),
    key=st.tuples(WORD, WORD),
)
def test_the_kernel_has_the_references_bits(pairs, starts, sizes, key):
    grid = Grid(starts, sizes)
    assert torch.equal(ops.normals(grid, key, pairs), reference(grid, key, pairs))


@pytest.mark.parametrize("threads", [1, 3])
def test_many_numbers_in_several_threads(threads):
    grid = Grid((0, 3, 0, 0), (2, 3, 5, 997))
    got = torch.from_numpy(cpu.numbers(*grid, (1, 2), True, threads))
    assert torch.equal(got, reference(grid, (1, 2), True))


def test_the_ends_of_the_words():
    """The largest number there is, of the smallest word, and 0 of the largest."""
    ends = [numbers_of(word) for word in (0, 2**32 - 1)]
    assert ends[0] == pytest.approx(6.6604, abs=1e-4)
    assert ends[1] == 0


def numbers_of(word: int) -> float:
    """The length of the pair that a first word makes."""
    pair = normals([torch.tensor([word]), torch.tensor([12345])])
    return float(torch.hypot(*pair))


def test_few_numbers_are_drawn_by_the_reference(monkeypatch):
    monkeypatch.setattr(import_module("sensprobe.ops.normals"), "SMALL", 30)
    monkeypatch.setattr(cpu, "numbers", lambda *given: pytest.fail("the kernel was called"))
    assert ops.normals(Grid((0, 0, 0, 0), (1, 1, 5, 6)), (1, 2), False).shape == (1, 1, 5, 6)
