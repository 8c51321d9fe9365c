"""The recurrence of S5 as the code of Q-S5 rounds it: inside the tree of an associative scan.

Facts of github.com/kmheckel/Q-S5 and its S5 (s5/qssm_aqt.py and s5/utils/quantization.py, as
github.com/stevenabreu7/Q-S5 has them @ 396d07b), written anew:

- An element of the scan is a pair (A, b), at first (A_bar, B u). Of two neighbours (A_i, b_i) and
  (A_j, b_j) comes (A_j A_i, A_j b_i + b_j). A complex product is four real ones, each of which
  rounds both factors: A_j and A_i in the bits of A, b_i in those of activations. Neither b_j nor
  the sum is rounded, so a state is rounded as often as the tree is deep, and not at every step.
- Rounding is AQT's: symmetric, to nearest, a code of at most 2^(b-1) - 1, and a scale that maps the
  largest magnitude to 2^(b-1) - ½. Ranges are dynamic. The operator is mapped over time and batch,
  so a range is that of the real or of the imaginary numbers of all modes at one place in the tree.
- What C reads is rounded in the same way, in the bits of activations; B u is not.

The tree is that of `jax.lax.associative_scan`: neighbours are joined in pairs, the pairs are
scanned, and each element between two prefixes is joined to the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sensprobe.models.forward import At
from sensprobe.models.s5_layers import S5
from sensprobe.numerics.storage import Carry


@dataclass(frozen=True, slots=True)
class Bits:
    """The widths of A and of activations in the tree; None keeps a factor exact."""

    A: int | None = None
    activations: int | None = None


def rounded(x: Tensor, bits: int | None) -> Tensor:
    """Real x, rounded by a range of its own along the last axis."""
    if bits is None:
        return x
    largest = x.abs().amax(-1, keepdim=True)
    scale = torch.where(largest > 0, largest / (2 ** (bits - 1) - 0.5), torch.ones_like(largest))
    code, most = (x / scale).round(), 2 ** (bits - 1) - 1
    return code.clamp(-most, most) * scale


def both_rounded(x: Tensor, bits: int | None) -> Tensor:
    """Complex x, its real and its imaginary part each rounded by a range of its own."""
    return torch.complex(rounded(x.real, bits), rounded(x.imag, bits))


def joined(a_i: Tensor, b_i: Tensor, a_j: Tensor, b_j: Tensor, bits: Bits) -> tuple[Tensor, Tensor]:
    """(A_j A_i, A_j b_i + b_j) of elements a (l, n) and b (l, b, n), complex64."""
    factor = both_rounded(a_j, bits.A)
    b = factor[:, None] * both_rounded(b_i, bits.activations) + b_j
    return factor * both_rounded(a_i, bits.A), b


def scanned(a: Tensor, b: Tensor, bits: Bits) -> tuple[Tensor, Tensor]:
    """All prefixes of elements a (l, n) and b (l, b, n)."""
    if len(a) < 2:
        return a, b
    first, second = slice(0, len(a) - 1, 2), slice(1, None, 2)
    odd_a, odd_b = scanned(*joined(a[first], b[first], a[second], b[second], bits), bits)
    some = len(a[2::2])
    even_a, even_b = joined(odd_a[:some], odd_b[:some], a[2::2], b[2::2], bits)
    return _in_turn(a[:1], odd_a, even_a), _in_turn(b[:1], odd_b, even_b)


def _in_turn(first: Tensor, odd: Tensor, even: Tensor) -> Tensor:
    out = first.new_empty(1 + len(odd) + len(even), *first.shape[1:])
    out[:1], out[1::2], out[2::2] = first, odd, even
    return out


@dataclass(frozen=True)
class TreeS5(S5):
    """An S5 of ours that scans in the rounded tree; a plan leaves its A and its states exact."""

    bits: Bits = Bits()

    def scan(
        self, at: At, name: str, v: Tensor, A: Tensor, carry: Carry | None
    ) -> tuple[Tensor, None]:
        """The states (b, l, 2n) that C reads, from v (b, l, 2n) and A (heads, modes of a head)."""
        assert at.storage(name) is None
        assert carry is None
        b = torch.view_as_complex(v.unflatten(-1, (-1, 2)).contiguous()).movedim(1, 0)
        a = A.flatten().expand(len(b), -1)
        states = both_rounded(scanned(a, b, self.bits)[1], self.bits.activations)
        return torch.view_as_real(states.movedim(0, 1).contiguous()).flatten(2), None
