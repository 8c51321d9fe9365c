"""What a plan may address: the tensors of a model, by name, with their role and shape.

A *site* is one tensor. Its *part* is the role it plays in the block, its *kind* says whether it is
stored once (weight), computed and passed on (activation), or carried from step to step (state).
No torch here: cost and search work from these alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from fnmatch import fnmatchcase
from math import prod
from typing import Any


class Kind(StrEnum):
    """Where a tensor lives; decides which schemes make sense for it."""

    WEIGHT = "weight"  # stored once, the same for every input
    ACTIVATION = "activation"  # computed from the input, used, gone
    STATE = "state"  # carried between steps, one copy a sequence


class Part(StrEnum):
    """The tensors of a model, in the order the forward pass meets them."""

    ENCODER = "encoder"  # input projection (or embedding)
    NORM = "norm"  # scale of a normalisation
    X = "x"  # SSM input
    A = "A"  # as the hardware stores it: discretised where that is what memory holds
    B = "B"  # input matrix; discretised in time-invariant families
    STATE = "state"  # inside the recurrence: an error here feeds back
    C = "C"  # output matrix
    D = "D"  # skip connection
    Y = "y"  # SSM output
    OUT_PROJ_IN = "out_proj_in"  # what the output projection reads
    OUT_PROJ = "out_proj"  # output projection
    OUT_PROJ_OUT = "out_proj_out"  # what it writes, before the gated linear unit
    OUT = "out"  # the block's output, after gate, residual and norm
    HEAD_IN = "head_in"  # what the head reads, after pooling
    HEAD = "head"  # output layer
    BIAS = "bias"  # every additive vector


class Axis(StrEnum):
    """What an axis of a tensor counts."""

    HEAD = "head"  # independent recurrences
    CHANNEL = "channel"  # features that are not heads
    OUT = "out"  # rows of a matrix
    IN = "in"  # what a matrix sums over
    N = "n"  # state variables of one head


@dataclass(frozen=True, slots=True)
class Site:
    """One tensor a plan may address.

    `shape` and `axes` describe the tensor as stored: weights whole, activations for one time step,
    states for one sequence. A complex tensor counts each number once in `shape`.
    """

    name: str
    part: Part
    kind: Kind
    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    is_complex: bool = False

    @property
    def reals(self) -> int:
        """How many real numbers the tensor holds (a complex number is two)."""
        return prod(self.shape) * (2 if self.is_complex else 1)

    @property
    def full_bytes(self) -> int:
        """Bytes at full precision (float32); activations cost none, they are not kept."""
        return 0 if self.kind is Kind.ACTIVATION else 4 * self.reals

    @property
    def layer(self) -> int | None:
        """Index of the layer the site is in; None outside the layers."""
        head, _, rest = self.name.partition(".")
        return int(rest.split(".")[0]) if head == "layers" else None

    def to_json(self) -> dict[str, Any]:
        """As plain values, with how many reals it holds and their bytes at full precision."""
        return {
            "site": self.name,
            "part": self.part.value,
            "kind": self.kind.value,
            "shape": list(self.shape),
            "axes": [axis.value for axis in self.axes],
            "complex": self.is_complex,
            "values": self.reals,
            "full_bytes": self.full_bytes,
        }


def group_pattern(site: Site) -> str:
    """The pattern that names this site in every layer: `layers.3.A` -> `layers.*.A`."""
    if site.layer is None:
        return site.name
    return "layers.*." + site.name.split(".", 2)[2]


def matching(pattern: str, sites: Iterable[Site]) -> list[Site]:
    """The sites a glob names, in their order. `*` crosses dots: `*.bias` names every bias."""
    return [site for site in sites if fnmatchcase(site.name, pattern)]


def nearest(pattern: str, sites: Iterable[Site]) -> list[str]:
    """Up to five names or patterns a user may have meant instead of `pattern`."""
    names: dict[str, None] = {}
    for site in sites:
        names.setdefault(group_pattern(site) if "*" in pattern else site.name)
    return get_close_matches(pattern, list(names), n=5, cutoff=0.3) or list(names)[:5]
