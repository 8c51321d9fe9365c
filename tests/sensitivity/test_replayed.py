"""⟨g, Δ⟩ of selective models against what a plan really does to a model's outputs."""

from __future__ import annotations

from dataclasses import replace
from math import hypot

import pytest
import torch
from selective import MAMBA2S, MAMBAS, inputs, tiny
from torch import Tensor

from sensprobe.evaluate import mean
from sensprobe.evaluate.language import language
from sensprobe.models import Model, per_step
from sensprobe.models.apply import Applier, observe, wanted_by
from sensprobe.plans.fitting import why_not
from sensprobe.plans.scheme import parse
from sensprobe.sensitivity import Group, groups_of, taylor
from sensprobe.sensitivity import replayed as room
from sensprobe.sensitivity.gradients import pull
from sensprobe.sensitivity.replayed import replayed

CONFIGS = {f"mamba {k}": c for k, c in MAMBAS.items()} | {
    f"mamba2 {k}": c for k, c in MAMBA2S.items()
}


@pytest.fixture(params=CONFIGS)
def model(request) -> Model:
    return tiny(CONFIGS[request.param])


def directions(outputs: Tensor, first: int) -> Tensor:
    """What gradients are taken of, of a model with one output a sequence or one a step."""
    v = pull(outputs, "classification", first)
    return v / outputs.shape[1] ** 0.5 if outputs.ndim == 3 else v


def products(model: Model, taps, x: Tensor, y: Tensor | None, task: str) -> dict:
    """⟨g, Δ⟩ (n,) by site and scheme, of all batches."""
    ticks: list[int] = []
    parts = list(replayed(model, taps, x, y, task, ticks.append))
    assert sum(ticks) == len(x)
    assert [i for here, _ in parts for i in range(len(x))[here]] == list(range(len(x)))
    return {key: torch.cat([found[key] for _, found in parts]) for key in taps}


@pytest.mark.parametrize("samples", [1, 2])
def test_batches_change_nothing(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(CONFIGS["mamba tokens"])
    x = inputs(model.config)
    scheme = parse("int4/dynamic/stochastic")
    plans = {name: {name: scheme} for name, s in model.sites.items() if not why_not(scheme, s)}
    taps = {(name, scheme): Applier(model).tap(plan) for name, plan in plans.items()}
    whole = products(model, taps, x, None, "language")
    monkeypatch.setattr("sensprobe.sensitivity.replayed._batch_size", lambda *_: samples)
    for key, found in products(model, taps, x, None, "language").items():
        torch.testing.assert_close(found, whole[key], rtol=1e-3, atol=1e-8)


def test_every_site_moves_the_outputs_by_its_inner_product(model: Model) -> None:
    """With so fine a scheme that a second order does not show beside the first."""
    x = inputs(model.config)
    scheme = parse("int14")
    plans = {name: {name: scheme} for name, s in model.sites.items() if not why_not(scheme, s)}
    applier = Applier(model, observe(model, x))
    taps = {(name, scheme): applier.tap(plan) for name, plan in plans.items()}
    task = "language" if per_step(model) else "classification"
    found = products(model, taps, x, None, task)
    with torch.no_grad():
        exact = [model(x[i : i + 1]).double() for i in range(len(x))]
        for (name, _), tap in taps.items():
            moved = [model(x[i : i + 1], tap.at(i)).double() for i in range(len(x))]
            wanted = [
                float((directions(a.float(), i) * (b - a)).sum())
                for i, (a, b) in enumerate(zip(exact, moved, strict=True))
            ]
            got = found[name, scheme].tolist()
            size = max(1e-6, *map(abs, wanted))
            assert got == pytest.approx(wanted, abs=0.08 * size + 2e-6), name


@pytest.mark.parametrize("name", ["mamba tokens", "mamba2 tokens"])
def test_estimates_are_near_the_measured_divergence(name: str) -> None:
    """On average over samples: a random direction a sample sees a part of each divergence."""
    model = tiny(CONFIGS[name])
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 11, (160, 12), generator=generator)
    y = torch.randint(0, 11, (160, 12), generator=generator)
    y[:, :3] = -1  # conditions, and is not scored
    wanted = groups_of(model.sites.values(), "site")
    scheme = parse("int8/dynamic")
    applier = Applier(model, observe(model, x))
    rows = taylor(model, applier, wanted, [scheme], x, "language", y=y)
    assert {row.group.name for row in rows} >= {"layers.0.state", "layers.1.out_proj", "head"}
    with torch.no_grad():
        base = model(x)
        for row in rows:
            outputs = model(x, applier.tap(row.applied))
            kl = mean(language(outputs, y, 9.0, base)["kl"])
            estimate = row.scores["kl"]
            if kl.value > 1e-7:  # below, float32 shows
                bar = 4 * hypot(kl.stderr, estimate.stderr) + 0.3 * kl.value
                assert abs(estimate.value - kl.value) < bar, row.group.name
                assert estimate.value > kl.value / 5, row.group.name


def test_positions_that_are_not_scored_do_not_count() -> None:
    """A change of what is read last moves only the last output, and that is masked."""
    model = tiny(CONFIGS["mamba tokens"])
    x = inputs(model.config)
    y = torch.zeros(x.shape, dtype=torch.int64)
    applier = Applier(model)
    key = ("head", parse("int4"))
    tap = applier.tap({key[0]: key[1]})
    assert products(model, {key: tap}, x, y, "language")[key].all()
    y[:] = -1
    assert not products(model, {key: tap}, x, y, "language")[key].any()


def test_gptq_and_hadamard_are_priced_as_they_round() -> None:
    model = tiny(CONFIGS["mamba tokens"])
    x = torch.randint(0, 11, (64, 12), generator=torch.Generator().manual_seed(1))
    site = model.sites["layers.0.out_proj"]
    schemes = [parse("int3/channel"), parse("int3/channel/gptq")]
    plans = [{site.name: scheme} for scheme in schemes]
    applier = Applier(model, observe(model, x, wanted_by({**plans[1]}, model)))
    rows = taylor(
        model,
        applier,
        [Group(site.name, site.part, site.kind, 0, (site,))],
        schemes,
        x,
        "language",
    )
    nearest, gptq = (row.scores["kl"].value for row in rows)
    assert gptq < nearest


def test_a_deeper_model_is_priced_in_no_more_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch asks for every site in every scheme: more batches would make time grow as the
    square of the depth."""
    shallow, deep = (tiny(replace(CONFIGS["mamba tokens"], layers=n)) for n in (8, 32))
    length = 64
    monkeypatch.setattr(room, "ROOM_BYTES", 4 * room._bytes_a_sample(shallow, length))
    together = [
        room._batch_size(model, length) * room._batches_together(model, length)
        for model in (shallow, deep)
    ]
    assert together == [4, 4]
    monkeypatch.setattr(room, "ROOM_BYTES", room._bytes_a_sample(deep, length) - 1)
    assert room._batches_together(deep, length) == 1  # a sample alone takes more than the room


def test_batches_of_a_deep_model_fit_the_free_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tiny(replace(CONFIGS["mamba tokens"], layers=32))
    monkeypatch.setattr(room, "ROOM_BYTES", 4 * room._bytes_a_sample(deep, 64))
    for free, wanted in ((None, 4), (16, 4), (8, 2), (7, 1), (0, 1)):
        free_bytes = None if free is None else free * room.ROOM_BYTES
        monkeypatch.setattr(room, "free_bytes", lambda left=free_bytes: left)
        assert room._batches_together(deep, 64) == wanted


@pytest.mark.parametrize("together", [1, 2, 3])
def test_batches_priced_together_have_the_bits_of_batches_apart(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(CONFIGS["mamba tokens"])
    x = inputs(
        model.config, batch=6, length=16
    )  # whole vectors: SiLU's tails have bits of their own
    scheme = parse("int4/dynamic/stochastic")
    plans = {name: {name: scheme} for name, s in model.sites.items() if not why_not(scheme, s)}
    taps = {(name, scheme): Applier(model).tap(plan) for name, plan in plans.items()}
    monkeypatch.setattr(room, "_batch_size", lambda *_: 2)
    apart = products(model, taps, x, None, "language")
    monkeypatch.setattr(room, "_batches_together", lambda *_: together)
    for key, found in products(model, taps, x, None, "language").items():
        assert torch.equal(found, apart[key]), key
