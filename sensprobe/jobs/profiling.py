"""Profile: what each target loses in each scheme, kept in the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sensprobe.errors import UsageError
from sensprobe.evaluate import DIVERGENCE, mean, score_document
from sensprobe.jobs.pricing import cost
from sensprobe.plans.cost import site_bytes
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.scores.score import Score
from sensprobe.sensitivity import Sensitivity, Target, measured, pairs_of, targets, taylor
from sensprobe.session.workbench import Workbench

DEFAULT_SCHEMES = (
    "fp16",
    "int8/head/asym/dynamic",
    "int6/head/asym/dynamic",
    "int4/head/asym/dynamic",
)
"""What is tried where the user names nothing. `dynamic` falls away where a range is known."""

METHODS = ("measured", "divergence", "taylor")
GRADIENT_PASSES, PASSES_A_PAIR, REPLAYS_A_PAIR = 5, 0.3, 0.015
"""What `taylor` takes in forward passes, about; for estimates."""


def check_profile(by: str, method: str) -> None:
    """UsageError for a way to profile that does not exist."""
    if by not in ("part", "site"):
        raise UsageError(f"--by {by!r}: choose part (all layers together) or site.")
    if method not in METHODS:
        raise UsageError(f"no method {method!r}; there are {', '.join(METHODS)}.")


def profile(
    bench: Workbench,
    schemes: Sequence[Scheme] = (),
    *,
    by: str = "part",
    method: str = "measured",
    limit: int | None = None,
) -> dict[str, Any]:
    """Sensitivities of every part (or site) in every scheme, on the search split.

    `divergence` makes the evaluations `measured` does and keeps how far outputs are from full
    precision alone, which needs no labels. Returns the document kept as `sensitivity-METHOD` in the
    run.
    """
    check_profile(by, method)
    chosen = list(schemes) or [parse(text) for text in DEFAULT_SCHEMES]
    stop = bench.size("search", limit)
    wanted = targets(bench.source.model.sites.values(), by)
    baseline = _baseline(bench, stop)
    document = {
        "method": method,
        "model_fingerprint": bench.model_name,
        "by": by,
        "split": "search",
        "n": stop,
        "clusters": baseline["metric"]["clusters"],
        "task": bench.dataset.task,
        "radius_name": bench.source.model.radius_name,
        "metric": bench.metric_label,
        "sign": bench.sign,
        "metric_info": bench.info.to_json(),
        "sample": bench.sampled("search", stop),
        "additive": bench.additive,
        "baseline": baseline,
        "full_bytes": cost(bench.source, {})["total_bytes"],
        "schemes": [str(s) for s in chosen],
    }
    run = _taylor if method == "taylor" else _measured
    try:
        rows = [_row(bench, found) for found in run(bench, wanted, chosen, stop)]
    finally:
        bench.progress.end()
    document["rows"] = [_unlabelled(row) for row in rows] if method == DIVERGENCE else rows
    if bench.run is not None:
        bench.run.write_result(f"sensitivity-{method}", document)
    return document


def _measured(
    bench: Workbench, wanted: list[Target], schemes: list[Scheme], stop: int
) -> Iterable[Sensitivity]:
    pairs = list(pairs_of(wanted, schemes))
    bench.expect(fitted for _, _, fitted in pairs)
    seconds = bench.seconds_a_sample("search", stop) * stop * len(pairs)
    title = f"profiling {len(pairs)} target-scheme pairs on {stop:,} samples"
    bench.progress.begin(title, (len(pairs) + 1) * stop, seconds)
    return measured(
        wanted,
        schemes,
        lambda plan, label: bench.measure(dict(plan), "search", 0, stop, label),
        bench.groups("search", stop),
        robust=bench.robust,
    )


def _taylor(
    bench: Workbench, wanted: list[Target], schemes: list[Scheme], stop: int
) -> Iterable[Sensitivity]:
    pairs = list(pairs_of(wanted, schemes))
    bench.expect(fitted for _, _, fitted in pairs)
    for _, _, fitted in pairs:
        bench.ready(fitted)
    split, model = bench.samples("search"), bench.source.model
    task = "classification" if bench.dataset.task == "unlabelled" else bench.dataset.task

    def priced(count: int, tick: Callable[[int], None]) -> list[Sensitivity]:
        return taylor(
            model, bench.applier, wanted, schemes, split.x[:count], task,
            bench.groups("search", count), tick, split.y[:count],
        )  # fmt: skip

    each = PASSES_A_PAIR if model.recurrences else REPLAYS_A_PAIR
    passes = GRADIENT_PASSES + each * len(pairs)
    seconds = bench.seconds_a_sample("search", stop) * stop * passes
    title = f"one gradient for {len(pairs)} target-scheme pairs on {stop:,} samples"
    bench.progress.begin(title, stop, seconds)
    return priced(stop, bench.progress.advance)


def _baseline(bench: Workbench, stop: int) -> dict[str, Any]:
    arrays = bench.measure({}, "search", 0, stop, "baseline")
    groups = bench.groups("search", stop)
    out = {"metric": score_document(mean(arrays[bench.primary], groups))}
    if "cross_entropy" in arrays:
        out["cross_entropy"] = score_document(mean(arrays["cross_entropy"], groups))
    return out


def _row(bench: Workbench, found: Sensitivity) -> dict[str, Any]:
    stored, carried = zip(
        *(site_bytes(site, found.applied[site.name]) for site in found.target.sites), strict=True
    )
    row: dict[str, Any] = {
        "target": found.target.name,
        "part": found.target.part.value,
        "kind": found.target.kind.value,
        "layer": found.target.layer,
        "sites": [site.name for site in found.target.sites],
        "scheme": str(found.scheme),
        "applied": list(dict.fromkeys(str(s) for s in found.applied.values())),
        "weight_bytes": sum(stored),
        "state_bytes": sum(carried),
        "radius": bench.evaluator("search").spectral_radius(found.applied),
    }
    names = {
        bench.primary: "metric",
        "cross_entropy": "cross_entropy",
        bench.additive: bench.additive,
    }
    for array, label in names.items():
        if array in found.scores:
            row[label] = _plain(found.scores[array])
    any_score = next(iter(found.scores.values()))
    return row | {"n": any_score.n, "clusters": any_score.clusters}


def _unlabelled(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what labels say."""
    return {key: value for key, value in row.items() if key not in ("metric", "cross_entropy")}


def _plain(score: Score) -> dict[str, float]:
    found = score_document(score)
    return {key: found[key] for key in ("value", "stderr", "p") if key in found}
