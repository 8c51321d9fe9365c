"""Plans searched at the bytes of every preset, and judged against them on unseen samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from plans import STUDY
from scipy.stats import t as student

from sensprobe import api
from sensprobe.evaluate import paired
from sensprobe.plans.plan import Resolved, from_json
from sensprobe.plans.sites import Kind, Site, matching
from sensprobe.progress import Progress
from sensprobe.runs import open_run
from sensprobe.session.open import open_session
from sensprobe.session.session import Session
from sensprobe.session.source import open_model

LEVEL = 0.05
"""Of each comparison alone, two-sided, Student's t over independent groups."""
ASKED = STUDY["search"]


def searched(
    name: str, model: Path | str, data: str, run: Path, progress: Progress
) -> Iterator[dict[str, Any]]:
    """One line for each batch and budget."""
    own = ASKED[STUDY["models"][name]["search"]]
    sites = open_model(model).model.sites.values()
    freeze = [entry for entry in ASKED["freeze"] if matching(entry.partition("=")[0], sites)]
    priced = own.get("priced")
    if not _profiled(run, own):
        api.profile(
            model, data, run, own["schemes"], by=own["by"], method=own["method"], limit=priced,
            progress=progress,
        )  # fmt: skip
    for batch in STUDY["models"][name].get("batches", ASKED["batches"]):
        sizes = {p: api.cost(model, p, batch=batch)["total_bytes"] for p in ASKED["presets"]}
        between = [size for at, size in own.get("between", ()) if at == batch]
        budgets = sorted({*sizes.values(), *between})
        found = api.search(
            run, budgets, batch=batch, seed=ASKED["seed"], also=[*sizes], freeze=freeze,
            evaluations=own["evaluations"], limit=own.get("samples"),
            progress=progress,
        )  # fmt: skip
        yield from _judged(open_session(run=run), found, batch)


def _profiled(run: Path, own: Mapping[str, Any]) -> bool:
    """Whether the run holds these sensitivities."""
    if not (run / "run.json").exists():
        return False
    found = open_run(run).read_result(f"sensitivity-{own['method']}")
    return isinstance(found, dict) and found["schemes"] == own["schemes"]


def _judged(session: Session, found: Mapping[str, Any], batch: int) -> Iterator[dict[str, Any]]:
    """Each budget's plan against every preset that fits it and the best uniform plan."""
    search, confirmed = found["search"], found["confirmation"]
    known = {c["name"]: c for c in [*search["candidates"], *search["also"]]}
    sites = session.source.model.sites
    stop = confirmed["n"]
    groups = session.samples.groups("confirmation", stop)

    def plan(name: str) -> Resolved:
        return from_json(known[name]["plan"]).resolve(sites.values())

    def scores(name: str) -> np.ndarray:
        return session.measure(plan(name), "confirmation", 0, stop)[session.headline.primary]

    def against(one: str, other: str) -> dict[str, Any]:
        return _verdict(session, _pair(scores(one), scores(other), groups), groups)

    full = session.measure({}, "confirmation", 0, stop)[session.headline.primary]
    presets = {c["total_bytes"]: c["name"] for c in search["also"]}
    for mine in sorted(confirmed["plans"], key=lambda p: int(p["budget"])):
        budget, uniform = int(mine["budget"]), mine["against_uniform"]
        preset = presets.get(budget)
        fitting = [c for c in search["also"] if c["total_bytes"] <= budget]
        best = max(  # by the search split
            fitting, key=lambda c: session.headline.sign * c["metric"]["value"], default=None
        )
        yield {
            "batch": batch,
            "preset": preset or "",
            "budget": budget,
            "bytes": mine["total_bytes"],
            **_bits(plan(mine["candidate"]), sites, Kind.WEIGHT, "weight_bits"),
            **_bits(plan(mine["candidate"]), sites, Kind.STATE, "state_bits"),
            "n": stop,
            "groups": len(np.unique(groups)) if groups is not None else stop,
            "searched": _unit(session, mine["loss"]),
            "preset_loss": _unit(session, _pair(scores(preset), full, groups)) if preset else None,
            "against_preset": against(mine["candidate"], preset) if preset else None,
            "best": best["name"] if best else "",
            "against_best": against(mine["candidate"], best["name"]) if best else None,
            "uniform": uniform["uniform"] if uniform else "",
            "against_uniform": _verdict(session, uniform["difference"], groups)
            if uniform
            else None,
        }


def _pair(one: np.ndarray, other: np.ndarray, groups: np.ndarray | None) -> dict[str, float]:
    found = paired(one, other, groups)
    return {"value": found.value, "stderr": found.stderr}


def _unit(session: Session, found: Mapping[str, Any]) -> dict[str, float]:
    """Points of accuracy, else the metric's own unit."""
    scale = session.headline.info.scale
    return {k: round(scale * found[k], 6) for k in ("value", "stderr")}


def _verdict(
    session: Session, found: Mapping[str, Any], groups: np.ndarray | None
) -> dict[str, Any]:
    """A difference, and "better", "worse" or "" at the level; errors are of the groups' means."""
    count = len(np.unique(groups)) if groups is not None else found["n"]
    bar = float(student.ppf(1 - LEVEL / 2, count - 1)) * found["stderr"]
    gain = session.headline.sign * found["value"]
    word = "better" if gain > bar else "worse" if gain < -bar else ""
    return {**_unit(session, found), "verdict": word}


def _bits(plan: Resolved, sites: Mapping[str, Site], kind: Kind, name: str) -> dict[str, float]:
    """Bits a value of all weights or of all states, without scales."""
    mine = [s for s in sites.values() if s.kind is kind]
    bits = sum((plan[s.name].bits_per_real if s.name in plan else 32) * s.reals for s in mine)
    return {name: round(bits / sum(s.reals for s in mine), 2)}
