"""The suite that every kernel of a recurrence passes on the CPU: the bits of its reference.

    class TestMine(KernelContract):
        kernel = staticmethod(my_kernel)
        reference = staticmethod(my_reference)

        def problem(self, length): ...      # tensors whose second axis is time come first
        def storage(self, scheme): ...

`kernel` and `reference` take the tensors of a problem, a storage of the state (None keeps it exact)
and the carry of an earlier run, and return the outputs (b, l, …) and the carry after them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from sensprobe.numerics.storage import Carry, Storage

LENGTHS = (0, 1, 2, 7, 65)
SCHEMES = ("int8/head", "int4/head/dynamic")
Result = tuple[Tensor, Carry]


def assert_same_bits(got: Result, wanted: Result) -> None:
    """Assert that outputs and carries are equal, NaN where the other is NaN."""
    (y, carry), (wanted_y, wanted_carry) = got, wanted
    assert carry.step == wanted_carry.step
    assert (carry.residual is None) == (wanted_carry.residual is None)
    pairs = [(y, wanted_y), (carry.state, wanted_carry.state)]
    if carry.residual is not None and wanted_carry.residual is not None:
        pairs.append((carry.residual, wanted_carry.residual))
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


class KernelContract(ABC):
    """A rounded recurrence is chaotic in the order of its operations, so nothing but the same bits
    is the same function."""

    kernel: ClassVar[Callable[..., Result]]
    reference: ClassVar[Callable[..., Result]]
    timed = 1
    """The number of leading tensors of a problem whose second axis is time."""

    @abstractmethod
    def problem(self, length: int) -> tuple[Tensor, ...]:
        """The arguments of the operation before the storage, for sequences of a length."""

    @abstractmethod
    def storage(self, scheme: str) -> Storage:
        """How the operation keeps its state in a scheme."""

    def part(self, problem: tuple[Tensor, ...], steps: slice) -> tuple[Tensor, ...]:
        """The problem of some of the steps."""
        return (*(t[:, steps] for t in problem[: self.timed]), *problem[self.timed :])

    @pytest.mark.parametrize("scheme", SCHEMES)
    @pytest.mark.parametrize("length", LENGTHS)
    def test_every_bit_is_that_of_the_reference(self, length: int, scheme: str) -> None:
        given: Any = self.problem(length)
        kept = self.storage(scheme)
        assert_same_bits(self.kernel(*given, kept), self.reference(*given, kept))

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_a_sequence_in_two_runs_is_the_sequence(self, scheme: str) -> None:
        given, kept = self.problem(11), self.storage(scheme)
        first, carry = self.kernel(*self.part(given, slice(0, 4)), kept)
        second, carry = self.kernel(*self.part(given, slice(4, None)), kept, carry)
        assert_same_bits((torch.cat([first, second], 1), carry), self.kernel(*given, kept))

    def test_inputs_stay_what_they_are(self) -> None:
        given = self.problem(7)
        before = [t.clone() for t in given]
        self.kernel(*given, self.storage(SCHEMES[0]))
        assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))

    def test_another_input_gives_other_bits(self) -> None:
        """The first test can fail."""
        given, kept = self.problem(7), self.storage(SCHEMES[0])
        other = (given[0] + 0.5, *given[1:])
        with pytest.raises(AssertionError):
            assert_same_bits(self.kernel(*other, kept), self.reference(*given, kept))
