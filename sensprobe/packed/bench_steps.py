"""Operations of one step that remember, look up, normalise or rotate, cut out of a model's program.

Each is what a plan makes of a part of one layer, timed on any device; products are elsewhere, for
one layer's are too few to time on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from sensprobe_kernels.program import ir
from sensprobe_kernels.program.ir import Operation

from sensprobe.models import Model
from sensprobe.packed import bench_references as references
from sensprobe.packed.bench_models import (
    CHANNELS,
    DIAGONAL,
    HEADS,
    VOCABULARY,
    like_published,
    resolved,
)
from sensprobe.packed.bench_references import Run
from sensprobe.plans.cost import site_bytes
from sensprobe.plans.scheme import EXACT

STATES = ("fp32", "fp16", "int8/head/dynamic", "int4/head/dynamic")
PAIRS = ("fp32", "int8/head/asym/parts/dynamic")
WINDOWS = ("fp32", "int8/channel/dynamic")
ROWS = ("int8/channel", "int4/group32")
EXACTLY = "fp32"


class Step(NamedTuple):
    """Operations of a program, of the types `kinds`, timed as one.

    `scheme` is that of `site`, which gives the shape; `others` are the plan's other entries.
    `moved` returns the bytes that a layer must move; `kernel` is mamba_ssm's operation.
    """

    operation: str
    family: str
    site: str
    scheme: str
    kinds: tuple[type[Operation], ...]
    moved: Callable[[Model, Mapping[str, str], int], int]
    reference: Callable[[tuple[int, ...], int, str], Run]
    others: Mapping[str, str] = MappingProxyType({})
    kernel: Callable[[tuple[int, ...], int, str], Run | None] | None = None

    @property
    def plan(self) -> dict[str, str]:
        """Patterns and schemes of the plan that the program is made for."""
        pattern = self.site.replace(".0.", ".*.")
        return {**self.others, **({} if self.scheme == EXACTLY else {pattern: self.scheme})}

    def model(self, width: int, layers: int) -> Model:
        """One whose program has the operations, once a layer."""
        if self.site == "embedding":
            return like_published(width, self.family, 1, VOCABULARY, final_norm=False)
        return like_published(width, self.family, layers, final_norm=False)

    def shape(self, model: Model) -> tuple[int, ...]:
        return model.sites[self.site].shape


def _held(model: Model, plan: Mapping[str, str], *names: str) -> int:
    """Bytes of weights and scales, or of a sequence's states."""
    chosen = resolved(model, plan)
    return sum(sum(site_bytes(model.sites[n], chosen.get(n, EXACT))) for n in names)


def state_bytes(model: Model, plan: Mapping[str, str]) -> int:
    """Bytes of a layer's recurrent state."""
    return _held(model, plan, "layers.0.state")


def _reals(model: Model, *names: str) -> int:
    return sum(model.sites[f"layers.0.{name}"].reals for name in names)


def _update(model: Model, plan: Mapping[str, str], batch: int) -> int:
    """The state in and out; x, dt, B, C and y in float32; A."""
    passing = 4 * _reals(model, "x", "dt", "B", "C", "y")
    each = 2 * state_bytes(model, plan) + passing
    return batch * each + _held(model, plan, "layers.0.A")


def _diagonal(model: Model, plan: Mapping[str, str], batch: int) -> int:
    """The state in and out; u and y in float32; A, B and C."""
    each = 2 * state_bytes(model, plan) + 4 * _reals(model, "x", "y")
    return batch * each + _held(model, plan, *(f"layers.0.{n}" for n in "ABC"))


def _window(model: Model, plan: Mapping[str, str], batch: int) -> int:
    """The window in and out; x and y in float32; weights and biases."""
    each = 2 * _held(model, plan, "layers.0.conv_state") + 8 * _reals(model, "conv.bias")
    return batch * each + _held(model, plan, "layers.0.conv", "layers.0.conv.bias")


def _normed(model: Model, plan: Mapping[str, str], batch: int) -> int:
    """A row in, and out rounded, in float32; weights."""
    return 8 * batch * _reals(model, "in_proj_in") + _held(model, plan, "layers.0.norm")


def _rotated(model: Model, plan: Mapping[str, str], batch: int) -> int:
    """A row in, in float32; codes of a byte and a scale out."""
    return batch * (5 * _reals(model, "out_proj_in") + 4)


def _row(model: Model, plan: Mapping[str, str], batch: int) -> int:
    """A packed row in, a float32 one out."""
    rows, columns = model.sites["embedding"].shape
    return batch * (_held(model, plan, "embedding") // rows + 4 * columns)


_RECURRENCES = (
    ("state, Mamba", CHANNELS, ir.Channels),
    ("state, Mamba-2", HEADS, ir.Heads),
)

STEPS = (
    *(
        Step(name, family, "layers.0.state", scheme, (kind,), _update, references.torch_update,
             kernel=references.ssm_update)
        for name, family, kind in _RECURRENCES
        for scheme in STATES
    ),
    *(
        Step("state, S4D", DIAGONAL, "layers.0.state", scheme, (ir.Diagonal,), _diagonal,
             references.torch_diagonal)
        for scheme in PAIRS
    ),
    *(
        Step("convolution", HEADS, "layers.0.conv_state", scheme,
             (ir.Convolve, ir.Silu), _window, references.torch_window)
        for scheme in WINDOWS
    ),
    Step("norm, rounded", CHANNELS, "layers.0.in_proj_in", "int8/dynamic",
         (ir.Rms, ir.Round), _normed, references.torch_norm),
    Step("rotation, rounded", CHANNELS, "layers.0.out_proj_in", "int8/hadamard/dynamic",
         (ir.Round,), _rotated, references.torch_rotation,
         {"layers.*.out_proj": "int8/channel/hadamard"}),
    *(
        Step("embedding", CHANNELS, "embedding", scheme, (ir.Embed,), _row,
             references.torch_rows)
        for scheme in ROWS
    ),
)  # fmt: skip
"""What is timed beside products, at each shape."""
