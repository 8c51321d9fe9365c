"""The parts that the selective families, Mamba and Mamba-2, have in common.

    u ─ projections ─ conv ─ SiLU ─ parted ─ recurrence ─ … ─ projection

The convolution and the recurrence are the operations that round inside themselves. Each is one
method, which the forward and its replays share.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe import ops
from sensprobe.models.forward import At
from sensprobe.models.frame import Shapes
from sensprobe.models.framed import Framed, Replay
from sensprobe.models.initial import drawn, log_steps, uniform
from sensprobe.numerics.arithmetic import exp
from sensprobe.numerics.storage import Carry
from sensprobe.numerics.taps import EXACT, Tap, single

Scan = Callable[..., tuple[Tensor, Carry]]
LogA = Callable[[tuple[int, ...], torch.Generator], Tensor]


def initial(
    shapes: Shapes, layers: int, dt: tuple[float, float], log_A: LogA, seed: int
) -> dict[str, Tensor]:
    """The parameters that training starts from, as mamba_ssm draws them.

    out_proj is divided by √layers, so that the residual stream keeps its size; the bias of dt is
    the inverse of softplus of a step size between dt's ends; D is one.
    """

    def own(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor | None:
        if name.endswith("out_proj.weight"):
            return uniform(shape, shape, generator) / math.sqrt(layers)
        if name.endswith(".A_log"):
            return log_A(shape, generator)
        if name.endswith((".dt_bias", ".dt_proj.bias")):
            step = torch.exp(log_steps(shape, dt, generator))
            return step + torch.log(-torch.expm1(-step))
        return torch.ones(shape) if name.endswith(".D") else None

    return drawn(shapes, own, seed)


def earlier_weights(
    weights: Mapping[str, Tensor], params: Mapping[str, Tensor], config: Any
) -> dict[str, Tensor]:
    """A model's weights with A as it was once computed, by the machine's own exp."""
    A = {
        f"layers.{i}.A": -torch.exp(params[f"layers.{i}.A_log"].float().double())
        for i in range(config.layers)
    }
    return {**weights, **A}


@dataclass(frozen=True)
class Selective(Framed):
    """A model whose B, C and dt depend on the input: A in float64, other weights as loaded."""

    radius_name: ClassVar[str] = "decay at rest"
    convolved: ClassVar[tuple[str, ...]]
    """The sites that hold what was convolved, less the layer's prefix."""

    @property
    @abstractmethod
    def recurrence(self) -> Scan:
        """The operation; its arguments are those of `ops.selective_scan`."""

    @abstractmethod
    def parted(self, v: Tensor) -> tuple[Tensor, ...]:
        """Split the output of the convolution, (b, l, channels), into the sites `convolved`, each
        in its own shape."""

    @abstractmethod
    def dt_at_rest(self, at: At) -> Tensor:
        """dt where the input says nothing, float64; it broadcasts against A."""

    # -- operations that round inside themselves --------------------------------------------------

    def convolve(
        self, at: At, v: Tensor, carry: Carry | None = None
    ) -> tuple[tuple[Tensor, ...], Carry]:
        """The convolution over v (b, l, channels) and SiLU, parted; and the window after it."""
        v, window = ops.causal_conv(v, at("conv"), at.bias("conv"), at.storage("conv_state"), carry)
        return self.parted(F.silu(v)), window

    def recur(
        self, at: At, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, carry: Carry | None = None
    ) -> tuple[Tensor, Carry]:
        """The recurrence: y, and the state after it."""
        return self.recurrence(
            x, dt, at("A"), B, C, at.storage("decay"), at.storage("state"), carry
        )

    @property
    def replays(self) -> list[Replay]:
        """The convolution and the recurrence of every layer."""
        return [
            replay
            for i in range(self.config.layers)
            for replay in self._layer_replays(f"layers.{i}.")
        ]

    def _layer_replays(self, prefix: str) -> tuple[Replay, Replay]:
        def convolution(values: Mapping[str, Tensor], tap: Tap) -> tuple[Tensor, ...]:
            return self.convolve(At(self, tap, prefix), values[prefix + "conv_in"])[0]

        def recurrence(values: Mapping[str, Tensor], tap: Tap) -> tuple[Tensor, ...]:
            x, dt, B, C = (values[prefix + name] for name in ("x", "dt", "B", "C"))
            return (self.recur(At(self, tap, prefix), x, dt, B, C)[0],)

        def named(*names: str) -> frozenset[str]:
            return frozenset(prefix + name for name in names).intersection(self.sites)

        return (
            Replay(
                named("conv_state"),
                tuple(prefix + name for name in self.convolved),
                convolution,
            ),
            Replay(named("A", "decay", "state"), (prefix + "y",), recurrence),
        )

    def layer_radius(self, i: int, tap: Tap = EXACT) -> float:
        """A layer's largest decay at rest: exp(dt A) with A as the tap leaves it and dt at rest.

        The decay depends on the input through dt, and dt is positive whatever the input: so this is
        above 1 exactly where a stored A is positive, which is where the recurrence is unstable, and
        below it tells how long a state lasts while the input says nothing. Rounding of the decay
        itself, at run time, is not in it.
        """
        at = At(self, tap, f"layers.{i}.")
        return exp(self.dt_at_rest(at) * single(at("A")).double()).max().item()
