"""Budgets as a user writes them: 12KiB, 25%, 8x, or the labels of an earlier search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from sensprobe.errors import UsageError
from sensprobe.search import Budget
from sensprobe.units import limit_bytes


def budgets_of(
    totals: Sequence[int | str],
    weight: int | str | None,
    state: int | str | None,
    max_loss: float | None,
    full: Mapping[str, int] = MappingProxyType({"total": 1, "weight": 1, "state": 1}),
) -> tuple[Budget, ...]:
    """Budgets in bytes, as a user writes them.

    full: bytes of the model at full precision: `total`, `weight` and `state`; a budget of 25% is a
    part of these. Raises UsageError for what is no budget, whatever the model.
    """
    if max_loss is not None and not max_loss >= 0:
        raise UsageError(f"--max-loss {max_loss}: a loss cannot be negative.")
    parts = Budget(
        weight=None if weight is None else limit_bytes(weight, full["weight"]),
        state=None if state is None else limit_bytes(state, full["state"]),
    )
    out = [
        _labelled(str(t), full)
        if "<=" in str(t)
        else replace(parts, total=limit_bytes(t, full["total"]), label=str(t))
        for t in totals
    ]
    if not out and parts.limits_bytes:
        named = (("weights", weight), ("state", state))
        label = " ".join(f"{kind}<={size}" for kind, size in named if size is not None)
        out = [replace(parts, label=label)]
    if max_loss is not None:
        out.append(replace(parts, max_loss=max_loss, label=f"loss<={max_loss:g}"))
    return tuple(out)


def _labelled(label: str, full: Mapping[str, int]) -> Budget:
    """The budget that a label of an earlier search stands for: "weights<=8KiB state<=25%"."""
    budget = Budget(label=label)
    for word in label.split():
        kind, _, limit = word.partition("<=")
        try:
            if kind == "loss":
                budget = replace(budget, max_loss=float(limit))
                assert budget.max_loss is not None
                if budget.max_loss >= 0:
                    continue
        except ValueError:
            pass
        if kind not in ("weights", "state"):
            raise UsageError(
                f"{label!r} is not a budget; write 12KiB, 25%, 8x, or as a search labels others: "
                "weights<=12KiB, state<=4KiB, loss<=0.5."
            )
        if kind == "weights":
            budget = replace(budget, weight=limit_bytes(limit, full["weight"]))
        else:
            budget = replace(budget, state=limit_bytes(limit, full["state"]))
    return budget
