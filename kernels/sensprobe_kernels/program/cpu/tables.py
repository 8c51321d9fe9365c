"""Rows of a program's tables as compiled code reads them: by the names of their fields."""

from __future__ import annotations

from typing import Any

from sensprobe_kernels.jit import inline
from sensprobe_kernels.program.ir import State, Stored
from sensprobe_kernels.quantize.spec import Flags, Settings, flags_of


def _reader(kind: type[Any]) -> Any:
    """A compiled function (rows, i) that gives row i of a table as a record of a kind."""
    fields = ", ".join(f"rows[i, {k}]" for k in range(len(kind._fields)))
    scope: dict[str, Any] = {"kind": kind, "__name__": __name__}
    exec(f"def read_{kind.__name__}(rows, i):\n    return kind({fields})", scope)
    return inline(scope[f"read_{kind.__name__}"])


stored_of = _reader(Stored)
state_of = _reader(State)


@inline
def flags_in(s: Stored) -> Flags:
    return flags_of(s.span, s.code, s.rounding, s.quotient, s.asym, s.feedback, s.clip)


@inline
def settings_of(s: Stored) -> Settings:
    """The settings of a step that is always rounded."""
    return Settings(s.group, 1, s.scales, 1, s.key0, s.key1)
