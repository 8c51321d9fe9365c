"""Sites: the tensors of a model that a plan may address, by name, with their role and shape.

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
    """The place where a tensor lives; it decides which schemes make sense for it."""

    WEIGHT = "weight"  # stored once, the same for every input
    ACTIVATION = "activation"  # computed from the input, used, gone
    STATE = "state"  # carried between steps, one copy a sequence


class Part(StrEnum):
    """The tensors of a model, in the order the forward pass meets them."""

    INPUT = "input"  # numbers a model is given at a step
    ENCODER = "encoder"  # input projection
    EMBEDDING = "embedding"  # a row a token; a tied head multiplies by it
    NORM = "norm"  # scale of a normalisation
    NORM_IN = "norm_in"  # its input less the mean, where it is a product of two tensors
    NORM_FACTOR = "norm_factor"  # the other one: the scale over the standard deviation
    IN_PROJ_IN = "in_proj_in"  # what the input projections read
    IN_PROJ_Z = "in_proj.z"  # projection to the gate
    IN_PROJ_X = "in_proj.x"  # projection to the SSM input, before the convolution
    IN_PROJ_B = "in_proj.B"
    IN_PROJ_C = "in_proj.C"
    IN_PROJ_DT = "in_proj.dt"
    Z = "z"  # the gate, before its nonlinearity
    CONV_IN = "conv_in"  # what the short convolution reads
    CONV = "conv"  # its weights, one filter a channel
    CONV_STATE = "conv_state"  # its last inputs, carried from step to step
    X = "x"  # SSM input
    X_PROJ_DT = "x_proj.dt"  # projections of x to what selects: low-rank dt, B and C
    X_PROJ_B = "x_proj.B"
    X_PROJ_C = "x_proj.C"
    DT_PROJ_IN = "dt_proj_in"  # dt at low rank
    DT_PROJ = "dt_proj"  # from low rank to a dt a channel
    DT = "dt"  # step size, after softplus
    A = "A"  # as the hardware stores it: discretised where that is what memory holds
    DECAY = "decay"  # exp(dt A) of selective families, computed at every step
    B = "B"  # input matrix: a weight where time-invariant, an activation where selective
    STATE = "state"  # inside the recurrence: an error here feeds back
    C = "C"  # output matrix: of B's kind
    D = "D"  # skip connection
    Y = "y"  # SSM output
    GATED_NORM = "gated_norm"  # scale of the norm between gate and output projection
    OUT_PROJ_IN = "out_proj_in"  # what the output projection reads
    OUT_PROJ = "out_proj"  # output projection
    OUT_PROJ_OUT = "out_proj_out"  # what it writes, before the gated linear unit
    OUT = "out"  # the block's output, after gate, residual and norm
    HEAD_IN = "head_in"  # what the head reads, after pooling, and each of its linear maps after
    HEAD = "head"  # output layer; a head may have several
    BIAS = "bias"  # every additive vector


class Axis(StrEnum):
    """The things that an axis of a tensor may count."""

    HEAD = "head"  # independent recurrences
    CHANNEL = "channel"  # features that are not heads
    OUT = "out"  # rows of a matrix
    IN = "in"  # what a matrix sums over
    N = "n"  # state variables of one head
    GROUP = "group"  # heads that share B and C
    LAG = "lag"  # how far back a convolution looks, the oldest first


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
        """The number of real numbers that the tensor holds (a complex number is two)."""
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
        """The site as JSON values, with its number of reals and their bytes at full precision."""
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


EVERY_LAYER = "layers.*."
KINDS = {"weights": Kind.WEIGHT, "activations": Kind.ACTIVATION, "states": Kind.STATE}
"""Patterns that name every site of a kind."""


def group_pattern(site: Site) -> str:
    """The pattern that names this site in every layer: `layers.3.A` -> `layers.*.A`."""
    if site.layer is None:
        return site.name
    return EVERY_LAYER + site.name.split(".", 2)[2]


def matching(pattern: str, sites: Iterable[Site]) -> list[Site]:
    """The sites a glob names, in their order. `*` crosses dots: `*.bias` names every bias, and
    `weights`, `activations` and `states` name all of a kind.

    In `layers.*.` it stands for the number of a layer alone: `layers.*.B` is the B of every layer,
    and not its `in_proj.B`.
    """
    if pattern in KINDS:
        return [site for site in sites if site.kind is KINDS[pattern]]
    if not pattern.startswith(EVERY_LAYER):
        return [site for site in sites if fnmatchcase(site.name, pattern)]
    inner = pattern.removeprefix(EVERY_LAYER)
    return [
        site
        for site in sites
        if site.layer is not None and fnmatchcase(site.name.split(".", 2)[2], inner)
    ]


def nearest(pattern: str, sites: Iterable[Site]) -> list[str]:
    """Up to five names or patterns a user may have meant instead of `pattern`."""
    names: dict[str, None] = {}
    for site in sites:
        names.setdefault(group_pattern(site) if "*" in pattern else site.name)
    near = get_close_matches(pattern, [*KINDS, *names], n=5, cutoff=0.3)
    return near or list(names)[:5]
