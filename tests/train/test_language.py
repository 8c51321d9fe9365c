"""Training language models on small text: it learns, it repeats, it goes on where it stopped."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from language import story, write_stories
from safetensors.torch import load_file

from sensprobe.checkpoints import read_checkpoint
from sensprobe.data import Split, load_data
from sensprobe.errors import DataError, RunError, SensprobeError, UsageError
from sensprobe.ops.exponential import exponential
from sensprobe.train import (
    LanguageRecipe,
    LanguageTask,
    Pool,
    Trained,
    language_recipe_from,
    read_document,
    train_task,
)
from sensprobe.train.loop import initial, network
from sensprobe.train.ram import recomputed
from sensprobe.train.recipe import Steps
from sensprobe.zoo import recipes

FAMILIES = {
    "mamba": {"d_model": 8, "d_state": 3, "dt_rank": 1},
    "mamba2": {"d_model": 8, "d_state": 3, "d_head": 4},
}
RECIPE = """
seed = 1
[text]
source = "english_novels"
length = 16
[optimizer]
lr = 1e-2
beta2 = 0.95
weight_decay = 0.01
clip = 1.0
batch = 8
average = 0.9
[schedule]
steps = 6
every = 2
warmup = 0.1
"""


def document(family: str = "mamba") -> dict[str, Any]:
    return {**tomllib.loads(RECIPE), "family": family, "model": dict(FAMILIES[family])}


@pytest.fixture(params=list(FAMILIES))
def recipe(request: pytest.FixtureRequest) -> LanguageRecipe:
    return language_recipe_from(document(request.param), "test")


@pytest.fixture
def validation(tmp_path: Path) -> Split:
    data = f"text:{write_stories(tmp_path / 'held')},length=16,context=2"
    return load_data(data).splits["search"]


@pytest.fixture
def train(validation: Split) -> Callable[..., Trained]:
    pool = Pool([story(k, 200).encode() for k in range(100, 110)], 16)

    def run(recipe: LanguageRecipe, out: Path, **more: Any) -> Trained:
        return train_task(LanguageTask(recipe, [(1.0, pool)], validation), out, **more)

    return run


def same(a: Trained, b: Trained) -> bool:
    one, other = load_file(a.weights), load_file(b.weights)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_it_learns(train, recipe: LanguageRecipe, tmp_path: Path) -> None:
    recipe = replace(recipe, schedule=replace(recipe.schedule, steps=300, every=100))
    bits = [leg["bits_per_byte"] for leg in train(recipe, tmp_path / "out").history]
    assert bits[0] < 6  # bytes by chance: 8
    assert bits == sorted(bits, reverse=True)
    assert bits[-1] < 3.9


def test_the_checkpoint_is_a_model_that_scores_the_same(
    train, recipe: LanguageRecipe, validation: Split, tmp_path: Path
) -> None:
    result = train(recipe, tmp_path / "out")
    model, header = read_checkpoint(result.weights)
    assert (model.config, header["family"]) == (recipe.model, recipe.family)
    assert header["recorded"]["value"] == result.history[-1]["bits_per_byte"]
    logits = model(validation.x[:64])[:, 2:].double().flatten(0, 1)
    targets = validation.y[:64, 2:].long().flatten()
    nats = torch.nn.functional.cross_entropy(logits, targets).item()
    assert result.history[-1]["bits_per_byte"] == pytest.approx(nats / log(2), rel=1e-6)
    params = load_file(result.weights)
    assert torch.equal(network(params, recipe.model)(validation.x[:3]), model(validation.x[:3]))
    held_out = LanguageTask(recipe, [], validation).held_out(params)
    assert held_out.mean() == result.history[-1]["bits_per_byte"] == result.value
    assert result.parameters == sum(t.numel() for t in params.values())
    assert model.spectral_radius() < 1


@pytest.mark.parametrize(("leg", "step"), [(1, 1), (2, 1), (3, 1), (2, None)])
def test_stopped_and_resumed_equals_never_stopped(train, recipe, tmp_path, leg, step) -> None:
    whole = train(recipe, tmp_path / "whole")

    def stop(progress):
        there = progress.validation is not None if step is None else progress.step == step
        if progress.epoch == leg and there:
            raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out, progress=stop)
    resumed = train(recipe, out)
    assert same(resumed, whole)
    assert resumed.history == whole.history
    assert not same(whole, train(replace(recipe, seed=2), tmp_path / "other"))


RECORDED = {
    "mamba": [5.458090543746948, 5.274481534957886, 5.1835455894470215],
    "mamba2": [5.504773378372192, 5.420396208763123, 5.351449489593506],
}
"""Losses of version 0.1.0, which gave these weights to the bit."""


def test_losses_are_those_recorded(validation: Split, recipe: LanguageRecipe, tmp_path) -> None:
    """Three legs over two pools, with a second course; elsewhere sums have another order."""
    more = {"layers": 2} if recipe.family == "mamba" else {"norm_kind": "layer"}
    recipe = replace(
        recipe,
        model=replace(recipe.model, **more),
        schedule=replace(recipe.schedule, every=4, more=3),
    )
    stories = Pool([story(k, 200).encode() for k in range(100, 110)], 16)
    pools = [(0.7, stories), (0.3, Pool([b"hello world, " * 30], 16))]
    found = train_task(LanguageTask(recipe, pools, validation), tmp_path / "out").history
    losses = [leg["loss"] for leg in found]
    assert losses == pytest.approx(RECORDED[recipe.family], rel=1e-4)


def test_a_last_leg_may_be_short(train, recipe: LanguageRecipe, tmp_path: Path) -> None:
    recipe = replace(recipe, schedule=replace(recipe.schedule, steps=5, every=3))
    seen = []
    result = train(recipe, tmp_path / "out", progress=seen.append)
    assert [leg["steps"] for leg in result.history] == [3, 5]
    ends = [(p.epoch, p.step, p.steps) for p in seen if p.validation is not None]
    assert ends == [(1, 3, 3), (2, 2, 2)]


def test_a_run_of_other_text_is_refused(train, recipe, validation, tmp_path) -> None:
    train(recipe, tmp_path / "out")
    with pytest.raises(RunError, match="differs in recipe"):
        train(replace(recipe, seed=9), tmp_path / "out")
    other = Pool([story(7, 200).encode()], 16)
    with pytest.raises(RunError, match="differs in text"):
        train_task(LanguageTask(recipe, [(1.0, other)], validation), tmp_path / "out")


def test_divergence_is_said(train, recipe: LanguageRecipe, tmp_path: Path) -> None:
    wild = replace(recipe.optimizer, lr=1e30, clip=1e30)
    with pytest.raises(SensprobeError, match="not finite in step"):
        train(replace(recipe, optimizer=wild), tmp_path / "out")


# -- windows --------------------------------------------------------------------------------------


def test_every_place_in_every_document_is_drawn_alike() -> None:
    documents = [b"abcdef", b"xy", b"ghijklmnop", b"0123"]
    pool = Pool(documents, length=3)
    drawn = pool.draw(7000, torch.Generator().manual_seed(0))
    found = [bytes(row.tolist()) for row in drawn]
    places = {d[k : k + 4] for d in documents for k in range(len(d) - 3)}
    assert len(places) == 3 + 7 + 1
    counts = {place: found.count(place) for place in places}
    assert sum(counts.values()) == 7000
    expected = 7000 / len(places)
    assert all(abs(n - expected) < 5 * expected**0.5 for n in counts.values())


def test_text_shorter_than_a_window() -> None:
    with pytest.raises(DataError, match="longer than \\[text\\] length = 8"):
        Pool([b"12345678", b"1"], 8)


def test_shares_of_two_texts(
    train, recipe: LanguageRecipe, validation: Split, monkeypatch, tmp_path
):
    seen = []
    original = LanguageTask.loss
    monkeypatch.setattr(
        LanguageTask,
        "loss",
        lambda task, p, batch: seen.append(batch.clone()) or original(task, p, batch),
    )
    recipe = replace(recipe, schedule=replace(recipe.schedule, steps=30, every=30))
    pools = [(0.75, Pool([b"a" * 99], 16)), (0.25, Pool([b"b" * 99], 16))]
    train_task(LanguageTask(recipe, pools, validation), tmp_path / "out")
    first = torch.cat(seen)[:, 0]
    share = (first == ord("b")).double().mean().item()
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / 240) ** 0.5


# -- the start ------------------------------------------------------------------------------------


def test_the_start_is_as_published(recipe: LanguageRecipe) -> None:
    config = replace(recipe.model, layers=4, d_model=64)
    params = initial(replace(recipe, model=config, seed=0))
    bias = params["layers.1.dt_proj.bias" if recipe.family == "mamba" else "layers.1.dt_bias"]
    dt = torch.nn.functional.softplus(bias.double())
    assert dt.min() > 0.99e-3
    assert dt.max() < 0.101
    A = params["layers.0.A_log"].exp()
    assert A.min() > 0.99
    assert A.max() < (3.01 if recipe.family == "mamba" else 16)
    assert params["embedding.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    out = params["layers.3.out_proj.weight"]
    assert out.abs().max().item() == pytest.approx(128**-0.5 / 2, rel=0.01)
    inner = params["layers.0.in_proj.weight"]
    assert inner.abs().max().item() == pytest.approx(1 / 8, rel=0.01)
    assert (params["layers.2.norm.weight"] == 1).all()
    again, other = (initial(replace(recipe, model=config, seed=seed)) for seed in (0, 1))
    assert all(torch.equal(params[k], again[k]) for k in params)
    assert not torch.equal(params["embedding.weight"], other["embedding.weight"])


def test_gradients_reach_every_parameter(recipe: LanguageRecipe) -> None:
    """Also A and dt, whose exponential is of our own making."""
    params = initial(replace(recipe, seed=0))
    for p in params.values():
        p.requires_grad_()
    network(params, recipe.model)(torch.arange(40).view(2, 20)).square().mean().backward()
    assert {n for n, p in params.items() if p.grad is None or not p.grad.any()} == set()
    x = torch.linspace(-3, 0, 7, requires_grad=True)
    exponential(x).sum().backward()
    torch.testing.assert_close(x.grad, x.detach().exp())


def test_recomputed_layers_train_the_same_weights(
    recipe: LanguageRecipe, validation: Split, tmp_path: Path
) -> None:
    pool = Pool([story(k, 200).encode() for k in range(100, 110)], 16)
    task = LanguageTask(recipe, [(1.0, pool)], validation)
    plain = train_task(task, tmp_path / "plain")
    again = train_task(replace(task, layer=recomputed), tmp_path / "again")
    assert again.weights.read_bytes() == plain.weights.read_bytes()
    step = task.step_bytes()
    assert 0 < step.least(task.batch) <= step.kept(task.batch)


# -- recipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mamba-bytes", "mamba2-bytes"])
def test_shipped_recipes_make_models_of_at_most_8_megabytes(name: str) -> None:
    recipe = language_recipe_from(read_document(recipes()[name]), name)
    count = sum(p.numel() for p in initial(recipe).values())
    assert count > 1e6
    assert 4 * count < 8e6
    assert f"{count:,} parameters" in recipes()[name].read_text()


@pytest.mark.parametrize(
    ("table", "change", "says"),
    [
        (None, {"family": "s4d"}, "family is 's4d'; it must be s5 or mamba or mamba2"),
        (None, {"texts": 1}, "unknown entry texts"),
        (None, {"model": 1}, r"table \[model\] is missing"),
        (None, {"schedule": 1}, r"table \[schedule\] is missing"),
        ("model", {"d_output": 9}, "d_output cannot be chosen"),
        ("model", {"d_modell": 9}, "unknown key"),
        ("text", {"length": 4}, "length must be at least 8"),
        ("text", {"pydoc": 1.5}, "pydoc must be from 0 to 1"),
        ("optimizer", {"clip": 0}, "clip must be above 0"),
        ("optimizer", {"beta2": 1}, "beta2 must be"),
        ("schedule", {"every": 0}, "every must be at least 1"),
        ("schedule", {"warmup": 1}, "warmup must be"),
        ("schedule", {"more": -1}, "more must not be negative"),
    ],
)
def test_recipes_nothing_can_be_made_of(table: str | None, change: dict, says: str) -> None:
    wrong = document()
    if table is None:
        wrong |= change
    else:
        wrong[table] = {**wrong[table], **change}
    with pytest.raises(UsageError, match=says):
        language_recipe_from(wrong, "test")


def test_a_second_course_starts_over_from_half_the_rate() -> None:
    first, both = Steps(100, 10, 0.1), Steps(100, 10, 0.1, more=50)
    assert (first.total, both.total) == (100, 150)
    rates = [both.rate(step) for step in range(both.total)]
    assert rates[:100] == [first.rate(step) for step in range(100)]
    assert max(rates[:100]) > 0.99
    assert 0.49 < max(rates[100:]) <= 0.5
    assert max(rates[99], rates[149]) < 0.01
    assert rates[100] < rates[104] > rates[140]


def test_training_takes_the_steps_of_both_courses(
    train, recipe: LanguageRecipe, tmp_path: Path
) -> None:
    """The first is that of a recipe without a second."""
    longer = replace(recipe, schedule=replace(recipe.schedule, more=4))
    short, found = train(recipe, tmp_path / "short"), train(longer, tmp_path / "long")
    assert [leg["steps"] for leg in found.history] == [2, 4, 6, 8, 10]
    assert found.history[:3] == short.history
    assert not same(short, found)
