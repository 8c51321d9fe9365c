"""The score of a packed run over a whole data set is the simulation's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sensprobe import load
from sensprobe.data import digits
from sensprobe.export import export_model
from sensprobe.models.apply import Applier
from sensprobe.session.plans import as_plan
from sensprobe.session.source import open_model

PLANS = {
    "eight bits": {
        "layers.*.[ABC]": "int8/head/asym/parts", "layers.*.out_proj": "int8/channel",
        "layers.*.out_proj_in": "int8/dynamic", "head": "int8/channel", "head_in": "int8/dynamic",
        "layers.*.state": "int8/head/asym/parts/dynamic",
    },
    "four bits": {
        "layers.*.[ABC]": "int8/head/asym/parts", "layers.*.out_proj": "int4/channel/hadamard",
        "layers.*.out_proj_in": "int4/dynamic/hadamard", "layers.*.state": "int5/head/dynamic",
        "layers.*.x": "int6/range2", "head": "int4/channel",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def images():
    """All 1,797: pixels (n, 64, 1) and labels."""
    splits = digits.load().splits.values()
    return torch.cat([s.x for s in splits]), torch.cat([s.y for s in splits])


@pytest.mark.parametrize("name", PLANS)
def test_all_digits_score_packed_as_simulated(name, images, tmp_path):
    """Paired by image: right answers and losses differ by less than their error bars, and a loss
    moves by far less than rounding moved it."""
    x, y = images
    model = open_model("s4d-digits").model
    chosen = as_plan(PLANS[name], model).resolve(model.sites.values())
    export_model(model, chosen, Applier(model), tmp_path / "out", name="s4d-digits")
    runs = load(tmp_path / "out")
    assert runs.packed
    state = runs.start(len(x))
    for pixels in x.unbind(1):
        packed, state = runs.advance(pixels, state)
    told, exact = load("s4d-digits", PLANS[name])(x), load("s4d-digits")(x)
    losses = [F.cross_entropy(logits, y, reduction="none") for logits in (packed, told, exact)]
    moved, damage = losses[0] - losses[1], (losses[1] - losses[2]).abs().mean()
    assert moved.abs().mean() < damage / 10
    assert moved.mean().abs() < 2 * moved.std() / len(x) ** 0.5
    right = [logits.argmax(1) == y for logits in (packed, told)]
    differ = (right[0] != right[1]).sum().item()
    assert abs(right[0].sum().item() - right[1].sum().item()) <= 2 * differ**0.5
    assert differ <= 3
    assert right[1].float().mean() > 0.9
