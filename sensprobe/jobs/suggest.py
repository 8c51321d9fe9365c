"""Advice where no plan fits a budget: the schemes to profile so that one does."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from sensprobe.errors import BudgetError
from sensprobe.jobs.count_states import Counting
from sensprobe.jobs.problem import Space
from sensprobe.jobs.runtime_limits import Limits
from sensprobe.plans.fitting import adapt
from sensprobe.plans.scheme import parse
from sensprobe.runs import Run
from sensprobe.search import Budget, Size
from sensprobe.search.knapsack import check_budget
from sensprobe.units import size_text

LADDER = ("int8", "int6", "int4", "int3", "int2")
LAYOUT = "/head/asym/dynamic"


def check_fit(
    space: Space,
    budget: Budget,
    run: Run,
    sensitivity: Mapping[str, Any],
    *,
    counts: Counting,
    batch: int,
    limits: Limits | None,
) -> None:
    """Raise BudgetError as `check_budget` does, with the scheme to profile and the command for
    it."""
    try:
        check_budget(space.problem, budget)
    except BudgetError as error:
        if budget.admits(space.problem.smallest()):  # every plan fits
            raise
        advice = _advice(space, budget, run, sensitivity["schemes"], counts, batch, limits)
        raise BudgetError(f"{error} {advice}") from None


def _advice(
    space: Space,
    budget: Budget,
    run: Run,
    profiled: Sequence[str],
    counts: Counting,
    batch: int,
    limits: Limits | None,
) -> str:
    least = 0
    for format in LADDER:
        scheme = format + LAYOUT
        size, least = _smallest_with(space, scheme, counts, batch, limits)
        if budget.admits(size) and (budget.total is None or least <= budget.total):
            asked = [*profiled, *[scheme] * (scheme not in profiled)]
            settings = run.manifest.settings
            words = ["sensprobe", "profile", settings.get("model"), "--data", settings.get("data")]
            words += [word for s in asked for word in ("--scheme", s)] + ["--run", run.path]
            return (
                f"With {scheme} profiled too, plans go down to {size_text(least)}: "
                f"{shlex.join(map(str, words))}."
            )
    return (
        f"Not even {LADDER[-1]}{LAYOUT} fits, with {size_text(least)} at least"
        f"{f' at batch {batch}' if batch > 1 else ''}: freeze less, or take a smaller model."
    )


def _smallest_with(
    space: Space, text: str, counts: Counting, batch: int, limits: Limits | None
) -> tuple[Size, int]:
    """The least weight and the least state of plans, each on its own, and the least of both
    together, if every decision could take a scheme too."""
    sites = {site.name: site for site in space.sites}
    weight, state = space.problem.fixed_weight_bytes, space.problem.fixed_state_bytes
    scheme, total = parse(text), weight + state
    for decision, meaning in zip(space.problem.decisions, space.meaning, strict=True):
        sizes = [(o.weight_bytes, o.state_bytes) for o in decision.options]
        chosen = {name: adapt(scheme, sites[name]) for name in meaning[0]}
        refused = limits is not None and limits.why_not({**space.frozen, **chosen})
        if not refused and not counts.why_not(decision.name, text, chosen):
            prices = [counts.price(sites[name], fitted) for name, fitted in chosen.items()]
            sizes.append((sum(w for w, _ in prices), batch * sum(s for _, s in prices)))
        weight, state = weight + min(w for w, _ in sizes), state + min(s for _, s in sizes)
        total += min(w + s for w, s in sizes)
    return Size(weight, state), total
