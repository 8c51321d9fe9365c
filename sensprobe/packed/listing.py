"""A streaming program as text: its tables, and a line for each operation.

The text names registers and sites, and says all that a generator of code needs: schemes and shapes,
at which byte of the weights or of a sequence's states each tensor begins, and constants. Complex
weights stored by magnitude and phase have a line for each, whose zeros are the low ends of ranges,
floats. The same model and plan give the same text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sensprobe_kernels.packing.tensor import POLAR, Packed
from sensprobe_kernels.program.ir import NONE, Codes, Operation, Register, Round, tables_of
from sensprobe_kernels.program.program import Program

from sensprobe.export.tensors import layout
from sensprobe.models import Model
from sensprobe.packed.compile import Compiled
from sensprobe.packed.weights import PackedWeights
from sensprobe.plans.scheme import EXACT
from sensprobe.plans.sites import Kind

CONSTANTS_A_LINE = 8
ROTATION = ("base", "power", "signs", "signs_back")
"""The fields of a rounding that say how it rotates; `signs` are matrices among the constants."""


def listing(made: Compiled, model: Model, weights: PackedWeights) -> str:
    """The program of a model under a plan, as text that ends with a line break."""
    return "\n".join(_Listing(made, model, weights).lines()) + "\n"


@dataclass(frozen=True)
class _Listing:
    made: Compiled
    model: Model
    weights: PackedWeights

    @property
    def program(self) -> Program:
        return self.made.program

    def lines(self) -> Iterator[str]:
        program = self.program
        yield f"program of a model of family {self.model.family}"
        yield f"weight bytes {self.weights.bytes}, state bytes {self.made.fresh.size}"
        outputs = self._register(self.made.outputs)
        yield f"sequences a step {program.batch}, outputs in {outputs}"
        if self.made.no_steps:
            yield f"whole sequences only, chunks of {self.made.chunk} steps: {self.made.no_steps}"
        columns = "site scheme shape offset bytes scales zeros"
        yield from _titled("tensors", columns, self._tensors())
        yield from _titled("static scales", "site scheme offset bytes", self._static())
        yield from _titled("states", f"{columns} residual rounding", self._states())
        columns = "site scheme group scales zeros stride constants"
        yield from _titled("roundings", columns, self._roundings())
        yield from _titled("registers", "name offset pitch size", _places(program.registers))
        yield from _titled("codes", "name offset pitch size", _places(program.codes))
        yield from _titled("constants", "first values", self._constants())
        yield from ["", "operations"]
        width = len(str(len(program.ops)))
        for i, operation in enumerate(program.ops):
            yield f"  {i:>{width}}  {self._operation(operation)}"

    # -- tables -----------------------------------------------------------------------------------

    def _scheme(self, site: str) -> str:
        return str(self.weights.plan.get(site, EXACT))

    def _shape(self, site: str) -> str:
        found = self.model.sites[site]
        return "×".join(map(str, found.shape)) + (" complex" if found.is_complex else "")

    def _stored(self, site: str) -> tuple[int, int]:
        """Where the bytes of a site begin among the weights, and how many they are."""
        entries = layout({site: self.model.sites[site]}, self.weights.plan)
        first = min(self.weights.places[name] for name in entries)
        return first, sum(entry.size_bytes for entry in entries.values())

    def _tensors(self) -> Iterator[Sequence[Any]]:
        for t, site in zip(self.program.tensors, self.program.tensor_names, strict=True):
            if t.kind >= POLAR:
                yield from self._fields(t, site)
                continue
            yield (
                site, self._scheme(site), self._shape(site), *self._stored(site),
                _place(t.scale_at), _place(t.zero_at),
            )  # fmt: skip

    def _fields(self, t: Packed, site: str) -> Iterator[Sequence[Any]]:
        """Magnitudes and phases, each with its scales and, as zeros, the low ends of its ranges."""
        entries = layout({site: self.model.sites[site]}, self.weights.plan)
        for field, scales, low in (
            ("magnitude", t.scale_at, t.zero_at),
            ("phase", t.phase_scale_at, t.phase_zero_at),
        ):
            own = {n: entry for n, entry in entries.items() if n.startswith(f"{site}.{field}.")}
            yield (
                f"{site}.{field}", self._scheme(site), self._shape(site).removesuffix(" complex"),
                min(self.weights.places[name] for name in own),
                sum(entry.size_bytes for entry in own.values()), _place(scales), _place(low),
            )  # fmt: skip

    def _static(self) -> Iterator[Sequence[Any]]:
        for name, site in self.model.sites.items():
            if site.kind is not Kind.WEIGHT and layout({name: site}, self.weights.plan):
                yield name, self._scheme(name), *self._stored(name)

    def _states(self) -> Iterator[Sequence[Any]]:
        names, sizes = self.program.state_names, self.program.state_sizes(self.made.fresh.size)
        for s, site, size in zip(self.program.states, names, sizes, strict=True):
            scheme = self.weights.plan.get(site, EXACT)
            scales = s.scale_at if scheme.scaled and scheme.dynamic else NONE
            yield (
                site, scheme, self._shape(site), s.at, size, _place(scales),
                _place(s.zero_at), _place(s.residual_at), s.store,
            )  # fmt: skip

    def _roundings(self) -> Iterator[Sequence[Any]]:
        for d, site in zip(self.program.stores, self.program.store_names, strict=True):
            scheme = self._scheme(site) if site else "exact"
            yield (
                site or "-", scheme, d.group, _place(d.scale_at), _place(d.zero_at), d.stride,
                d.numbers,
            )  # fmt: skip

    def _constants(self) -> Iterator[Sequence[Any]]:
        consts = self.program.consts
        for first in range(0, len(consts), CONSTANTS_A_LINE):
            values = consts[first : first + CONSTANTS_A_LINE]
            yield first, " ".join(f"{value:.9g}" for value in values)

    # -- operations -------------------------------------------------------------------------------

    def _operation(self, operation: Operation) -> str:
        fields: dict[str, Any] = operation._asdict()
        tables, to = tables_of(type(operation)), self._register(fields.pop("to"))
        if isinstance(operation, Round) and not operation.power:
            fields = {name: value for name, value in fields.items() if name not in ROTATION}
        texts = {name: self._value(name, tables.get(name, ""), v) for name, v in fields.items()}
        given = ", ".join(f"{name}={text}" for name, text in texts.items() if text)
        name = re.sub("(?<=[a-z])(?=[A-Z])", "_", type(operation).__name__).lower()
        return f"{to} = {name}({given})"

    def _value(self, name: str, table: str, value: Any) -> str:
        """The text of a field; "" for what is absent."""
        if isinstance(value, Register):
            return self._register(value)
        if isinstance(value, Codes):
            return self._codes(value)
        if table and value == NONE:
            return ""
        if table == "tensor":
            return self.program.tensor_names[value]
        if table == "state":
            return self.program.state_names[value]
        if table == "store":
            return f"rounding {value}"
        if table == "constant" and name not in (*ROTATION, "columns"):
            return f"{self.program.consts[value]:.9g}"
        return f"constant {value}" if table else str(value)

    def _register(self, register: Register) -> str:
        """The name of a register, with the columns of a part of one."""
        return _named(self.program.registers, register, self.program.batch)

    def _codes(self, codes: Codes) -> str:
        if codes.codes.at == NONE:
            return ""
        found = _named(self.program.codes, codes.codes, self.program.batch)
        return f"{found} by {self._register(codes.scales)} of {codes.run}"


def _named(registers: dict[str, Register], register: Register, batch: int) -> str:
    for name, whole in registers.items():
        first = register.at - whole.at
        if 0 <= first < batch * whole.pitch:
            part = f"[{first}:{first + register.size}]"
            return name if (first, register.size) == (0, whole.size) else name + part
    raise KeyError(register)


def _places(registers: dict[str, Register]) -> Iterator[Sequence[Any]]:
    for name, register in registers.items():
        yield name, *register


def _place(at: int) -> str:
    return "-" if at == NONE else str(at)


def _titled(title: str, columns: str, rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """A table with numbered rows, aligned; nothing where it has no rows."""
    found = [["#", *columns.split()], *([str(i), *map(str, r)] for i, r in enumerate(rows))]
    if len(found) == 1:
        return
    widths = [max(map(len, column)) for column in zip(*found, strict=True)]
    yield from ["", title]
    for row in found:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  " + "  ".join(cells).rstrip()
