"""Prune: take state variables away for good, those that the outputs miss least."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from sensprobe.checkpoints import parameters
from sensprobe.errors import UsageError
from sensprobe.evaluate import mean, paired, score_document
from sensprobe.jobs.cost import full_bytes
from sensprobe.jobs.tuned import opened_as, tuned_arrays
from sensprobe.models import FAMILIES, family_of
from sensprobe.sensitivity.modes import mode_prices
from sensprobe.session.session import Session
from sensprobe.train import record
from sensprobe.train.snapshot import write_weights

SAMPLES = 256
"""The most samples of the calibration split that prices are measured on."""


def prune(session: Session, states: int, out: Path, limit: int | None = None) -> dict[str, Any]:
    """Write the session's model with so many state variables a head (S4D) or in all (S5) to `out`.

    The document that is returned has, by layer, the sum of the prices of what went and of what is
    left (see `sensitivity.modes`), bytes at full precision before and after, and scores of both
    models on `limit` samples of the search split and of the confirmation split, paired. Nothing is
    trained: `tune` does that. Raises UsageError for a family without pruning, and for a number of
    states that is not below the model's.
    """
    source, config = session.source, session.source.model.config
    require_prunable(session, states)
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out}: a pruned model is a checkpoint; name a .safetensors file.")
    if out.exists():
        raise UsageError(f"--out {out} exists: name another file, or take it away.")
    stops = {
        split: session.samples.use(split, limit)
        for split in ("search", "confirmation")
        if split in session.dataset.splits
    }
    went = write_pruned(session, states, out)
    pruned = opened_as(session, out)
    pruned.samples = session.samples
    scores = {split: _scores(session, pruned, split, stop) for split, stop in stops.items()}
    if "confirmation" in scores:
        last = scores["confirmation"]
        record(out, {
            "metric": session.headline.label, "value": last["after"]["value"],
            "stderr": last["after"]["stderr"], "n": last["n"], "split": "confirmation",
        })  # fmt: skip
    bytes_of = {
        "before": full_bytes(source.outline, 1), "after": full_bytes(pruned.source.outline, 1)
    }  # fmt: skip
    return {
        "model": source.name,
        "data": session.dataset.name,
        "data_seed": session.data_seed,
        "weights": str(out),
        "metric": session.headline.label,
        "metric_info": session.headline.info.to_json(),
        "states": {"before": config.d_state, "after": states},
        "samples": went.samples,
        "price": "squared change" if session.dataset.task == "regression" else "nats",
        "layers": [
            {"layer": i, "kept": kept, "removed": removed}
            for i, (kept, removed) in enumerate(zip(went.kept, went.removed, strict=True))
        ],
        "bytes": {name: found["total"] for name, found in bytes_of.items()},
        "splits": scores,
    }  # fmt: skip


class Went(NamedTuple):
    """By layer the sum of the prices of the states that are kept, and of those that went, on so
    many samples."""

    kept: list[float]
    removed: list[float]
    samples: int


def require_prunable(session: Session, states: int) -> None:
    """UsageError for a family without pruning, where nothing can be priced, and for a number of
    states that is not below the model's."""
    source, family = session.source, family_of(session.source.model.config)
    if source.artefact is not None:
        raise UsageError(f"{source.name} is an exported model: prune the model it was made from.")
    if family.pruning is None:
        known = [name for name, record in FAMILIES.items() if record.pruning is not None]
        raise UsageError(
            f"state variables of {family.name} models are not pruned; of {' and '.join(known)} "
            "models they are."
        )
    if session.dataset.task == "language":
        raise UsageError("states of language models are not priced: give data with samples.")
    config, blocks = source.model.config, _blocks(session)
    if not 1 <= states < config.d_state or states % blocks:
        step = f" in steps of {blocks}, its blocks" if blocks > 1 else ""
        raise UsageError(
            f"{states} states: {source.name} has {config.d_state}; give a number from "
            f"{blocks} to {config.d_state - blocks}{step}."
        )


def write_pruned(
    session: Session, states: int, out: Path, recorded: Mapping[str, Any] = MappingProxyType({})
) -> Went:
    """Write the session's model with the states that are worth most, as many of every row of A."""
    source = session.source
    pruning = family_of(source.model.config).pruning
    assert pruning is not None
    x = session.dataset.splits["calibration"].x[:SAMPLES]
    session.progress.begin(f"pricing states on {len(x)} samples", len(x))
    try:
        prices = mode_prices(
            source.model, pruning, x, session.dataset.task, session.progress.advance
        )
    finally:
        session.progress.end()
    most = states // _blocks(session)
    chosen = [price.topk(most, 1).indices.sort(1).values for price in prices]
    stored = parameters(source.path, source.norm)
    params, config = pruning.kept(stored.tensors, stored.config, chosen)
    write_weights(out, params, config, dict(recorded))
    kept = [float(p.gather(1, rows).sum()) for p, rows in zip(prices, chosen, strict=True)]
    removed = [float(p.sum()) - k for p, k in zip(prices, kept, strict=True)]
    return Went(kept, removed, len(x))


def _blocks(session: Session) -> int:
    """By how many rows of A the states that are kept are counted: 1, or the blocks of an S5."""
    blocks: int = getattr(session.source.model.config, "blocks", 1)
    return blocks


def _scores(before: Session, after: Session, split: str, stop: int) -> dict[str, Any]:
    """Scores at full precision of both models on samples of a split, and their paired difference.
    Where outputs are compared with full precision, it is that of the model before."""
    for session in (before, after):
        session.divergence = session.headline.scores_divergence
    groups, primary = before.samples.groups(split, stop), before.headline.primary
    before.progress.begin(f"scoring on {stop:,} {split} samples", 2 * stop)
    try:
        arrays = [
            before.measure({}, split, 0, stop, "exact")[primary],
            tuned_arrays(before, after, {}, split, stop)[primary],
        ]
    finally:
        before.progress.end()
    change = paired(arrays[1], arrays[0], groups, robust=before.headline.robust)
    return {
        "n": stop,
        "before": score_document(mean(arrays[0], groups)),
        "after": score_document(mean(arrays[1], groups)),
        "change": score_document(change),
    }
