"""The score of a run on a GPU is the simulation's, within the paired error bar of the two.

On a GPU over whole data sets; in the interpreter two digits show that it runs.
"""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe.data import load_data
from sensprobe.export.tensors import stored
from sensprobe.models.apply import Applier, observe
from sensprobe.numerics.taps import RoundingTap
from sensprobe.packed import DeviceStream, PackedWeights
from sensprobe.session.plans import as_plan
from sensprobe.session.source import open_model

FEW = os.environ.get("TRITON_INTERPRET") == "1"
TEXT = "pydoc,length=64,context=8"
CASES = {
    "s4d-digits": (
        "digits", 2 if FEW else None,
        {"layers.*.[ABC]": "int8/head/asym/parts", "layers.*.out_proj": "int8/channel",
         "head": "int8/channel", "layers.*.state": "int8/head/asym/parts/dynamic"},
    ),
    "mamba-bytes": (
        TEXT, None,
        {"layers.*.in_proj.?": "int8/channel", "layers.*.out_proj": "int8/channel",
         "embedding": "int8/channel", "layers.*.state": "int8/head/dynamic"},
    ),
    "mamba2-bytes": (
        TEXT, None,
        {"layers.*.in_proj.?": "int4/group32", "layers.*.out_proj": "int4/group32",
         "embedding": "int8/channel", "layers.*.state": "int8/head/dynamic"},
    ),
}  # fmt: skip


def _losses(logits: Tensor, y: Tensor) -> Tensor:
    """A loss a sample: of a window, the mean over what is scored."""
    if logits.ndim == 2:
        return F.cross_entropy(logits, y, reduction="none")
    scored = y >= 0
    each = F.cross_entropy(logits.mT, y.clamp(min=0).long(), reduction="none") * scored
    return each.sum(1) / scored.sum(1)


@pytest.mark.parametrize("name", ["s4d-digits"] if FEW else CASES)
def test_whole_sets_score_as_simulated(device, name):
    data, limit, texts = CASES[name]
    model, split = open_model(name).model, load_data(data).splits["confirmation"]
    x, y = split.x[:limit], split.y[:limit]
    plan = as_plan(texts, model).resolve(model.sites.values())
    applier = Applier(model, observe(model, load_data(data).splits["calibration"].x[:4]))
    tap = applier.tap(plan)
    weights = PackedWeights.of(stored(applier, plan, tap), model.sites, plan)
    told = DeviceStream(model, weights, weights.scales(), torch.device(device)).whole(x).cpu()
    again = RoundingTap(plan, weights.decoded, weights.scales(), round=tap.round)
    with torch.no_grad():
        want, exact = model(x, again), model(x)
    found, simulated, full = (_losses(logits, y) for logits in (told, want, exact))
    moved, damage = found - simulated, (simulated - full).abs().mean()
    assert moved.abs().mean() < damage / 4, "far less than rounding moves a loss"
    if not FEW:
        assert moved.mean().abs() <= 2 * moved.std() / len(x) ** 0.5
