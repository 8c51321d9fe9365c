"""What is known while the program of a model's step is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sensprobe_kernels.program import tables as op
from sensprobe_kernels.program.cpu import Program, Register
from sensprobe_kernels.rotation.rows import Turn

from sensprobe.models import Model
from sensprobe.packed import describe, states
from sensprobe.packed.arena import Arena
from sensprobe.scheme import EXACT
from sensprobe.sites import Axis, Kind, Part, Site
from sensprobe.taps import StaticScale
from sensprobe.transforms import factors, paley

READ_BY_LINEAR_MAPS = frozenset({Part.IN_PROJ_IN, Part.DT_PROJ_IN, Part.OUT_PROJ_IN, Part.HEAD_IN})
"""Activations that nothing else reads."""


class Operand(NamedTuple):
    """An activation as linear maps may read it: as it is, and rotated as some of them are stored.

    Where all of them are and nothing else reads it, it is not taken back.
    """

    plain: Register | None
    rotated: Register | None


@dataclass
class Builder:
    """A program, and what its operations have made so far."""

    model: Model
    arena: Arena
    scales: Mapping[str, StaticScale]
    program: Program
    fresh: list[NDArray[np.uint8]] = field(default_factory=list)
    registers: dict[tuple[str, int], Register] = field(default_factory=dict)
    _tensors: dict[str, int] = field(default_factory=dict)
    _operands: dict[str, Operand] = field(default_factory=dict)
    _signs: dict[tuple[int, bool], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sites = self.model.sites
        self._reads = {  # linear map -> its operand
            weight: operand
            for weight, operand, _ in self.model.products
            if operand is not None
            and sites[weight].kind is Kind.WEIGHT
            and sites[weight].axes == (Axis.OUT, Axis.IN)
        }

    def site(self, name: str) -> Site:
        return self.model.sites[name]

    def register(self, name: str, size: int) -> Register:
        """The one of that name: layers use the same."""
        if (name, size) not in self.registers:
            self.registers[name, size] = self.program.register(size)
        return self.registers[name, size]

    def tensor(self, name: str, *, whole: bool = False) -> int:
        """A weight; -1 where the model has none. `whole`: it is decoded before it is used."""
        if name not in self.model.sites:
            return -1
        site = self.site(name)
        if name not in self._tensors:
            t = describe.packed(site, self.arena)
            if self._stored_rotated(name):
                t = t._replace(**self._turn(site.shape[-1], back=True)._asdict())
            self._tensors[name] = self.program.tensor(t)
        if whole:
            self.program.decodes(site.reals)
        return self._tensors[name]

    # -- linear maps and what they read -----------------------------------------------------------

    def linear(self, name: str, x: Register, to: Register, bias: str = "") -> Register:
        """to = W x + bias, x as it passed last."""
        operand = self._operands.get(self._reads.get(name, ""), Operand(x, None))
        read = operand.plain
        if self._stored_rotated(name):
            read = operand.rotated or self._rotated("input", x)
        assert read is not None
        self.program.add(op.LINEAR, self.tensor(name), read.at, read.pitch, to.at, to.pitch)
        row = self.tensor(bias or f"{name}.bias", whole=True)
        if row >= 0:
            self.program.add(op.BIAS, row, to.at, to.pitch, to.size)
        return to

    def passes(self, name: str, x: Register) -> Register:
        """An activation, rounded in place where the plan says so; linear maps find it."""
        site, scheme = self.site(name), self.arena.plan.get(name, EXACT)
        rotated = [self._stored_rotated(n) for n, read in self._reads.items() if read == name]
        store = -1
        if scheme.bits_per_real < 32:
            store = describe.passing(self.program, site, scheme, self.scales.get(name), self.arena)
        if scheme.hadamard:
            self._operands[name] = self._rounded_rotated(site, x, store, rotated)
            return x
        if store >= 0:
            self._round(x, store, x)
        also = self._rotated(site.part, x) if any(rotated) else None
        self._operands[name] = Operand(x, also)
        return x

    def _rounded_rotated(self, site: Site, x: Register, store: int, rotated: list[bool]) -> Operand:
        """Rotated, rounded, and taken back unless what reads it takes it as it is."""
        forth, back = (self._turn(site.shape[-1], back=back) for back in (False, True))
        if site.part in READ_BY_LINEAR_MAPS and rotated and all(rotated):
            self._round(x, store, x, forth)
            return Operand(None, x)
        to = self.register(f"{site.part} rotated", x.size) if any(rotated) else x
        self._round(x, store, to, forth, back.signs)
        return Operand(x, to if any(rotated) else None)

    def _rotated(self, name: str, x: Register) -> Register:
        """An activation as it is, rotated."""
        to = self.register(f"{name} rotated", x.size)
        self._round(x, describe.exact(self.program), to, self._turn(x.size, back=False))
        return to

    def _round(
        self, x: Register, store: int, to: Register, turn: Turn | None = None, back: int = -1
    ) -> None:
        if turn is None:
            turn = Turn(1, 0, 0)
        self.program.turns(x.size)
        self.program.add(op.ROUND, x.at, x.pitch, x.size, store, to.at, to.pitch, *turn, back)

    def _stored_rotated(self, weight: str) -> bool:
        return self.arena.plan.get(weight, EXACT).hadamard

    def _turn(self, size: int, *, back: bool) -> Turn:
        """The transform of an axis, or what takes it back: the transpose of Paley's matrix."""
        base, power = factors(size)
        if base == 1:
            return Turn(1, power, 0)
        if (base, back) not in self._signs:
            rows = paley(base).mT if back else paley(base)
            self._signs[base, back] = self.program.constants(*rows.flatten().tolist())
        return Turn(base, power, self._signs[base, back])

    # -- states -----------------------------------------------------------------------------------

    def state(self, name: str, *, heads: int = 1, groups: int = 1) -> int:
        """A state, in the next bytes of a sequence's memory."""
        site = self.site(name)
        found = states.state(
            self.program, site, self.arena.plan.get(name), self.scales.get(name), self.arena,
            sum(map(len, self.fresh)), heads=heads, groups=groups,
        )  # fmt: skip
        self.fresh.append(found.fresh)
        return found.row

    def complex_state(self, name: str) -> int:
        """One of pairs."""
        found = states.complex_state(
            self.program, self.site(name), self.arena.plan.get(name), self.scales.get(name),
            self.arena, sum(map(len, self.fresh)),
        )  # fmt: skip
        self.fresh.append(found.fresh)
        return found.row

    # -- the rest ---------------------------------------------------------------------------------

    def add(self, a: Register, b: Register, to: Register) -> Register:
        self.program.add(op.ADD, a.at, b.at, to.at, to.pitch)
        return to

    def copy(self, x: Register, to: Register) -> Register:
        self.program.add(op.COPY, x.at, x.pitch, to.at, to.pitch, x.size)
        return to

    def eps(self, value: float) -> int:
        return self.program.constants(value)
