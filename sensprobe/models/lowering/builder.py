"""The methods of a builder of streaming programs that a family's `lower` calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sensprobe_kernels.program.ir import Register


class Builder(Protocol):
    """A program under construction, a method an operation.

    Weights and states are given by the names of their sites, everything else by register. Methods
    that return a register return the one they have written.
    """

    def register(self, name: str, size: int) -> Register:
        """The register of that name and size; layers use the same ones."""
        ...

    def input(self, size: int) -> Register:
        """The inputs of the step."""
        ...

    def embed(self, name: str, to: Register) -> Register:
        """The rows of an embedding that tokens name."""
        ...

    def passes(
        self, name: str, x: Register, *, scanned: bool = False, shared: bool = False
    ) -> Register:
        """An activation, rounded in place where the plan says so.

        `scanned`: nothing but linear maps and a recurrence reads it, so the recurrence may read
        the codes it was rounded to. `shared`: more than linear maps reads it, though in other
        families nothing else does.
        """
        ...

    def linear(self, name: str, x: Register, to: Register, bias: str = "") -> Register:
        """to = W x, plus the bias where the model has one; `bias` is "{name}.bias" by default."""
        ...

    def add_bias(self, name: str, x: Register) -> Register:
        """x + b, in place."""
        ...

    def rms(
        self, x: Register, to: Register, eps: float, weight: str = "", groups: int = 1
    ) -> Register:
        """An RMS norm within each of `groups` runs of columns, with a weight if one is named."""
        ...

    def layer_norm(self, x: Register, to: Register, eps: float, weight: str) -> Register:
        """A layer norm with a weight and "{weight}.bias"."""
        ...

    def layer_product(self, x: Register, to: Register, eps: float, at: str) -> Register:
        """A layer norm as a product of the activations `at` + "norm_in" and "norm_factor", plus a
        bias."""
        ...

    def affine(self, x: Register, to: Register, weight: str) -> Register:
        """x · weight + "{weight}.bias"."""
        ...

    def activation(self, name: str, x: Register) -> Register:
        """silu, gelu, gelu-tanh, qgelu, qgelu4 or relu, in place."""
        ...

    def softplus(self, x: Register, low: float = ..., high: float = ...) -> Register:
        """log(1 + exp(x)) in place, clamped to [low, high]."""
        ...

    def gate(self, y: Register, z: Register) -> Register:
        """y silu(z), in place of y."""
        ...

    def half_glu(self, x: Register, to: Register) -> Register:
        """a sigmoid(b), where a and b are the halves of x."""
        ...

    def hard_glu(self, x: Register, to: Register) -> Register:
        """a clamp(b + 3, 0, 6) / 6, where a and b are the halves of x."""
        ...

    def add(self, a: Register, b: Register, to: Register) -> Register:
        """a + b."""
        ...

    def copy(self, x: Register, to: Register) -> Register:
        """x, elsewhere."""
        ...

    def pick(self, x: Register, to: Register, columns: Sequence[int]) -> Register:
        """A number of x for each of `to`: that of the column named, 0 where that is -1."""
        ...

    def skip(self, name: str, y: Register, x: Register) -> Register:
        """y + D x, in place of y. The numbers of D are shared by equal runs of columns."""
        ...

    def mean(self, x: Register) -> Register:
        """The mean over all steps so far, in place."""
        ...

    def convolve(self, name: str, state: str, x: Register, to: Register) -> Register:
        """A causal convolution with a filter a channel, plus "{name}.bias" where there is one."""
        ...

    def decay(self, A: str, dt: Register, to: Register) -> Register:
        """exp(dt A)."""
        ...

    def channels(
        self, at: str, x: Register, dt: Register, B: Register, C: Register, to: Register
    ) -> Register:
        """The recurrence of Mamba, a channel a row: h = exp(dt A) h + dt B x, to = C · h.

        The names of A, decay, state, x, B and C begin with `at`.
        """
        ...

    def heads(
        self, at: str, x: Register, dt: Register, decay: Register, B: Register, C: Register,
        to: Register, *, heads: int, groups: int,
    ) -> Register:  # fmt: skip
        """The recurrence of Mamba-2, whose decays are given; `groups` of heads share B and C."""
        ...

    def in_chunks(self, at: str) -> bool:
        """Whether the recurrence is to run in `chunks`: its state is rounded every few steps only,
        and its decays are exact."""
        ...

    def chunks(
        self, at: str, x: Register, dt: Register, B: Register, C: Register, to: Register, *,
        heads: int, groups: int,
    ) -> Register:  # fmt: skip
        """The recurrence of `heads` with decays exp(dt A), of whole sequences, from one rounding of
        its state to the next."""
        ...

    def diagonal(self, at: str, x: Register, to: Register) -> Register:
        """The recurrence of S4D, a head a number of x: h = A h + B x, to = 2 Re(C · h), complex.

        The names of A, B, C and state begin with `at`.
        """
        ...

    def modes(self, at: str, x: Register, to: Register) -> Register:
        """The recurrence of S5: to = h = A h + x, complex numbers as their parts in turn.

        The names of A and state begin with `at`.
        """
        ...
