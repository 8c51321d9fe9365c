"""`sensprobe.load`: a model under a plan, ready to run."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch

from sensprobe import ops
from sensprobe.errors import UsageError
from sensprobe.memory import room
from sensprobe.models import Model
from sensprobe.models.apply import Applier
from sensprobe.numerics.taps import RoundingTap
from sensprobe.ops.choice import say
from sensprobe.packed import PackedWeights, device_stream_of, stream_of
from sensprobe.plans.plan import EXACT_PLAN, Plan
from sensprobe.plans.sites import Kind
from sensprobe.session.calibration import calibrated_on
from sensprobe.session.loaded import Array, LoadedModel, as_sequences, free_on
from sensprobe.session.plans import PlanLike, as_plan, resolve
from sensprobe.session.source import Source, open_model

CPU = torch.device("cpu")


def load(
    model: str | Path,
    plan: PlanLike | None = None,
    device: str | torch.device = "cpu",
    *,
    calibration: Array | None = None,
    norm: str | None = None,
) -> LoadedModel:
    """A model under a plan, whose call returns outputs (a classifier's logits) as a torch tensor.

    model: a name that ships (`s4d-digits`), a checkpoint file, an exported folder, a folder of
        mamba_ssm or transformers, or a model.toml.
    plan: a `Plan`, the name of a preset (`quamba`, see `sensprobe presets`), the path of a
        plan.json, or {pattern: scheme}; or a list of such. None runs the model as it is: at full
        precision, an exported one as exported. Later patterns override earlier ones. An exported
        model takes no other plan: its weights are rounded already.
    device: "cpu", or "cuda" ("cuda:1") where there is one. An exported model stays packed in the
        memory of either (see `LoadedModel`). Any other runs on a GPU as the reference loop, which
        is slow and may differ from the CPU in the last bits, as does an exported one whose plan no
        kernel there takes; a warning says why.
    calibration: sequences, as a call takes them, that fix the ranges of static activations and
        states, and what `gptq` rounds by; run once, on the CPU, at full precision.
    norm: where a checkpoint of state-spaces/s4 or S5 has its norm: none, pre or post.

    Raises UsageError for a MODEL or device that does not exist, CheckpointError for a file that
    cannot be used, PlanError and SchemeError for a plan that does not fit the model or lacks
    calibration, DataError for sequences of another shape, CapacityError for an exported model that
    finds no room.
    """
    place = device_named(device)
    return loaded(open_model(model, norm), plan, place, calibration)


def loaded(
    source: Source,
    plan: PlanLike | None = None,
    place: torch.device = CPU,
    calibration: Array | None = None,
    applier: Applier | None = None,
) -> LoadedModel:
    """`load`, of what a MODEL names; `applier` is one that is calibrated for the plan already."""
    if source.artefact is not None:
        if plan is not None:
            raise UsageError(
                f"{source.name} is an exported model, and its weights are rounded already. Load "
                "the model it was made from under the plan, or leave the plan out."
            )
        chosen = Plan(tuple(source.artefact.plan.items()), source.name)
        made = source.artefact
        stored = PackedWeights.of(made.tensors, made.model.sites, made.plan)
        if (packed := packed_model(source.name, chosen, made.model, stored, place)) is not None:
            return packed
        tap = source.artefact.tap
    else:
        chosen = EXACT_PLAN if plan is None else as_plan(plan, source.model)
        schemes = resolve(chosen, source.model)
        x = None if calibration is None else as_sequences(calibration, source.model)
        applier = applier or calibrated_on(x, schemes, source.model)
        tap = applier.tap(schemes)
    with _decoded_on(place, source):
        tap = _moved(tap, place)
    weights = {n: tap.weights[n] for n, s in source.model.sites.items() if s.kind is Kind.WEIGHT}
    runs = type(source.model)(source.model.config, weights)  # type: ignore[call-arg]
    return LoadedModel(source.name, chosen, tap.plan, place, runs, tap)


def packed_model(
    name: str, plan: Plan, model: Model, weights: PackedWeights, place: torch.device
) -> LoadedModel | None:
    """A model whose weights stay packed as an exported one's do; None where no kernel
    of a GPU runs it. Of `model` the config counts, its weights are not kept."""
    tap = RoundingTap(weights.plan, weights.decoded, weights.scales(), round=ops.rounded)
    nothing = {n: torch.empty(0) for n, s in model.sites.items() if s.kind is Kind.WEIGHT}
    runs = type(model)(model.config, nothing)  # type: ignore[call-arg]
    if place.type == "cpu":
        stream, why = stream_of(runs, weights, tap.scales)
        return LoadedModel(name, plan, tap.plan, place, runs, tap, weights, stream, why)
    return _on_device(name, plan, weights, runs, tap, place)


def _on_device(
    name: str,
    plan: Plan,
    weights: PackedWeights,
    runs: Model,
    tap: RoundingTap,
    place: torch.device,
) -> LoadedModel | None:
    """A packed model in a device's memory; where kernels run whole sequences only, its steps decode
    weights as they go."""
    with room(
        weights.bytes,
        free_on(place),
        f"the weights of {name} on {place}",
        "Free some of that GPU's memory, or run on the CPU.",
    ):
        there, why = device_stream_of(runs, weights, tap.scales, place)
    if there is None:
        say(logging.WARNING, why)
        return None
    decoded = weights.decoded_on(place)
    tap = replace(_moved(replace(tap, weights={}), place), weights=decoded)
    steps = None if why else there
    return LoadedModel(name, plan, tap.plan, place, runs, tap, weights, steps, why, there)


def device_named(device: str | torch.device) -> torch.device:
    """The device, which is there; UsageError says what is instead."""
    try:
        place = torch.device(device)
    except RuntimeError:
        raise UsageError(f"no device {str(device)!r}; use cpu or cuda.") from None
    if place.type not in ("cpu", "cuda"):
        raise UsageError(f"device {device}: sensprobe runs on cpu and cuda.")
    if place.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UsageError(
                f"device {device}: torch sees no CUDA GPU here. Use cpu, or install a CUDA build "
                "of torch (`sensprobe doctor` says what there is)."
            )
        if place.index is not None and place.index >= count:
            raise UsageError(
                f"device {device}: there is no GPU {place.index}; the last is cuda:{count - 1}."
            )
    return place


def _decoded_on(place: torch.device, source: Source) -> AbstractContextManager[None]:
    """Room for a model's weights in float32, where they are copied to a GPU."""
    sites = source.model.sites.values() if place.type == "cuda" else ()
    return room(
        sum(4 * site.reals for site in sites if site.kind is Kind.WEIGHT),
        free_on(place),
        f"the weights of {source.name} on {place} in float32",
        "Free some of that GPU's memory, or run on the CPU.",
    )


def _moved(tap: RoundingTap, device: torch.device) -> RoundingTap:
    """The tap with its tensors on a device."""
    weights = {name: w.to(device) for name, w in tap.weights.items()}
    scales = {
        name: (scale.to(device), None if zero is None else zero.to(device))
        for name, (scale, zero) in tap.scales.items()
    }
    return replace(tap, weights=weights, scales=scales)
