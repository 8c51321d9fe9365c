"""Writing the program of a model's streaming step, a method an operation.

A family's `lower` calls these methods in the order of its forward pass. The class they are declared
in, `models.lowering.builder.Builder`, says what each of them does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm

import numpy as np
from numpy.typing import NDArray
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.ir import Register
from sensprobe_kernels.program.program import Program

from sensprobe.models import Model
from sensprobe.models.lowering import builder as lowering
from sensprobe.numerics.taps import StaticScale
from sensprobe.packed import describe, states
from sensprobe.packed.operands import Operands
from sensprobe.packed.weights import PackedWeights
from sensprobe.plans.scheme import EXACT

LOWEST, HIGHEST = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)
ACTIVATIONS: dict[str, type[ir.Silu | ir.Gelu | ir.GeluTanh | ir.Qgelu | ir.Qgelu4 | ir.Relu]] = {
    "silu": ir.Silu, "gelu": ir.Gelu, "gelu-tanh": ir.GeluTanh, "qgelu": ir.Qgelu,
    "qgelu4": ir.Qgelu4, "relu": ir.Relu
}  # fmt: skip


@dataclass
class Builder(lowering.Builder):
    """A program under construction.

    `fresh` are the bytes of each state before the first step. Every state is stored after `chunk`
    steps; `no_steps` says why fewer cannot run, "" where they can.
    """

    model: Model
    weights: PackedWeights
    scales: Mapping[str, StaticScale]
    program: Program
    fresh: list[NDArray[np.uint8]] = field(default_factory=list)
    chunk: int = 1
    no_steps: str = ""
    _constants: dict[float, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.operands = Operands(self.model, self.weights, self.scales, self.program)
        self._tensor = self.operands.tensor

    def register(self, name: str, size: int) -> Register:
        return self.operands.register(name, size)

    # -- between registers ------------------------------------------------------------------------

    def input(self, size: int) -> Register:
        to = self.register("input", size)
        self.program.add(ir.Input(to))
        return to

    def embed(self, name: str, to: Register) -> Register:
        self.program.add(ir.Embed(self._tensor(name), to))
        return to

    def passes(
        self, name: str, x: Register, *, scanned: bool = False, shared: bool = False
    ) -> Register:
        return self.operands.passes(name, x, scanned=scanned, shared=shared)

    def linear(self, name: str, x: Register, to: Register, bias: str = "") -> Register:
        self.operands.linear(name, x, to)
        bias = bias or f"{name}.bias"
        return self.add_bias(bias, to) if bias in self.model.sites else to

    def add_bias(self, name: str, x: Register) -> Register:
        self.program.add(ir.Bias(self._tensor(name), x))
        return x

    def rms(
        self, x: Register, to: Register, eps: float, weight: str = "", groups: int = 1
    ) -> Register:
        tensor = self._tensor(weight)
        self.program.add(ir.Rms(x, to, groups, self._constant(eps), tensor))
        return to

    def layer_norm(self, x: Register, to: Register, eps: float, weight: str) -> Register:
        tensor, bias = self._tensor(weight), self._tensor(f"{weight}.bias")
        self.program.add(ir.LayerNorm(x, to, self._constant(eps), tensor, bias))
        return to

    def layer_product(self, x: Register, to: Register, eps: float, at: str) -> Register:
        weight, factor = at + "norm", self.register("norm_factor", x.size)
        self.program.add(ir.Centre(x, to))
        self.program.add(ir.Factor(to, factor, self._constant(eps), self._tensor(weight)))
        centred, factor = self.passes(at + "norm_in", to), self.passes(at + "norm_factor", factor)
        self.program.add(ir.Multiply(centred, factor, to))
        return self.add_bias(f"{weight}.bias", to)

    def affine(self, x: Register, to: Register, weight: str) -> Register:
        self.program.add(ir.Affine(x, to, self._tensor(weight), self._tensor(f"{weight}.bias")))
        return to

    def activation(self, name: str, x: Register) -> Register:
        self.program.add(ACTIVATIONS[name](x, x))
        return x

    def softplus(self, x: Register, low: float = LOWEST, high: float = HIGHEST) -> Register:
        self.program.add(ir.Softplus(x, x, self._constant(low), self._constant(high)))
        return x

    def gate(self, y: Register, z: Register) -> Register:
        self.program.add(ir.Gate(y, z, y))
        return y

    def half_glu(self, x: Register, to: Register) -> Register:
        self.program.add(ir.HalfGlu(x, to))
        return to

    def hard_glu(self, x: Register, to: Register) -> Register:
        self.program.add(ir.HardGlu(x, to))
        return to

    def add(self, a: Register, b: Register, to: Register) -> Register:
        self.program.add(ir.Add(a, b, to))
        return to

    def copy(self, x: Register, to: Register) -> Register:
        self.program.add(ir.Copy(x, to))
        return to

    def pick(self, x: Register, to: Register, columns: Sequence[int]) -> Register:
        self.program.add(ir.Pick(x, to, self.program.constants(*columns)))
        return to

    def skip(self, name: str, y: Register, x: Register) -> Register:
        D = self._tensor(name)
        count = self.model.sites[name].reals
        self.program.add(ir.Skip(y, x, y, D, x.size // count, count))
        return y

    def mean(self, x: Register) -> Register:
        self.program.add(ir.Mean(x, x))
        return x

    # -- operations with a state ------------------------------------------------------------------

    def convolve(self, name: str, state: str, x: Register, to: Register) -> Register:
        kept = self._state(state)
        weight, bias = self._tensor(name), self._tensor(f"{name}.bias")
        self.program.add(ir.Convolve(weight, bias, x, to, kept))
        return to

    def decay(self, A: str, dt: Register, to: Register) -> Register:
        self.program.add(ir.Decay(dt, self._tensor(A), to))
        return to

    def channels(
        self, at: str, x: Register, dt: Register, B: Register, C: Register, to: Register
    ) -> Register:
        A, state, store = self._tensor(at + "A"), self._state(at + "state"), self._decay(at)
        self.program.add(ir.Channels(x, dt, A, B, C, to, state, store, *self._taken(at)))
        return to

    def heads(
        self, at: str, x: Register, dt: Register, decay: Register, B: Register, C: Register,
        to: Register, *, heads: int, groups: int,
    ) -> Register:  # fmt: skip
        state = self._state(at + "state", heads=heads, groups=groups)
        self.program.add(ir.Heads(x, dt, decay, B, C, to, state, *self._taken(at)))
        return to

    def in_chunks(self, at: str) -> bool:
        plan = self.weights.plan
        return plan.get(at + "state", EXACT).every > 1 and at + "decay" not in plan

    def chunks(
        self, at: str, x: Register, dt: Register, B: Register, C: Register, to: Register, *,
        heads: int, groups: int,
    ) -> Register:  # fmt: skip
        A, every = self._tensor(at + "A"), self.weights.plan[at + "state"].every
        state = self._state(at + "state", heads=heads, groups=groups, every=every)
        self.program.add(ir.Chunks(x, dt, A, B, C, to, state, every))
        return to

    def diagonal(self, at: str, x: Register, to: Register) -> Register:
        A, B, C = (self._tensor(at + part) for part in "ABC")
        self.program.add(ir.Diagonal(x, to, A, B, C, self._complex_state(at + "state")))
        return to

    def modes(self, at: str, x: Register, to: Register) -> Register:
        A = self._tensor(at + "A")
        self.program.add(ir.Modes(x, to, A, self._complex_state(at + "state")))
        return to

    # -- tables -----------------------------------------------------------------------------------

    @property
    def _end(self) -> int:
        """Bytes of a sequence's states so far."""
        return sum(map(len, self.fresh))

    def _state(self, name: str, *, heads: int = 1, groups: int = 1, every: int = 1) -> int:
        """A new state, after those before it; it is stored every so many steps."""
        site, scheme = self.model.sites[name], self.weights.plan.get(name)
        found = states.state(
            self.program, site, scheme, self.scales.get(name), self.weights, self._end,
            heads=heads, groups=groups, every=every,
        )  # fmt: skip
        if scheme is not None and every > 1:
            self.chunk = lcm(self.chunk, every)
            self.no_steps = self.no_steps or str(states.kept_in_full(site, scheme))
        self.fresh.append(found.fresh)
        return found.row

    def _complex_state(self, name: str) -> int:
        """The same of complex pairs."""
        site, scheme = self.model.sites[name], self.weights.plan.get(name)
        found = states.complex_state(
            self.program, site, scheme, self.scales.get(name), self.weights, self._end
        )
        self.fresh.append(found.fresh)
        return found.row

    def _decay(self, at: str) -> int:
        """The store of Mamba's decays, which a kernel rounds inside the recurrence."""
        name = at + "decay"
        scheme = self.weights.plan.get(name)
        if scheme is None:
            return describe.exact(self.program)
        static = self.scales.get(name)
        return states.inside(self.program, self.model.sites[name], scheme, static, self.weights)

    def _taken(self, at: str) -> tuple[ir.Codes, ...]:
        """The codes of x, B and C."""
        return tuple(self.operands.take_codes(at + name) for name in "xBC")

    def _constant(self, value: float) -> int:
        """The number of a constant, the same for equal values."""
        if value not in self._constants:
            self._constants[value] = self.program.constants(value)
        return self._constants[value]
