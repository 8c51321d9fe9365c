"""What is known while the program of a model's step is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, lcm
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sensprobe_kernels.ops.rotate.rows import Turn
from sensprobe_kernels.program import tables as op
from sensprobe_kernels.program.cpu import Program, Register

from sensprobe.models import Model
from sensprobe.numerics.taps import StaticScale
from sensprobe.numerics.transforms import factors, paley
from sensprobe.packed import describe, states
from sensprobe.packed.arena import Arena
from sensprobe.plans.formats import Int
from sensprobe.plans.scheme import EXACT, Scheme
from sensprobe.plans.sites import Axis, Kind, Part, Site

READ_BY_LINEAR_MAPS = frozenset(
    {Part.INPUT, Part.IN_PROJ_IN, Part.DT_PROJ_IN, Part.OUT_PROJ_IN, Part.HEAD_IN}
)
"""Activations that nothing else reads."""


class Codes(NamedTuple):
    """Whole numbers in the basis they were rounded in, and their scales, one for `run` of them;
    `readers` as in `tables`."""

    codes: Register
    scales: Register
    run: int
    readers: int = 0


class Operand(NamedTuple):
    """An activation as linear maps may read it: as it is, rotated as some of them are stored, and
    the codes it was rounded to.

    Where all of them are rotated and nothing else reads it, it is not taken back.
    """

    plain: Register | None
    rotated: Register | None = None
    codes: Codes | None = None


@dataclass
class Builder:
    """A program, and what its operations have made so far."""

    model: Model
    arena: Arena
    scales: Mapping[str, StaticScale]
    program: Program
    fresh: list[NDArray[np.uint8]] = field(default_factory=list)
    registers: dict[tuple[str, int], Register] = field(default_factory=dict)
    untaken: dict[str, Codes] = field(default_factory=dict)  # by the recurrence they are for
    chunk: int = 1  # steps after which every state is in memory again
    no_steps: str = ""  # why fewer cannot run, where they cannot
    _tensors: dict[str, int] = field(default_factory=dict)
    _operands: dict[str, Operand] = field(default_factory=dict)
    _coded: dict[tuple[str, int], Register] = field(default_factory=dict)
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
        operand = self._operands.get(self._reads.get(name, ""), Operand(x))
        read = operand.plain
        if self._stored_rotated(name):
            read = operand.rotated or self._rotated("input", x)
        if operand.codes is not None and self._takes_codes(name):
            codes, scales, run, _ = operand.codes
            self.program.add(
                op.LINEAR_CODES, self.tensor(name), codes.at, codes.pitch, run, scales.at,
                scales.pitch, to.at, to.pitch,
            )  # fmt: skip
        else:
            assert read is not None
            self.program.add(op.LINEAR, self.tensor(name), read.at, read.pitch, to.at, to.pitch)
        row = self.tensor(bias or f"{name}.bias", whole=True)
        if row >= 0:
            self.program.add(op.BIAS, row, to.at, to.pitch, to.size)
        return to

    def passes(self, name: str, x: Register, *, scanned: bool = False) -> Register:
        """An activation, rounded in place where the plan says so; linear maps find it, and
        recurrences its codes if it is `scanned`: then nothing but they and linear maps reads it."""
        site, scheme = self.site(name), self.arena.plan.get(name, EXACT)
        maps = [n for n, read in self._reads.items() if read == name]
        rotated, store = [self._stored_rotated(n) for n in maps], -1
        codes = self._kept_codes(site, scheme, x, maps, scanned=scanned)
        if scheme.bits_per_real < 32:
            store = describe.passing(self.program, site, scheme, self.scales.get(name), self.arena)
        if scheme.hadamard:
            self._operands[name] = self._rounded_rotated(site, x, store, rotated, codes)
            return x
        if store >= 0:
            self._round(x, store, x, codes=codes)
        also = self._rotated(site.part, x) if any(rotated) else None
        self._operands[name] = Operand(x, also, codes)
        return x

    def _kept_codes(
        self, site: Site, scheme: Scheme, x: Register, maps: list[str], *, scanned: bool
    ) -> Codes | None:
        """Room for those of an activation, if linear maps or a recurrence may take them."""
        multiplied, readers = [self._takes_codes(name) for name in maps], 0
        if scanned and describe.scanned(site, scheme):
            readers = op.SCANNED
            readers |= op.MULTIPLIED if any(multiplied) else 0
            readers |= 0 if all(multiplied) else op.PLAIN
        elif not any(multiplied):
            return None
        run = describe.coded(site, scheme)
        scales = self.register(f"{site.part} scales", ceil(x.size / run))
        codes = Codes(self._codes(site.part, x.size), scales, run, readers)
        if readers:
            self.untaken[site.name] = codes
        return codes

    def _rounded_rotated(
        self, site: Site, x: Register, store: int, rotated: list[bool], codes: Codes | None
    ) -> Operand:
        """Rotated, rounded, and taken back unless what reads it takes it as it is."""
        forth, back = (self._turn(site.shape[-1], back=back) for back in (False, True))
        if site.part in READ_BY_LINEAR_MAPS and rotated and all(rotated):
            self._round(x, store, x, forth, codes=codes)
            return Operand(None, x, codes)
        to = self.register(f"{site.part} rotated", x.size) if any(rotated) else x
        self._round(x, store, to, forth, back.signs, codes)
        return Operand(x, to if any(rotated) else None, codes)

    def _rotated(self, name: str, x: Register) -> Register:
        """An activation as it is, rotated."""
        to = self.register(f"{name} rotated", x.size)
        self._round(x, describe.exact(self.program), to, self._turn(x.size, back=False))
        return to

    def _round(
        self,
        x: Register,
        store: int,
        to: Register,
        turn: Turn | None = None,
        back: int = -1,
        codes: Codes | None = None,
    ) -> None:
        kept = (-1, 0, 0, 0, 0)
        if codes is not None:
            at, scales = codes.codes, codes.scales
            kept = (at.at, at.pitch, scales.at, scales.pitch, codes.readers)
        self.program.turns(x.size)
        self.program.add(
            op.ROUND, x.at, x.pitch, x.size, store, to.at, to.pitch, *(turn or Turn(1, 0, 0)), back,
            *kept,
        )  # fmt: skip

    def operands(self, *names: str) -> int:
        """Where the codes of what a recurrence takes lie, see `tables`; -1: there are none."""
        found, places = [self.untaken.pop(name, None) for name in names], []
        for c in found:
            if c is None:
                places += [-1, 0, 0, 0, 0]
            else:
                places += [c.codes.at, c.codes.pitch, c.run, c.scales.at, c.scales.pitch]
        return self.program.table(places) if any(found) else -1

    def _codes(self, name: str, size: int) -> Register:
        """Room for codes: layers use the same."""
        if (name, size) not in self._coded:
            self._coded[name, size] = self.program.codes(size)
        return self._coded[name, size]

    def _takes_codes(self, weight: str) -> bool:
        """Whether a linear map multiplies the codes of what it reads: both are whole numbers, in
        the same basis."""
        read = self._reads.get(weight, "")
        scheme = self.arena.plan.get(read, EXACT)
        if self._stored_rotated(weight) != scheme.hadamard:
            return False
        run = describe.coded(self.site(read), scheme)
        if not run:
            return False
        zeros = self.arena.zero_points(self.site(weight))
        t = self.program.tensors[self.tensor(weight)]
        assert isinstance(scheme.format, Int)
        return describe.multiplies(t, zeros, int(scheme.format.peak), run)

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

    def state(self, name: str, *, heads: int = 1, groups: int = 1, every: int = 1) -> int:
        """A state, in the next bytes of a sequence's memory; it is there after `every` steps."""
        site, scheme = self.site(name), self.arena.plan.get(name)
        found = states.state(
            self.program, site, scheme, self.scales.get(name), self.arena,
            sum(map(len, self.fresh)), heads=heads, groups=groups, every=every,
        )  # fmt: skip
        if scheme is not None and every > 1:
            self.chunk = lcm(self.chunk, every)
            self.no_steps = self.no_steps or str(states.kept_in_full(site, scheme))
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
