"""Activations of a program under construction, and the linear maps that read them.

An activation may be read as numbers, rotated, or as the integer codes it was rounded to. The plan
decides which of these a program makes: a weight that is stored rotated multiplies a rotated
activation, and integers multiply integers where kernels have such a product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

from sensprobe_kernels.ops.rotate.rows import Rotation
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.ir import NO_CODES, NONE, Codes, Register
from sensprobe_kernels.program.program import Program

from sensprobe.models import Model
from sensprobe.numerics.taps import StaticScale
from sensprobe.numerics.transforms import factors, paley
from sensprobe.packed import describe
from sensprobe.packed.weights import PackedWeights
from sensprobe.plans.formats import Int
from sensprobe.plans.scheme import EXACT, Scheme
from sensprobe.plans.sites import Axis, Kind, Part, Site

READ_BY_LINEAR_MAPS = frozenset(
    {Part.INPUT, Part.IN_PROJ_IN, Part.DT_PROJ_IN, Part.OUT_PROJ_IN, Part.HEAD_IN}
)
"""Activations that nothing else reads, unless they are `shared`."""


class Operand(NamedTuple):
    """The forms of an activation that linear maps read; `plain` is None where all of them read it
    rotated and nothing else reads it."""

    plain: Register | None
    rotated: Register | None = None
    codes: Codes = NO_CODES


class _Kept(NamedTuple):
    """Codes that a rounding keeps, and who reads them where a recurrence may."""

    codes: Codes = NO_CODES
    readers: int = 0


@dataclass
class Operands:
    """Tensors, registers and activations of a program, by name."""

    model: Model
    weights: PackedWeights
    scales: Mapping[str, StaticScale]
    program: Program
    scanned: dict[str, Codes] = field(default_factory=dict)
    """Codes made for a recurrence that has not taken them yet, by activation."""
    _tensors: dict[str, int] = field(default_factory=dict)
    _operands: dict[str, Operand] = field(default_factory=dict)
    _registers: dict[tuple[str, int], Register] = field(default_factory=dict)
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
        self._maps: dict[str, list[str]] = {}  # operand -> linear maps that read it
        for weight, operand in self._reads.items():
            self._maps.setdefault(operand, []).append(weight)

    def register(self, name: str, size: int) -> Register:
        """The register of that name and size, which all layers use."""
        if (name, size) not in self._registers:
            unique = f"{name} of {size}" if name in self.program.registers else name
            self._registers[name, size] = self.program.register(size, unique)
        return self._registers[name, size]

    def tensor(self, name: str) -> int:
        """The number of a weight; NONE where the model has no site of that name."""
        if name not in self.model.sites:
            return NONE
        if name not in self._tensors:
            site = self.model.sites[name]
            t = describe.packed(site, self.weights)
            if self._stored_rotated(name):
                t = t._replace(**self._rotation(site.shape[-1], back=True)._asdict())
            self._tensors[name] = self.program.tensor(t, name)
        return self._tensors[name]

    def linear(self, name: str, x: Register, to: Register) -> None:
        """to = W x, in the form in which x passed last."""
        operand = self._operands.get(self._reads.get(name, ""), Operand(x))
        read = operand.plain
        if self._stored_rotated(name):
            read = operand.rotated or self._rotated("input", x)
        if operand.codes != NO_CODES and self._takes_codes(name):
            self.program.add(ir.LinearCodes(self.tensor(name), operand.codes, to))
        else:
            assert read is not None
            self.program.add(ir.Linear(self.tensor(name), read, to))

    def passes(
        self, name: str, x: Register, *, scanned: bool = False, shared: bool = False
    ) -> Register:
        """Round an activation in place where the plan says so.

        Linear maps find it by its name. `scanned`: a recurrence may take its codes (`take_codes`),
        so nothing but that recurrence and linear maps may read it. `shared`: others read it too.
        """
        site, scheme = self.model.sites[name], self.weights.plan.get(name, EXACT)
        maps = self._maps.get(name, [])
        rotated, store = [self._stored_rotated(n) for n in maps], NONE
        kept = self._kept_codes(site, scheme, x, maps, scanned=scanned)
        if scheme.bits_per_real < 32:
            static = self.scales.get(name)
            store = describe.passing(self.program, site, scheme, static, self.weights)
        if scheme.hadamard:
            alone = site.part in READ_BY_LINEAR_MAPS and not shared
            self._operands[name] = self._rounded_rotated(site, x, store, rotated, kept, alone)
            return x
        if store >= 0:
            self._round(x, store, x, kept=kept)
        rotated_too = self._rotated(site.part, x) if any(rotated) else None
        self._operands[name] = Operand(x, rotated_too, kept.codes)
        return x

    def take_codes(self, name: str) -> Codes:
        """The codes of an activation, for the recurrence that reads it; NO_CODES if none are
        made."""
        found = self.scanned.pop(name, None)
        return NO_CODES if found is None else found

    # -- codes and rotations ----------------------------------------------------------------------

    def _kept_codes(
        self, site: Site, scheme: Scheme, x: Register, maps: list[str], *, scanned: bool
    ) -> _Kept:
        """Room for the codes of an activation, and who reads them (`ir.Round`)."""
        multiplied, readers = [self._takes_codes(name) for name in maps], 0
        if scanned and describe.scanned(site, scheme):
            readers = ir.SCANNED
            readers |= ir.MULTIPLIED if any(multiplied) else 0
            readers |= 0 if all(multiplied) else ir.PLAIN
        elif not any(multiplied):
            return _Kept()
        run = describe.coded(site, scheme)
        scales = self.register(f"{site.part} scales", ceil(x.size / run))
        codes = Codes(self._codes(site.part, x.size), scales, run)
        if readers:
            self.scanned[site.name] = codes
        return _Kept(codes, readers)

    def _rounded_rotated(
        self, site: Site, x: Register, store: int, rotated: list[bool], kept: _Kept, alone: bool
    ) -> Operand:
        """Rotate and round an activation, and rotate it back unless all that reads it takes it
        rotated; `alone`: linear maps alone read it."""
        forth, back = (self._rotation(site.shape[-1], back=back) for back in (False, True))
        if alone and rotated and all(rotated):
            self._round(x, store, x, forth, kept=kept)
            return Operand(None, x, kept.codes)
        to = self.register(f"{site.part} rotated", x.size) if any(rotated) else x
        self._round(x, store, to, forth, back.signs, kept)
        return Operand(x, to if any(rotated) else None, kept.codes)

    def _rotated(self, name: str, x: Register) -> Register:
        """A copy of an activation, rotated and not rounded."""
        to = self.register(f"{name} rotated", x.size)
        self._round(x, describe.exact(self.program), to, self._rotation(x.size, back=False))
        return to

    def _round(
        self, x: Register, store: int, to: Register, rotation: Rotation | None = None,
        back: int = NONE, kept: _Kept | None = None,
    ) -> None:  # fmt: skip
        kept = kept or _Kept()
        self.program.add(ir.Round(x, store, to, *(rotation or Rotation(1, 0, 0)), back, *kept))

    def _codes(self, name: str, size: int) -> Register:
        """The register of codes of that name and size, which all layers use."""
        if (name, size) not in self._coded:
            unique = f"{name} of {size}" if name in self.program.codes else name
            self._coded[name, size] = self.program.codes_register(size, unique)
        return self._coded[name, size]

    def _takes_codes(self, weight: str) -> bool:
        """Whether a linear map multiplies the codes of what it reads: both are integers, in the
        same basis."""
        read = self._reads.get(weight, "")
        scheme = self.weights.plan.get(read, EXACT)
        if self._stored_rotated(weight) != scheme.hadamard:
            return False
        run = describe.coded(self.model.sites[read], scheme)
        if not run:
            return False
        zeros = self.weights.zero_points(self.model.sites[weight])
        t = self.program.tensors[self.tensor(weight)]
        assert isinstance(scheme.format, Int)
        return describe.multiplies(t, zeros, int(scheme.format.peak), run)

    def _stored_rotated(self, weight: str) -> bool:
        return self.weights.plan.get(weight, EXACT).hadamard

    def _rotation(self, size: int, *, back: bool) -> Rotation:
        """The Hadamard transform of an axis, or its inverse, which has the transpose of Paley's
        matrix."""
        base, power = factors(size)
        if base == 1:
            return Rotation(1, power, 0)
        if (base, back) not in self._signs:
            rows = paley(base).mT if back else paley(base)
            self._signs[base, back] = self.program.constants(*rows.flatten().tolist())
        return Rotation(base, power, self._signs[base, back])
