"""Prune: take state variables or whole kernels away for good, those that the outputs miss least."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sensprobe.checkpoints import parameters
from sensprobe.errors import UsageError
from sensprobe.evaluate import mean, paired, score_document
from sensprobe.jobs.cost import full_bytes
from sensprobe.jobs.tuned import opened_as, tuned_arrays
from sensprobe.models import FAMILIES, family_of
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import EXACT_PLAN, Plan, Resolved, fingerprint
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Kind, Part
from sensprobe.sensitivity.kernels import kernel_prices
from sensprobe.sensitivity.modes import mode_prices
from sensprobe.session.session import Session
from sensprobe.train import record
from sensprobe.train.snapshot import write_weights

SAMPLES = 256
"""The most samples of the calibration split that prices are measured on."""


def prune(
    session: Session,
    states: int | None,
    out: Path,
    limit: int | None = None,
    *,
    kernels: int | None = None,
    plan: Plan = EXACT_PLAN,
) -> dict[str, Any]:
    """Write the session's model with so many state variables a head (S4D) or in all (S5), and so
    many kernels in all layers together (S4D), to `out`. None keeps all of them.

    The document that is returned has, by layer, the sum of the prices of what went and of what is
    left (see `sensitivity.modes` and `.kernels`), bytes before and after, and scores of both models
    on `limit` samples of the search split and of the confirmation split, paired. Prices are those
    of the weights as `plan` stores them, so that what it rounds to nothing costs nothing; bytes and
    scores are under it too, and the checkpoint has the weights as they were. Nothing is trained:
    `tune` does that. Raises UsageError for a family without pruning, and for numbers that are not
    below the model's.
    """
    source, config = session.source, session.source.model.config
    require_prunable(session, states, kernels)
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out}: a pruned model is a checkpoint; name a .safetensors file.")
    if out.exists():
        raise UsageError(f"--out {out} exists: name another file, or take it away.")
    stops = {
        split: session.samples.use(split, limit)
        for split in ("search", "confirmation")
        if split in session.dataset.splits
    }
    resolved = plan.resolve(source.model.sites.values())
    went = write_pruned(session, states, out, kernels=kernels, plan=resolved)
    pruned = opened_as(session, out)
    pruned.samples = session.samples
    both = ((session, resolved), (pruned, plan.resolve(pruned.source.model.sites.values())))
    scores = {split: _scores(*both, split, stop) for split, stop in stops.items()}
    if "confirmation" in scores and not resolved:
        last = scores["confirmation"]
        record(out, {
            "metric": session.headline.label, "value": last["after"]["value"],
            "stderr": last["after"]["stderr"], "n": last["n"], "split": "confirmation",
        })  # fmt: skip
    return {
        "model": source.name,
        "data": session.dataset.name,
        "data_seed": session.data_seed,
        "weights": str(out),
        "metric": session.headline.label,
        "metric_info": session.headline.info.to_json(),
        "states": {"before": config.d_state, "after": pruned.source.model.config.d_state},
        "samples": went.samples,
        "price": "squared change" if session.dataset.task == "regression" else "nats",
        "layers": went.layers,
        "plan": fingerprint(resolved) if resolved else None,
        "bytes": {
            name: _bytes(*one) for name, one in zip(("before", "after"), both, strict=True)
        },
        "splits": scores,
    }  # fmt: skip


class Went(NamedTuple):
    """By layer the sum of the prices of the states that are kept and of those that went, on so many
    samples, and under `kernels` those of kernels, with their numbers (`free`: of those whose price
    is 0, before); each where some went."""

    layers: list[dict[str, Any]]
    samples: int


def require_prunable(session: Session, states: int | None, kernels: int | None = None) -> None:
    """UsageError for a family without pruning, where nothing can be priced, and for numbers of
    states or kernels that are not below the model's."""
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
    if states is None and kernels is None:
        raise UsageError("say what is kept: --states N, --kernels N, or both.")
    if states is not None and (not 1 <= states < config.d_state or states % blocks):
        step = f" in steps of {blocks}, its blocks" if blocks > 1 else ""
        raise UsageError(
            f"{states} states: {source.name} has {config.d_state}; give a number from "
            f"{blocks} to {config.d_state - blocks}{step}."
        )
    if kernels is not None and family.pruning.kernels is None:
        raise UsageError(
            f"{kernels} kernels: the heads of {family.name} models have none of their own; prune "
            "their states, with --states N."
        )
    sites = source.model.sites.values()
    total = sum(site.shape[0] for site in sites if site.part is Part.A)
    if kernels is not None and not config.layers <= kernels < total:
        raise UsageError(
            f"{kernels} kernels: {source.name} has {total} in {config.layers} layer(s), each of "
            f"which keeps one; give a number from {config.layers} to {total - 1}."
        )


def write_pruned(
    session: Session,
    states: int | None,
    out: Path,
    recorded: Mapping[str, Any] = MappingProxyType({}),
    *,
    kernels: int | None = None,
    plan: Mapping[str, Scheme] = MappingProxyType({}),
) -> Went:
    """Write the session's model with the kernels that are worth most in all layers together, and of
    every row of A as many of the states that are; None keeps all. Prices are those of the weights
    as a plan stores them."""
    source = session.source
    pruning = family_of(source.model.config).pruning
    assert pruning is not None
    stored = parameters(source.path, source.norm)
    params, config = stored.tensors, stored.config
    layers: list[dict[str, Any]] = [{"layer": i} for i in range(config.layers)]
    rows: list[Any] = [slice(None) for _ in layers]
    if kernels is not None:
        assert pruning.kernels is not None
        prices = _prices(session, plan, kernel_prices, "kernels")
        rows = most(prices, kernels)
        params, config = pruning.kernels(params, config, rows)
        for layer, price, kept in zip(layers, prices, rows, strict=True):
            counts = {"before": len(price), "after": len(kept), "free": int((price == 0).sum())}
            layer["kernels"] = counts | _shared(price, price.index_fill(0, kept, 0))
    if states is not None:
        found = _prices(session, plan, mode_prices, "states")
        prices = [price[kept] for price, kept in zip(found, rows, strict=True)]
        count = states // _blocks(session)
        chosen = [price.topk(count, 1).indices.sort(1).values for price in prices]
        params, config = pruning.kept(params, config, chosen)
        for layer, price, kept in zip(layers, prices, chosen, strict=True):
            layer |= _shared(price, price.scatter(1, kept, 0))
    write_weights(out, params, config, dict(recorded))
    return Went(layers, min(SAMPLES, len(session.dataset.splits["calibration"].x)))


def most(prices: Sequence[Tensor], count: int) -> list[Tensor]:
    """The `count` largest prices (k,) of all layers together, and one of every layer at least:
    where they stand in each, in rising order."""
    ranked = torch.cat([price.index_fill(0, price.argmax(), math.inf) for price in prices])
    keep = torch.zeros_like(ranked, dtype=torch.bool)
    keep[ranked.topk(count).indices] = True
    return [part.nonzero()[:, 0] for part in keep.split([len(price) for price in prices])]


def _prices(
    session: Session, plan: Mapping[str, Scheme], priced: Callable[..., list[Tensor]], what: str
) -> list[Tensor]:
    """Prices by layer, on samples of the calibration split, with weights as a plan stores them."""
    model, dataset = session.source.model, session.dataset
    of_weights = {n: s for n, s in plan.items() if model.sites[n].kind is Kind.WEIGHT}
    rounded = session.calibration.ready(of_weights).partial_tap(of_weights).weights
    model = family_of(model.config).model(model.config, {**model.weights, **rounded})
    x = dataset.splits["calibration"].x[:SAMPLES]
    pruning, tick = family_of(model.config).pruning, session.progress.advance
    session.progress.begin(f"pricing {what} on {len(x)} samples", len(x))
    try:
        return priced(model, pruning, x, dataset.task, tick)
    finally:
        session.progress.end()


def _shared(prices: Tensor, gone: Tensor) -> dict[str, float]:
    """The sum of the prices of what is kept and of what goes, which alone is not 0 in `gone`."""
    return {"kept": float((prices - gone).sum()), "removed": float(gone.sum())}


def _blocks(session: Session) -> int:
    """By how many rows of A the states that are kept are counted: 1, or the blocks of an S5."""
    blocks: int = getattr(session.source.model.config, "blocks", 1)
    return blocks


def _bytes(session: Session, plan: Resolved) -> int:
    """Bytes of a model under a plan, or as its file stores it; its state is that of a sequence."""
    if plan:
        return cost(session.source.model.sites.values(), plan).total_bytes
    return full_bytes(session.source.outline, 1)["total"]


def _scores(
    first: tuple[Session, Resolved], second: tuple[Session, Resolved], split: str, stop: int
) -> dict[str, Any]:
    """Scores of both models under their plans on samples of a split, and their paired difference.
    Where outputs are compared with full precision, it is that of the first model."""
    (before, plan), (after, plan_after) = first, second
    for session in (before, after):
        session.divergence = session.headline.scores_divergence
    groups, primary = before.samples.groups(split, stop), before.headline.primary
    before.progress.begin(f"scoring on {stop:,} {split} samples", 2 * stop)
    try:
        arrays = [
            before.measure(plan, split, 0, stop, "whole")[primary],
            tuned_arrays(before, after, plan_after, split, stop)[primary],
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
