"""Rows of a program's tables as compiled code reads them: by the names of their fields."""

from __future__ import annotations

from sensprobe_kernels.jit import inline, row_reader
from sensprobe_kernels.program.ir import State, Stored
from sensprobe_kernels.quantize.spec import Flags, Settings, flags_of

stored_of = row_reader(Stored)
state_of = row_reader(State)


@inline
def flags_in(s: Stored) -> Flags:
    return flags_of(s.span, s.code, s.rounding, s.quotient, s.asym, s.feedback, s.clip)


@inline
def settings_of(s: Stored) -> Settings:
    """The settings of a step that is always rounded."""
    return Settings(s.group, 1, s.scales, 1, s.key0, s.key1)
