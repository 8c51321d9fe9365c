"""From the names a file has to the names of our parameters: an ordered table of patterns.

    "linear_in.weight"                = "encoder.weight"
    "backbone.layers.{i}.mixer.*"     = "layers.{i}.*"
    "lm_head.weight"                  = ""                  left unread

`{i}` stands for a number and `*` for anything, each at most once and the same on both sides. The
first pattern that fits a name decides; a name that fits none is taken as it is. Names are those of
the file, or what is left of them without a prefix that training put there (see `prefixes`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensprobe.checkpoints.fit import require_numbers, require_shapes
from sensprobe.checkpoints.headers import is_tensor
from sensprobe.checkpoints.prefixes import variants
from sensprobe.errors import CheckpointError

_MARKS = {"{i}": r"(?P<i>\d+)", "*": r"(?P<rest>.+)"}


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table; `ours` is empty for what is not read."""

    theirs: str
    ours: str

    def __post_init__(self) -> None:
        for mark in _MARKS:
            left, right = self.theirs.count(mark), self.ours.count(mark)
            if left > 1 or right > left:
                raise CheckpointError(
                    f"keys: {self.theirs!r} = {self.ours!r} has {mark} {left} time(s) on the left "
                    f"and {right} on the right; it may stand once, on the left or on both sides."
                )

    def renamed(self, name: str) -> str | None:
        """Our name for theirs; None where the pattern does not fit."""
        pattern = re.escape(self.theirs)
        for mark, expression in _MARKS.items():
            pattern = pattern.replace(re.escape(mark), expression)
        found = re.fullmatch(pattern, name)
        if found is None:
            return None
        groups = found.groupdict()
        ours = self.ours.replace("{i}", groups.get("i") or "{i}")
        return ours.replace("*", groups.get("rest") or "*")


def rules_from(table: Mapping[str, Any], source: Path) -> list[Rule]:
    """The table `[keys]` of a model.toml; CheckpointError for what is no text."""
    for theirs, ours in table.items():
        if not isinstance(ours, str):
            raise CheckpointError(
                f"{source}: keys: {theirs!r} is {ours!r}; write the name of one of our parameters "
                '(quote names with dots: "mamba.D" = "layers.0.D"), or "" to leave it unread.'
            )
    return [Rule(theirs, ours) for theirs, ours in table.items()]


def fitted(
    tensors: Mapping[str, Any],
    rules: Sequence[Rule],
    wanted: Mapping[str, tuple[int, ...]],
    source: Path,
    family: str,
    every_rule: bool = False,
) -> dict[str, Any]:
    """The parameters `wanted` from a file's tensors.

    Names are read as they are, or without the prefixes that training leaves on them where that
    fits better. What no parameter asks for and is no floating-point tensor (the counters of norms,
    a file's own notes) is left unread. CheckpointError names every other one that is missing, left
    over, or of another shape; with `every_rule` also the rules that no name of the file fits.
    """
    readings = []
    for prefix, names in variants(tensors):
        readings.append(reading := _read(prefix, names, tensors, rules, wanted, every_rule))
        if reading.misfits == 0:
            break
    best = min(readings, key=lambda reading: reading.misfits)
    if best.twice:
        first, second, ours = best.twice
        raise CheckpointError(
            f"{source}: {first} and {second} both become {ours}; change the keys."
        )
    require_numbers({best.called[ours]: value for ours, value in best.params.items()}, source)
    tried = f" Names are read without their prefix {best.prefix}." if best.prefix else ""
    if not tried and len(readings) > 1:
        tried = f" Without their prefix {readings[-1].prefix} names fit no better."
    require_shapes(best.params, wanted, source, family, best.called, best.idle, tried)
    return best.params


@dataclass(frozen=True, slots=True)
class _Reading:
    """Parameters by our name, from names less a prefix; what is not as wanted, counted."""

    prefix: str
    params: dict[str, Any]
    called: dict[str, str]  # their names in the file
    idle: list[str]
    twice: tuple[str, str, str] | None
    misfits: int


def _read(
    prefix: str,
    names: Mapping[str, str],
    tensors: Mapping[str, Any],
    rules: Sequence[Rule],
    wanted: Mapping[str, tuple[int, ...]],
    every_rule: bool,
) -> _Reading:
    params: dict[str, Any] = {}
    called: dict[str, str] = {}
    used: set[Rule] = set()
    twice = None
    for name, theirs in names.items():
        value = tensors[theirs]
        fits = ((rule, rule.renamed(name)) for rule in rules)
        rule, ours = next(((r, n) for r, n in fits if n is not None), (None, name))
        used |= {rule} if rule else set()
        if ours == "" or (ours not in wanted and not _is_weight(value)):
            continue
        if ours in params:
            twice = twice or (called[ours], theirs, ours)
        params[ours], called[ours] = value, theirs
    idle = [rule.theirs for rule in rules if rule not in used] if every_rule else []
    wrong = sum(
        tuple(getattr(params.get(name), "shape", ())) != shape or name not in params
        for name, shape in wanted.items()
    )
    extra = sum(name not in wanted for name in params)
    return _Reading(
        prefix, params, called, idle, twice, wrong + extra + len(idle) + (twice is not None)
    )


def _is_weight(value: Any) -> bool:
    """True for a tensor of real or complex numbers, and not for integer counts."""
    return is_tensor(value) and (value.is_floating_point() or value.is_complex())
