"""Confirm: score the chosen plans of a search on data that no job before has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sensprobe.errors import RunError
from sensprobe.evaluate import mean, paired, score_document
from sensprobe.jobs.search import in_scores, run_of
from sensprobe.plans.plan import fingerprint, from_json
from sensprobe.runs import Run
from sensprobe.search import Budget
from sensprobe.session.executor import Labelled, Piece
from sensprobe.session.session import Session


def confirm(
    session: Session, names: Sequence[str] = (), limit: int | None = None
) -> dict[str, Any]:
    """Score the chosen plans (or those named) on the confirmation split: the result of a run.

    Each is paired with full precision, with the best uniform plan and with the best one made by
    hand that fit the same budget. Plans that were measured for comparison (`--also`) are paired
    with the largest chosen plan that takes no more bytes than they do. Returns the document kept as
    `confirmation`.
    """
    run = run_of(session)
    search = run.read_result("search")
    if not isinstance(search, dict):
        raise RunError(
            f"{run.path} holds no search result. "
            f"Run `sensprobe search --run {run.path} --budget …` first."
        )
    others = search.get("also") or ()
    candidates = {c["name"]: c for c in [*search["candidates"], *others]}
    also = [c["name"] for c in others if not names or c["name"] in names]
    chosen = [
        c for c in search["chosen"] if c["candidate"] and (not names or c["candidate"] in names)
    ]
    stop = session.samples.use("confirmation", limit)
    wanted = {c[k] for c in chosen for k in ("candidate", "uniform", "hand") if c.get(k)} | set(
        also
    )
    looks = _looks(run, {candidates[name]["plan_fingerprint"] for name in wanted})
    seconds = session.seconds_a_sample("confirmation", stop) * stop
    session.progress.begin(
        f"confirming {len(wanted)} plans on {stop:,} unseen samples",
        (len(wanted) + 1) * stop,
        seconds * (len(wanted) + 1),
    )
    sites = session.source.model.sites.values()
    source = f"{run.path}/results/search.json: plan"
    plans = {
        name: from_json(candidates[name]["plan"], f"{source} {name}").resolve(sites)
        for name in sorted(wanted)
    }
    session.calibration.expect(plans.values())
    try:
        asked = [Labelled(plan, f"confirm {name}") for name, plan in plans.items()]
        found = session.submit([*asked, Labelled({}, "baseline")], [Piece("confirmation", 0, stop)])
    finally:
        session.progress.end()
    *scored, base = [pieces[0][session.headline.primary] for pieces in found]
    arrays = dict(zip(plans, scored, strict=True))
    groups = session.samples.groups("confirmation", stop)
    compared = _Compared(groups, session.headline.robust)
    document = {
        "split": "confirmation",
        "n": stop,
        "radius_name": session.source.model.radius_name,
        "metric": session.headline.label,
        "sign": session.headline.sign,
        "metric_info": session.headline.info.to_json(),
        "sample": session.samples.describe("confirmation", stop),
        "baseline": score_document(mean(base, groups)),
        "looks": looks,
        "plans": [
            _confirmed(choice, candidates, arrays, base, compared) | _limit(session, search, choice)
            for choice in chosen
        ],
        "also": [_other(name, chosen, candidates, arrays, base, compared) for name in also],
    }
    run.write_result("confirmation", document)
    return document


def _looks(run: Run, plans: set[str]) -> int:
    """The number of other plans of this run that were scored on the confirmation split before."""
    seen = {e.key.plan.partition("+")[0] for e in run.entries() if e.key.split == "confirmation"}
    return len(seen - plans - {fingerprint({})})


def _limit(
    session: Session, search: Mapping[str, Any], choice: Mapping[str, Any]
) -> dict[str, float | None]:
    """The loss a budget allows, in the unit of the scores; None where it allows any."""
    asked = {b["label"]: b["max_loss"] for b in search["budgets"]}.get(choice["budget"])
    if asked is None:
        return {"max_loss": None}
    return {"max_loss": in_scores(Budget(max_loss=asked), session).max_loss}


class _Compared(NamedTuple):
    """Turns values of samples into scores of a document, alone and paired."""

    groups: np.ndarray | None
    robust: bool

    def level(self, values: np.ndarray) -> dict[str, Any]:
        return score_document(mean(values, self.groups))

    def change(self, values: np.ndarray, baseline: np.ndarray) -> dict[str, Any]:
        return score_document(paired(values, baseline, self.groups, robust=self.robust))


def _confirmed(
    choice: Mapping[str, Any],
    candidates: Mapping[str, dict[str, Any]],
    arrays: Mapping[str, np.ndarray],
    base: np.ndarray,
    compared: _Compared,
) -> dict[str, Any]:
    name = choice["candidate"]
    sizes = ("total_bytes", "weight_bytes", "state_bytes", "effective_bits", "radius")

    def against(rival: str | None, **words: Any) -> dict[str, Any] | None:
        if not rival:
            return None
        other = candidates[rival]
        return {
            **words,
            "candidate": rival,
            "total_bytes": other["total_bytes"],
            "radius": other["radius"],
            "metric": compared.level(arrays[rival]),
            "difference": compared.change(arrays[name], arrays[rival]),
        }

    uniform, hand = choice["uniform"], choice.get("hand")
    return {
        "budget": choice["budget"],
        "candidate": name,
        "name": name,
        **{key: candidates[name][key] for key in sizes},
        "metric": compared.level(arrays[name]),
        "loss": compared.change(arrays[name], base),
        "against_uniform": against(uniform, uniform=uniform and candidates[uniform]["uniform"]),
        "against_hand": against(hand, about=choice.get("hand_about")),
    }


def _other(
    name: str,
    chosen: Sequence[Mapping[str, Any]],
    candidates: Mapping[str, dict[str, Any]],
    arrays: Mapping[str, np.ndarray],
    base: np.ndarray,
    compared: _Compared,
) -> dict[str, Any]:
    """A plan of `--also`, and the difference of the chosen plan of its size from it, paired."""
    sizes = ("total_bytes", "weight_bytes", "state_bytes", "effective_bits", "radius")
    own = candidates[name]
    rivals = [candidates[c["candidate"]] for c in chosen]
    fits = [c for c in rivals if c["total_bytes"] <= own["total_bytes"]]
    rival = max(fits, key=lambda c: c["total_bytes"], default=None)
    return {
        "name": name,
        **{key: own[key] for key in sizes},
        "metric": compared.level(arrays[name]),
        "loss": compared.change(arrays[name], base),
        "chosen": rival
        and {
            "candidate": rival["name"],
            "total_bytes": rival["total_bytes"],
            "metric": compared.level(arrays[rival["name"]]),
            "difference": compared.change(arrays[rival["name"]], arrays[name]),
        },
    }
