"""Profile: the loss of each group of sites in each scheme, kept in the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sensprobe.errors import UsageError
from sensprobe.evaluate import DIVERGENCE, mean, score_document
from sensprobe.jobs.cost import cost
from sensprobe.jobs.profile_noise import NoiseLevels, UnderNoise, under_noise
from sensprobe.plans.cost import site_bytes
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.scores.score import Score
from sensprobe.sensitivity import Group, Sensitivity, groups_of, measured, pairs_of, taylor
from sensprobe.session.executor import Labelled, Piece
from sensprobe.session.session import Session

DEFAULT_SCHEMES = (
    "fp16",
    "int8/head/asym/dynamic",
    "int6/head/asym/dynamic",
    "int4/head/asym/dynamic",
)
"""The default schemes. `dynamic` is dropped where a range is known."""

METHODS = ("measured", "divergence", "taylor")
GRADIENT_PASSES, PASSES_A_PAIR, REPLAYS_A_PAIR = 5, 0.3, 0.015
"""The time of `taylor`, roughly, in forward passes; for estimates."""


def check_profile(
    by: str, method: str, schemes: Sequence[Scheme] = (), noise: NoiseLevels | None = None
) -> None:
    """Raise UsageError for a way to profile that does not exist."""
    if schemes and noise:
        raise UsageError("--noise stands in place of schemes: leave --scheme out, or --noise.")
    if noise and method == "taylor":
        raise UsageError("--method taylor prices schemes; --noise is measured, or divergence.")
    if by not in ("part", "site"):
        raise UsageError(f"--by {by!r}: choose part (all layers together) or site.")
    if method not in METHODS:
        raise UsageError(f"no method {method!r}; there are {', '.join(METHODS)}.")


def profile(
    session: Session,
    schemes: Sequence[Scheme] = (),
    *,
    by: str = "part",
    method: str = "measured",
    limit: int | None = None,
    noise: NoiseLevels | None = None,
) -> dict[str, Any]:
    """Sensitivities of every part (or site) in every scheme, on the search split; with `noise`
    under every level of it, in place of schemes.

    `divergence` makes the evaluations `measured` does and keeps how far outputs are from full
    precision alone, which needs no labels. Returns the document kept as `sensitivity-METHOD` in the
    run, of noise as `sensitivity-noise`.
    """
    check_profile(by, method, schemes, noise)
    chosen = list(schemes) or [parse(text) for text in DEFAULT_SCHEMES]
    stop = session.samples.use("search", limit)
    wanted = groups_of(session.source.model.sites.values(), by)
    baseline = _baseline(session, stop)
    document: dict[str, Any] = {
        "method": "noise" if noise else method,
        "model_fingerprint": session.model_name,
        "by": by,
        "split": "search",
        "n": stop,
        "clusters": baseline["metric"]["clusters"],
        "task": session.dataset.task,
        "radius_name": session.source.model.radius_name,
        "metric": session.headline.label,
        "sign": session.headline.sign,
        "metric_info": session.headline.info.to_json(),
        "sample": session.samples.describe("search", stop),
        "additive": session.headline.additive,
        "baseline": baseline,
        "full_bytes": cost(session.source.outline, {})["total_bytes"],
        "schemes": [str(s) for s in (noise.levels if noise else chosen)],
    }
    run = _taylor if method == "taylor" else _measured
    try:
        if noise is not None:
            document |= {"draws": noise.draws, "noise_seed": noise.seed}
            rows = [_noisy_row(session, one) for one in under_noise(session, wanted, noise, stop)]
        else:
            rows = [_row(session, found) for found in run(session, wanted, chosen, stop)]
    finally:
        session.progress.end()
    document["rows"] = [_unlabelled(row) for row in rows] if method == DIVERGENCE else rows
    if session.run is not None:
        session.run.write_result(f"sensitivity-{document['method']}", document)
    return document


def _measured(
    session: Session, wanted: list[Group], schemes: list[Scheme], stop: int
) -> Iterable[Sensitivity]:
    pairs = list(pairs_of(wanted, schemes))
    session.calibration.expect(fitted for _, _, fitted in pairs)
    seconds = session.seconds_a_sample("search", stop) * stop * len(pairs)
    title = f"profiling {len(pairs)} target-scheme pairs on {stop:,} samples"
    session.progress.begin(title, (len(pairs) + 1) * stop, seconds)
    return measured(
        wanted,
        schemes,
        lambda plans: session.each([Labelled(*one) for one in plans], Piece("search", 0, stop)),
        session.samples.groups("search", stop),
        robust=session.headline.robust,
    )


def _taylor(
    session: Session, wanted: list[Group], schemes: list[Scheme], stop: int
) -> Iterable[Sensitivity]:
    pairs = list(pairs_of(wanted, schemes))
    session.calibration.expect(fitted for _, _, fitted in pairs)
    for _, _, fitted in pairs:
        session.calibration.ready(fitted)
    split, model = session.samples.split("search"), session.source.model
    task = "classification" if session.dataset.task == "unlabelled" else session.dataset.task

    def priced(count: int, tick: Callable[[int], None]) -> list[Sensitivity]:
        return taylor(
            model, session.applier, wanted, schemes, split.x[:count], task,
            session.samples.groups("search", count), tick, split.y[:count],
        )  # fmt: skip

    each = PASSES_A_PAIR if model.recurrences else REPLAYS_A_PAIR
    passes = GRADIENT_PASSES + each * len(pairs)
    seconds = session.seconds_a_sample("search", stop) * stop * passes
    title = f"one gradient for {len(pairs)} target-scheme pairs on {stop:,} samples"
    session.progress.begin(title, stop, seconds)
    return priced(stop, session.progress.advance)


def _baseline(session: Session, stop: int) -> dict[str, Any]:
    arrays = session.measure({}, "search", 0, stop, "baseline")
    groups = session.samples.groups("search", stop)
    out = {"metric": score_document(mean(arrays[session.headline.primary], groups))}
    if "cross_entropy" in arrays:
        out["cross_entropy"] = score_document(mean(arrays["cross_entropy"], groups))
    return out


def _row(session: Session, found: Sensitivity) -> dict[str, Any]:
    stored, carried = zip(
        *(site_bytes(site, found.applied[site.name]) for site in found.group.sites), strict=True
    )
    row = _of_group(found.group) | {
        "scheme": str(found.scheme),
        "applied": list(dict.fromkeys(str(s) for s in found.applied.values())),
        "weight_bytes": sum(stored),
        "state_bytes": sum(carried),
        "radius": session.applier.spectral_radius(found.applied),
    }
    return row | _scores(session, found.scores)


def _noisy_row(session: Session, found: UnderNoise) -> dict[str, Any]:
    row = _of_group(found.group) | {"scheme": str(found.level), "radius": found.radius}
    return row | _scores(session, found.scores)


def _of_group(group: Group) -> dict[str, Any]:
    return {
        "target": group.name,
        "part": group.part.value,
        "kind": group.kind.value,
        "layer": group.layer,
        "sites": [site.name for site in group.sites],
    }


def _scores(session: Session, scores: Mapping[str, Score]) -> dict[str, Any]:
    """The scores of a row under the names that they have in it."""
    row: dict[str, Any] = {}
    names = {
        session.headline.primary: "metric",
        "cross_entropy": "cross_entropy",
        session.headline.additive: session.headline.additive,
    }
    for array, label in names.items():
        if array in scores:
            row[label] = _plain(scores[array])
    any_score = next(iter(scores.values()))
    return row | {"n": any_score.n, "clusters": any_score.clusters}


def _unlabelled(row: dict[str, Any]) -> dict[str, Any]:
    """A row without the scores that need labels."""
    return {key: value for key, value in row.items() if key not in ("metric", "cross_entropy")}


def _plain(score: Score) -> dict[str, float]:
    found = score_document(score)
    return {key: found[key] for key in ("value", "stderr", "p") if key in found}
