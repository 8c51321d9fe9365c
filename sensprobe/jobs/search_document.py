"""The document of a search, as a run keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sensprobe.evaluate import mean, score_document
from sensprobe.jobs.cost import cost_and_stored
from sensprobe.jobs.count_states import Counting
from sensprobe.jobs.problem import Space
from sensprobe.plans.cost import cost as packed_cost
from sensprobe.plans.plan import fingerprint, short_names
from sensprobe.search import Assignment, Candidate, Choice, Sample, SearchResult, Size
from sensprobe.session.session import Session

if TYPE_CHECKING:
    from sensprobe.jobs.search import SearchSettings


def document_of(
    session: Session,
    space: Space,
    settings: SearchSettings,
    found: SearchResult,
    baseline: Sample,
    count: int,
    counts: Counting,
    compared: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The document that a run keeps as `search`: what was asked, and every candidate and choice.

    `baseline` are the full-precision samples, `count` the evaluations allowed, `compared` the rows
    of plans that were measured for comparison.
    """
    names = _names(space, found)
    uniform = {a: scheme for scheme, a in space.uniform().items()}
    front = {c.assignment for c in found.front}
    full = cost_and_stored(session.source.outline, {}, settings.batch)
    smallest, largest = space.problem.smallest(), space.problem.largest()
    return {
        "method": found.method,
        "target": settings.target,
        "count_states": counts.way,
        "not_offered": counts.to_json(),
        "batch": settings.batch,
        "seed": settings.seed,
        "noise": settings.noise.to_json() if settings.noise else None,
        "split": "search",
        "n": len(baseline.score),
        "evaluations": count,
        "spent": found.spent,
        "interrupted": found.interrupted,
        "radius_name": session.source.model.radius_name,
        "metric": session.headline.label,
        "sign": session.headline.sign,
        "metric_info": session.headline.info.to_json(),
        "sample": session.samples.describe("search", len(baseline.score)),
        "full": {
            **{k: full[k] for k in ("weight_bytes", "state_bytes", "total_bytes")},
            **{k: full[k] for k in ("stored_weight_bytes", "stored_dtype")},
            "metric": score_document(mean(session.headline.sign * baseline.score, baseline.group)),
        },
        "chance": session.headline.chance,
        "smallest_bytes": smallest.total,
        "largest_bytes": largest.total,
        "decisions": [
            {"name": d.name, "part": d.part, "options": [asdict(o) for o in d.options]}
            for d in space.problem.decisions
        ],
        "budgets": [asdict(b) | {"label": str(b)} for b in settings.budgets],
        "candidates": [
            _candidate(session, space, settings, c, names, uniform, front, counts)
            for c in found.candidates
        ],
        "chosen": [
            {
                "budget": str(choice.budget),
                "candidate": names[choice.candidate.assignment] if choice.candidate else None,
                "uniform": names[choice.uniform.assignment] if choice.uniform else None,
                **_by_hand(choice, names, compared, session.headline.sign),
                "loss_bound": choice.drop_bound,
            }
            for choice in found.choices
        ],
        "also": list(compared),
    }


def _by_hand(
    choice: Choice,
    names: Mapping[Assignment, str],
    compared: Sequence[Mapping[str, Any]],
    sign: int,
) -> dict[str, str | None]:
    """The best plan made by hand within a budget: the uniform one with an upgrade, or one measured
    for comparison; and what it is, in words."""
    rivals: list[tuple[tuple[float, float, int], str, str]] = []
    if (c := choice.hand) is not None:
        merit = c.score, -c.extra_nats, -c.size.total
        rivals.append((merit, names[c.assignment], choice.hand_about))
    for row in compared:
        size = Size(row["weight_bytes"], row["state_bytes"])
        if choice.budget.limits_bytes and choice.budget.admits(size):
            merit = sign * row["metric"]["value"], -row["extra_nats"], -size.total
            rivals.append((merit, row["name"], row["name"]))
    best = max(rivals, key=lambda rival: rival[0], default=None)
    return {"hand": best and best[1], "hand_about": best and best[2]}


def _names(space: Space, found: SearchResult) -> dict[Assignment, str]:
    """A name a plan keeps in every search."""
    marks = {c.assignment: fingerprint(space.resolved(c.assignment)) for c in found.candidates}
    names = short_names(marks.values())
    return {assignment: names[mark] for assignment, mark in marks.items()}


def _candidate(
    session: Session,
    space: Space,
    settings: SearchSettings,
    candidate: Candidate,
    names: Mapping[Assignment, str],
    uniform: Mapping[Assignment, str],
    front: set[Assignment],
    counts: Counting,
) -> dict[str, Any]:
    resolved = space.resolved(candidate.assignment)
    name = names[candidate.assignment]
    model = session.source.model
    price = packed_cost(space.sites, resolved, model.products, settings.batch)
    size = candidate.size
    state_bytes = counts.state_bytes(space.sites, resolved, settings.batch)
    assert (price.weight_bytes, state_bytes) == (size.weight, size.state), name
    return {
        "name": name,
        "label": candidate.name,
        "source": candidate.name.split()[0],
        "uniform": uniform.get(candidate.assignment),
        "plan": space.plan(candidate.assignment, name).to_json(),
        "plan_fingerprint": fingerprint(resolved),
        "weight_bytes": size.weight,
        "state_bytes": size.state,
        "total_bytes": size.total,
        "packed_state_bytes": price.state_bytes,
        "effective_bits": price.effective_bits,
        "metric": {"value": session.headline.sign * candidate.score, "stderr": candidate.stderr},
        "loss": {"value": -session.headline.sign * candidate.drop, "stderr": candidate.drop_stderr}
        | ({"p": candidate.drop_p} if session.headline.robust else {}),
        "extra_nats": candidate.extra_nats,
        "predicted": candidate.predicted,
        "n": candidate.n,
        "stopped_early": candidate.stopped,
        "radius": session.applier.spectral_radius(resolved),
        "on_front": candidate.assignment in front,
    }
