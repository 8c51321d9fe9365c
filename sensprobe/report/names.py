"""Names of plans that say what they are: "1.50 KiB · 97.0 %". Commands take the hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sensprobe.report.results import Candidate, Compared, Search
from sensprobe.report.values import in_bytes, short


def told(plan: Candidate | Compared, search: Search) -> str:
    """Bytes and score of a plan at the search's batch, after the name that somebody gave it."""
    q, own = search.quantity, plan.name
    if isinstance(plan, Candidate):
        own = "" if plan.uniform is None else f"uniform {plan.uniform}"
    score = f"{short(q.shown(plan.metric))} {q.unit or q.name}" if plan.metric.known else ""
    return " · ".join(filter(None, (own, in_bytes(plan.total_bytes), score)))


def told_apart(plans: Iterable[Candidate | Compared], search: Search) -> dict[str, str]:
    """Name -> what a plan is called, with its name where two would be called the same."""
    found = {plan.name: told(plan, search) for plan in plans}
    count = Counter(found.values())
    return {name: f"{text} ({name})" if count[text] > 1 else text for name, text in found.items()}
