"""Score one plan on one split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sensprobe.errors import UsageError
from sensprobe.evaluate import (
    by_position,
    dead_bands,
    mean,
    paired,
    ratio,
    score_document,
    seconds_a_step,
)
from sensprobe.jobs.cost import cost
from sensprobe.jobs.crossbar import laid_on
from sensprobe.jobs.language import text_facts, whole
from sensprobe.jobs.noisy import Noisy, drawn, told
from sensprobe.jobs.saturation import saturated
from sensprobe.models.noisy import noisy_radius
from sensprobe.plans.crossbar import Crossbar
from sensprobe.plans.plan import Plan, fingerprint
from sensprobe.plans.scheme import Scheme
from sensprobe.scores.classes import per_class
from sensprobe.scores.draws import averaged, over_draws
from sensprobe.scores.metrics import NRMSE, PREDICTED
from sensprobe.session.executor import Arrays, Piece
from sensprobe.session.session import Session
from sensprobe.session.source import Source

UNSTABLE = 1.0
COUNTED_SAMPLES = 8
"""Sequences whose writes to the state are counted, on the reference loop."""


def evaluate(
    session: Session,
    plan: Plan | Mapping[str, Scheme],
    *,
    split: str = "confirmation",
    limit: int | None = None,
    batch: int = 1,
    compare: bool = False,
    dead_band: bool = False,
    classes: bool = False,
    noise: Noisy | None = None,
    crossbar: Crossbar | None = None,
) -> dict[str, Any]:
    """The score of a plan with its standard error, its cost, and `max_abs_A`: max|A| as stored, of
    Mambas the largest decay at rest (`radius_name` says which); under noise of any device.

    `compare` also runs full precision on the same samples and adds the paired difference. Text has
    more to say (`text_facts`), under `text`. `dead_band` adds how often rounding keeps the state
    from moving, on the first samples. Of classification `per_class` says how well each class is
    found; `classes` has it know precision and F1 also where evaluations come from a run. Under
    `noise` scores are means over its draws, with the error of both samples and draws, and `noise`
    has the score of every draw, their spread and the error of their mean. On a `crossbar` the
    plan's matrices are simulated on its tiles, and `crossbar` says what they take.
    """
    if noise is not None and (classes or dead_band):
        raise UsageError(
            f"{'--per-class' if classes else '--dead-band'} is of one inference, and --noise "
            f"averages over {noise.draws}. Leave one of them out."
        )
    if classes and session.dataset.task != "classification":
        raise UsageError(
            f"--per-class: {session.dataset.name} has no class labels ({session.dataset.task}). "
            "Leave it out."
        )
    sites = session.source.model.sites.values()
    resolved = plan.resolve(sites) if isinstance(plan, Plan) else dict(plan)
    if compare and session.source.artefact is not None:
        raise UsageError(
            f"--compare: {session.source.name} is an exported model, its full-precision weights "
            "are not here. Compare with the model it was made from: sensprobe eval MODEL --plan "
            f"{session.source.path}/plan.json --compare."
        )
    if session.headline.scores_divergence and session.source.artefact is not None:
        raise UsageError(
            f"{session.source.name} is an exported model: only the model it was made from tells "
            f"how far it is from full precision: sensprobe eval MODEL --metric "
            f"{session.headline.built_in or 'divergence'} --plan "
            f"{session.source.path}/plan.json."
        )
    placed = laid_on(session, resolved, crossbar)
    if placed is not None and dead_band:
        raise UsageError("--dead-band counts without a crossbar: leave one of them out.")
    stop = session.samples.use(split, limit)
    session.divergence = compare or session.run is not None or session.headline.scores_divergence
    session.predictions = classes or session.run is None
    draws = noise.of(session) if noise else ()
    runs, more = max(len(draws), 1), bool(compare and (resolved or draws))
    seconds = session.seconds_a_sample(split, stop) * stop * (runs + more)
    title = f"evaluating on {stop:,} {split} samples"
    title += f", {len(draws)} draws of noise" if draws else ""
    session.progress.begin(title, stop * runs, seconds)
    found: list[Arrays] = []
    try:
        if draws:
            found = drawn(session, resolved, draws, Piece(split, 0, stop), "eval")
            arrays: Arrays = averaged(found)
        else:
            arrays = session.measure(resolved, split, 0, stop, "eval")
    finally:
        session.progress.end()
    groups, primary = session.samples.groups(split, stop), session.headline.primary
    of_draws = [one[primary] for one in found]
    score = over_draws(mean(arrays[primary], groups), of_draws)
    if draws:
        radius = max(noisy_radius(session.applier, resolved, draw) for draw in draws)
    else:
        radius = session.applier.spectral_radius(resolved)
    out: dict[str, Any] = {
        "metric": session.headline.label,
        "metric_info": session.headline.info.to_json(),
        "value": score.value,
        "stderr": score.stderr,
        "n": score.n,
        "clusters": score.clusters,
        "cost": cost(session.source.outline, resolved, batch),
        "plan_fingerprint": fingerprint(resolved),
        "plan": {name: str(scheme) for name, scheme in resolved.items()},
        "model": session.source.name,
        "model_fingerprint": session.source.fingerprint,
        "data": session.dataset.name,
        "split": split,
        "sample": session.samples.describe(split, stop),
        "max_abs_A": radius,
        "radius_name": session.source.model.radius_name,
        "stable": radius <= UNSTABLE,
        "scores": {
            name: score_document(mean(values, groups)) for name, values in whole(arrays).items()
        },
    }
    if session.dataset.task == "language":
        out["text"] = text_facts(session, arrays, split, groups)
    out["saturated"] = saturated(session, resolved, split, stop)
    if session.dataset.task == "classification":
        out["per_class"] = _classes(session, arrays, split, groups)
    if dead_band:
        out["dead_band"] = _dead_band(session, resolved, split, min(stop, COUNTED_SAMPLES))
    if placed is not None:
        out["crossbar"] = placed
    if noise is not None:
        out["noise"] = told(noise, draws, of_draws)
    if more:
        base = session.measure({}, split, 0, stop, "baseline")
        out["baseline"] = score_document(mean(base[primary], groups))
        both = arrays[primary], base[primary], groups
        apart = over_draws(paired(*both, robust=session.headline.robust), of_draws)
        out["difference"] = score_document(apart)
        if primary in (NRMSE, "squared_error") and base[primary].any() and not draws:
            out["ratio"] = score_document(ratio(*both))
    return out


def _classes(
    session: Session, arrays: Mapping[str, np.ndarray], split: str, groups: np.ndarray | None
) -> list[dict[str, Any]]:
    """A row a class; without precision and F1 where it is not kept which class was named."""
    labels = session.samples.split(split).y[: len(arrays["correct"])].numpy()
    return list(per_class(labels, arrays["correct"], arrays.get(PREDICTED), groups))


def _dead_band(
    session: Session, plan: Mapping[str, Scheme], split: str, count: int
) -> dict[str, Any]:
    """Share of dead writes (see `evaluate.dead_band`) of every rounded state, and by position."""
    session.calibration.ready(plan)
    x = session.samples.split(split).x[:count]
    model, tap = session.source.model, session.applier.tap(plan)
    states = len(dead_bands(model, tap, x[:1, :1]))
    if not states:
        raise UsageError(
            "--dead-band: the plan rounds no recurrent state. Name one, as in --set "
            "'layers.*.state=int8/head/dynamic'."
        )
    length = x.shape[1]
    title = f"counting writes that leave the state as it stood on {count} samples"
    seconds = seconds_a_step(model, tap, x) * length
    session.progress.begin(title, states * length, seconds)
    try:
        found = dead_bands(model, tap, x, session.progress.advance)
    finally:
        session.progress.end()
    return {
        "samples": count,
        "states": {name: band.share() for name, band in found.items()},
        "positions": by_position(found, x.shape[1]),
    }


def recorded_warnings(source: Source, base: Mapping[str, Any], norm: str | None) -> list[str]:
    """A warning if a full-precision accuracy is far below the one that the file records of itself;
    none where it records that under a plan.

    A state-spaces/s4 file does not say where its norm stands; a wrong guess costs most of the
    accuracy, so the recorded one tells.
    """
    own = source.recorded.get("metric") == "accuracy"
    recorded = source.recorded.get("value" if own else "accuracy")
    if (
        recorded is None
        or "plan" in source.recorded
        or recorded - base["value"] <= 0.02 + 3 * base["stderr"]
    ):
        return []
    other = {"pre": "post", "post": "pre", None: "pre"}[norm]
    guess = "" if own else f"Its norm may stand elsewhere: try --norm {other}. "
    return [
        f"The checkpoint records {100 * recorded:.2f} % accuracy and scores "
        f"{100 * base['value']:.2f} ± {100 * base['stderr']:.2f} % here. "
        f"{guess}Check that the data is what it was trained on."
    ]
