"""The ways in which `sensprobe bench MODEL` runs a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sensprobe.errors import UnsupportedError
from sensprobe.export.tensors import stored
from sensprobe.memory import free_bytes, room
from sensprobe.models.apply import Applier
from sensprobe.models.torch_step import torch_model
from sensprobe.numerics.taps import RoundingTap
from sensprobe.packed import PackedWeights
from sensprobe.plans.plan import EXACT_PLAN, Plan
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Kind
from sensprobe.session.load import packed_model
from sensprobe.session.loaded import LoadedModel
from sensprobe.session.source import Source

FULL, TORCH = "full precision", "PyTorch"
NAMELESS = "the plan"


@dataclass(frozen=True)
class Way:
    """A way to run the model: under the plan or at full precision from packed memory, or in
    PyTorch. `weights` is None of the last; `steps` is what steps, where that is another."""

    name: str
    model: LoadedModel
    weights: PackedWeights | None = None
    steps: LoadedModel | None = None

    @property
    def streams(self) -> bool:
        return self.model.stream is not None


def ways_of(
    source: Source, plan: Mapping[str, Scheme], applier: Applier, name: str, place: torch.device
) -> list[Way]:
    """Return the ways to run a model: under the plan (unless it rounds nothing), at full precision,
    and in PyTorch, in this order.

    `applier` is calibrated for the plan. For an exported model, full precision runs on its
    decoded weights: the time does not depend on their values.
    """
    name = NAMELESS if name in ("", FULL, TORCH) else name
    weights = [s for s in source.model.sites.values() if s.kind is Kind.WEIGHT]
    with room(
        2 * sum(4 * site.reals for site in weights),
        free_bytes(),
        f"the weights of {source.name}, at full precision twice",
        "Free some memory, or bench it on a machine with more.",
    ):
        plain = Applier(source.model)
        ways = [
            _packed(FULL, source, {}, stored(plain, {}, plain.tap({})), place),
            _in_torch(source, plain.tap({}), place),
        ]
        if plan:
            made = source.artefact
            tensors = stored(applier, plan, applier.tap(plan)) if made is None else made.tensors
            ways.insert(0, _packed(name, source, plan, tensors, place))
    return ways


def _packed(
    name: str, source: Source, plan: Mapping[str, Scheme], tensors: Mapping[str, Tensor],
    place: torch.device,
) -> Way:  # fmt: skip
    weights = PackedWeights.of(tensors, source.model.sites, dict(plan))
    made = packed_model(source.name, Plan(tuple(plan.items()), name), source.model, weights, place)
    if made is None:
        raise UnsupportedError(
            f"--device {place}: no kernel there runs {source.name} under {name}; the warning above "
            "says why. Leave --device out."
        )
    return Way(name, made, weights)


def _in_torch(source: Source, tap: RoundingTap, place: torch.device) -> Way:
    """Steps in PyTorch alone; sequences as `load` runs the model without a plan, around its scans,
    for a loop over the steps in Python is no way to run one."""
    weights = {name: w.to(place) for name, w in tap.weights.items()}
    tap = RoundingTap({}, weights, {}, round=tap.round)
    runs = type(source.model)(source.model.config, weights)  # type: ignore[call-arg]
    whole, steps = (
        LoadedModel(source.name, EXACT_PLAN, {}, place, made, tap)
        for made in (runs, torch_model(runs))
    )
    return Way(TORCH, whole, steps=steps)
