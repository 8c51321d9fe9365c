"""Export: a model under a plan as a folder that loads anywhere. The plan is one that a run chose or
tuned, or any, of a model that is in no run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

from sensprobe.data.special import GENERATION, generation_document, travelling
from sensprobe.errors import RunError, UsageError
from sensprobe.evaluate import Score
from sensprobe.export import TOKENIZER, CardFacts, HandFacts, UniformFacts, export_model
from sensprobe.jobs.cost import cost
from sensprobe.jobs.evaluate import UNSTABLE
from sensprobe.jobs.plan_files import candidate_of
from sensprobe.jobs.tuned import Tuned, is_tuned, open_tuned
from sensprobe.plans.plan import Plan, fingerprint, from_json
from sensprobe.plans.sites import Site
from sensprobe.runs import Run
from sensprobe.session.plans import PlanLike, as_plan, schemes_of
from sensprobe.session.session import Session
from sensprobe.session.source import Source

NUMBERED = re.compile(r"search-[1-9][0-9]{0,8}")


class Exported(NamedTuple):
    """What is exported: a plan, the session of the model whose weights it rounds, and what is known
    of it: its row in a search (`candidate`), and its confirmed numbers where there are any."""

    session: Session
    plan: Plan
    candidate: Mapping[str, Any]
    confirmed: Mapping[str, Any] | None


def exported(session: Session, plan: PlanLike) -> Exported:
    """What a plan stands for. In a session's run it is a name: `tuned/NAME` a tuned model, any
    other a plan on the model as it is (see `plan_of`). Without a run it is a plan, or what names
    one, that nothing is known of."""
    if session.run is None:
        return _given(session, plan)
    if not isinstance(plan, str | Path):
        raise UsageError("a plan of a run is exported by its name, which `sensprobe report` lists.")
    name = str(plan)
    if is_tuned(name):
        return _tuned(open_tuned(session, name))
    return Exported(session, *plan_of(session.run, name, session.source.model.sites))


def _given(session: Session, plan: PlanLike) -> Exported:
    """A plan that was not searched, described by what it costs."""
    resolved = schemes_of(plan, session.source.outline)
    given = as_plan(plan, session.source.outline)
    spent = cost(session.source.outline, resolved)
    session.calibration.ready(resolved)
    candidate = {
        "name": given.name or f"p{fingerprint(resolved)[:5]}",
        "radius": session.applier.spectral_radius(resolved),
        "state_bytes": spent["held_state_bytes"],
        "packed_state_bytes": spent["state_bytes"],
    }
    return Exported(session, given, candidate, None)


def _tuned(tuned: Tuned) -> Exported:
    """A tuned model, described as a search and a confirmation describe plans."""
    row, found = tuned.row, tuned.row["splits"]["confirmation"]
    candidate = {
        "name": f"{row['name']}-tuned",
        "radius": row.get("radius"),
        "state_bytes": row["state_bytes"],
    }
    confirmed = {
        "metric": found["after"],
        "loss": found["left"],
        "baseline": found["full"],
        "untuned": found["before"],
        "gained": found["gained"],
    }
    return Exported(tuned.session, tuned.plan, candidate, confirmed)


def plan_of(
    run: Run, name: str, sites: Mapping[str, Site]
) -> tuple[Plan, dict[str, Any], dict[str, Any] | None]:
    """The plan a name stands for in a run: a candidate's, a budget's label, that of a plan measured
    for comparison, or the file of any of these.

    The latest search is asked first, then earlier ones. Returns the plan, the candidate, and its
    confirmed numbers where there are any.
    """
    searches = _searches(run)
    if not searches:
        raise RunError(
            f"{run.path} holds no search result. "
            f"Run `sensprobe search --run {run.path} --budget …` first."
        )
    for search, confirmation in searches:
        budgets = {choice["budget"]: choice["candidate"] for choice in search["chosen"]}
        measured = [*search["candidates"], *(search.get("also") or ())]
        candidates = {candidate["name"]: candidate for candidate in measured}
        wanted = budgets.get(name) or candidate_of(name, search, sites) or name
        if wanted in candidates:
            rows = [*confirmation.get("plans", ()), *(confirmation.get("also") or ())]
            confirmed = [p for p in rows if p["name"] == wanted]
            known = confirmed[0] | {"baseline": confirmation["baseline"]} if confirmed else None
            source = f"{run.path}: the plan {wanted} of its search"
            return from_json(candidates[wanted]["plan"], source), candidates[wanted], known
    chosen = [c for search, _ in searches for c in search["chosen"] if c["candidate"]]
    known = ", ".join(dict.fromkeys(c[key] for key in ("budget", "candidate") for c in chosen))
    raise UsageError(
        f"this run has no plan {name!r}. Chosen plans: {known or 'none'}; every candidate is "
        f"listed by `sensprobe report --run {run.path}`. A preset (`sensprobe presets`) or a "
        "plan.json can be exported once `sensprobe search --also` has measured it, or without a "
        "run: sensprobe export MODEL --data DATA --plan PLAN."
    )


def _searches(run: Run) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The searches of a run and their confirmations, latest first."""
    numbers = [int(n[7:]) for n in run.results() if NUMBERED.fullmatch(n)]
    out = []
    for mark in ["", *(f"-{number}" for number in sorted(numbers, reverse=True))]:
        search, confirmation = (run.read_result(k + mark) for k in ("search", "confirmation"))
        if isinstance(search, dict):
            out.append((search, confirmation if isinstance(confirmation, dict) else {}))
    return out


def export(
    session: Session, plan: PlanLike, out: Path, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write the artefact of what `exported` finds to `out`; returns its path, bytes and cost.

    RunError if its bytes differ from what the cost model said, which would be a defect here.
    """
    chosen, found, candidate, confirmed = exported(session, plan)
    resolved = found.resolve(chosen.source.model.sites.values())
    chosen.calibration.ready(resolved)
    batch = batch_of(session)
    result = export_model(
        chosen.source.model,
        resolved,
        chosen.applier,
        out,
        name=f"{session.source.name}-{candidate['name']}",
        model_fingerprint=chosen.source.fingerprint,
        card=_facts(session, chosen.source, candidate, confirmed, batch),
        overwrite=overwrite,
        text_files=text_files(session.source, model_config=False),
    )
    predicted = cost(chosen.source.outline, resolved, batch)
    radius = nan if candidate["radius"] is None else candidate["radius"]
    if result.weight_bytes != predicted["weight_bytes"]:
        raise RunError(
            f"the exported tensors weigh {result.weight_bytes} bytes and the cost model said "
            f"{predicted['weight_bytes']}: please report this as a defect."
        )
    return {
        **{key: value for key, value in asdict(result).items() if key != "path"},
        "path": str(result.path),
        "plan": candidate["name"],
        "data": session.dataset.name,
        "cost": predicted,
        "confirmed": confirmed,
        "max_abs_A": radius,
        "radius_name": session.source.model.radius_name,
        "stable": radius <= UNSTABLE,
    }


def batch_of(session: Session) -> int:
    """The batch that the latest search of a session's run counted states for, else 1."""
    search = None if session.run is None else session.run.read_result("search")
    return search["batch"] if isinstance(search, dict) else 1


def text_files(source: Source, *, model_config: bool) -> dict[str, bytes]:
    """The model's tokenizer.json and the documents next to it, for the exported folder.

    Where no `model_config` (a config.json of transformers) goes with them, generation_config.json
    has the ids that the model's own says.
    """
    reader = source.tokenizer
    if reader is None or reader.file is None:
        return {}
    folder = reader.file.parent
    found = {TOKENIZER: reader.file.read_bytes()} | travelling(folder)
    if not model_config and (generation := generation_document(folder)) is not None:
        found[GENERATION] = generation
    return found


def _facts(
    session: Session,
    source: Source,
    candidate: Mapping[str, Any],
    confirmed: Mapping[str, Any] | None,
    batch: int,
) -> CardFacts:
    known: dict[str, Any] = {}
    if confirmed is None and "metric" in candidate and not candidate["stopped_early"]:
        known = {"searched": _score(candidate["metric"], candidate["n"])}
    if confirmed is not None:
        known = {
            "confirmed": _score(confirmed["metric"]),
            "baseline": _score(confirmed["baseline"]),
            "difference": _score(confirmed["loss"]),
            "untuned": _score(confirmed.get("untuned")),
            "gained": _score(confirmed.get("gained")),
        }
        if (rival := confirmed.get("against_uniform")) and rival["uniform"]:
            known["uniform"] = UniformFacts(
                rival["uniform"], rival["total_bytes"], _score(rival["metric"])
            )
        if rival := confirmed.get("against_hand"):
            level, change = _score(rival["metric"]), _score(rival["difference"])
            if level is not None and change is not None:
                known["hand"] = HandFacts(rival["about"] or "", rival["total_bytes"], level, change)
    whole, own = (cost(one.outline, {}, batch)["total_bytes"] for one in (session.source, source))
    if whole != own:
        known["whole_bytes"] = whole
    if candidate["state_bytes"] != candidate.get("packed_state_bytes", candidate["state_bytes"]):
        known["held_state_bytes"] = candidate["state_bytes"]
    return CardFacts(
        task=session.dataset.task,
        metric=session.headline.info,
        data=_without_folders(session.dataset.name),
        data_fingerprint=session.dataset.fingerprint,
        source=session.source.name,
        batch=batch,
        stored_weight_bytes=session.source.outline.stored_bytes,
        stored_dtype=session.source.outline.stored_dtype,
        **known,
    )


def _score(found: Mapping[str, Any] | None, n: int | None = None) -> Score | None:
    """A score of a result; None where it has none."""
    if not found or found.get("value") is None:
        return None
    count = int(found.get("n") or n or 0)
    error = found.get("stderr")
    clusters = int(found.get("clusters") or count)
    return Score(found["value"], nan if error is None else error, count, clusters)


def _without_folders(spec: str) -> str:
    """`mnist:/home/me/mnist` -> `mnist:mnist`: a card travels, its author's folders do not."""
    kind, colon, path = spec.partition(":")
    return f"{kind}:{Path(path).name}" if colon else spec
