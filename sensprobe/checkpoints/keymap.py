"""From the names a file has to the names of our parameters: an ordered table of patterns.

    "linear_in.weight"                = "encoder.weight"
    "backbone.layers.{i}.mixer.*"     = "layers.{i}.*"
    "lm_head.weight"                  = ""                  left unread

`{i}` stands for a number and `*` for anything, each at most once and the same on both sides. The
first pattern that fits a name decides; a name that fits none is taken as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sensprobe.checkpoints.fit import require_shapes
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
    tensors: Mapping[str, Tensor],
    rules: list[Rule],
    wanted: Mapping[str, tuple[int, ...]],
    source: Path,
    family: str,
    every_rule: bool = False,
) -> dict[str, Tensor]:
    """The parameters `wanted` from a file's tensors.

    CheckpointError names every one that is missing, left over, or of another shape; with
    `every_rule` also the rules that no name of the file fits.
    """
    params: dict[str, Tensor] = {}
    called: dict[str, str] = {}
    used: set[Rule] = set()
    for theirs, tensor in tensors.items():
        fits = ((rule, rule.renamed(theirs)) for rule in rules)
        rule, ours = next(((r, n) for r, n in fits if n is not None), (None, theirs))
        used |= {rule} if rule else set()
        if ours == "":
            continue
        if ours in params:
            raise CheckpointError(
                f"{source}: {called[ours]} and {theirs} both become {ours}; change the keys."
            )
        params[ours], called[ours] = tensor, theirs
    idle = [rule.theirs for rule in rules if rule not in used] if every_rule else []
    require_shapes(params, wanted, source, family, called, idle)
    return params
