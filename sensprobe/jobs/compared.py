"""Plans measured for comparison with a search: presets and the user's own, on its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sensprobe.errors import UsageError
from sensprobe.evaluate import mean, paired, score_document
from sensprobe.jobs.cost import cost, list_presets
from sensprobe.jobs.count_states import Counting
from sensprobe.plans.plan import Plan, Resolved, fingerprint
from sensprobe.plans.scheme import Scheme
from sensprobe.scores.classes import POOLED
from sensprobe.scores.metrics import LABEL, PREDICTED
from sensprobe.search import Budget, Sample, Size
from sensprobe.session.executor import Labelled, Piece
from sensprobe.session.plans import resolve
from sensprobe.session.session import Session
from sensprobe.units import size_text


def samples(
    session: Session, plans: Sequence[Mapping[str, Scheme]], piece: tuple[int, int], stop: int
) -> list[Sample]:
    """The scores of resolved plans on samples [start, end) of the first `stop` of the search
    split."""
    start, end = piece
    groups = session.samples.groups("search", stop)
    group = None if groups is None else groups[start:end]
    sign, primary = session.headline.sign, session.headline.primary
    pooled = POOLED.get(primary)
    rescore = None if pooled is None else lambda outcome: sign * pooled(*outcome.T)
    out = []
    asked = [Labelled(dict(plan)) for plan in plans]
    for (arrays,) in session.submit(asked, [Piece("search", start, end)]):
        score = sign * arrays[primary].astype(np.float64)
        loss = arrays[_loss(session, arrays)].astype(np.float64)
        outcome = None
        if pooled is not None:
            outcome = np.stack([arrays[LABEL], arrays[PREDICTED]], 1).astype(np.float64)
        out.append(Sample(score, loss, group, outcome, rescore))
    return out


def _loss(session: Session, arrays: Mapping[str, np.ndarray]) -> str:
    """The array that tells plans of one score apart; less of it is better."""
    head = session.headline
    if "cross_entropy" in arrays or head.sign > 0:
        return next(n for n in ("cross_entropy", "squared_error", head.additive) if n in arrays)
    return head.primary


def resolve_compared(session: Session, plans: Sequence[Plan]) -> dict[str, Resolved]:
    """Name -> resolved plan; UsageError for a plan without a name, or two of one."""
    out: dict[str, Resolved] = {}
    for plan in plans:
        if not plan.name or plan.name in out:
            raise UsageError(
                f"--also: each plan needs a name of its own, and {plan.name!r} is "
                f"{'given twice' if plan.name else 'none'}."
            )
        out[plan.name] = resolve(plan, session.source.model)
    return out


def presets_that_fit(session: Session, budgets: Sequence[Budget], batch: int) -> str:
    """A note that names the presets within some budget of bytes, which a user may measure for
    comparison; "" if there is none."""
    fits = []
    for row in list_presets(session.source.outline, batch):
        if (price := row.get("cost")) is None:
            continue
        size = Size(price["weight_bytes"], price["state_bytes"])
        if any(b.limits_bytes and b.admits(size) for b in budgets):
            fits.append(f"{row['name']} ({size_text(size.total)})")
    if not fits:
        return ""
    return (
        f"presets that fit: {', '.join(fits)}. --also NAME measures one for comparison, "
        "as a plan made by hand"
    )


def measure_compared(
    session: Session, name: str, plan: Resolved, batch: int, baseline: Sample, counts: Counting
) -> dict[str, Any]:
    """A plan measured on the whole search split: the fields of a candidate it has."""
    stop = baseline.n
    title = f"measuring {name} on {stop:,} samples"
    session.progress.begin(title, stop, session.seconds_a_sample("search", stop) * stop)
    try:
        (found,) = samples(session, [plan], (0, stop), stop)
    finally:
        session.progress.end()
    price = cost(session.source.outline, plan, batch)
    sites = session.source.model.sites.values()
    counted = counts.state_bytes(sites, plan, batch)
    sign, robust = session.headline.sign, session.headline.robust
    change = paired(sign * found.score, sign * baseline.score, found.group, robust=robust)
    return {
        "name": name,
        "source": "also",
        "uniform": None,
        "plan": Plan(tuple(plan.items()), name).to_json(),
        "plan_fingerprint": fingerprint(plan),
        "weight_bytes": price["weight_bytes"],
        "state_bytes": counted,
        "total_bytes": price["weight_bytes"] + counted,
        "packed_state_bytes": price["state_bytes"],
        "effective_bits": price["effective_bits"],
        "metric": score_document(mean(sign * found.score, found.group)),
        "loss": score_document(change),
        "extra_nats": float(np.mean(found.loss - baseline.loss)),
        "n": stop,
        "stopped_early": False,
        "radius": session.applier.spectral_radius(plan),
    }
