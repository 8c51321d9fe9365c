"""Recipes: what is read, and what is refused in words a person can act on."""

import re
from pathlib import Path

import pytest

from sensprobe.errors import UsageError
from sensprobe.train import Recipe, read_document, recipe_from
from sensprobe.train.recipe import document_of
from sensprobe.zoo import recipes


def read_recipe(path: Path) -> Recipe:
    return recipe_from(read_document(path), str(path))


FULL = """
seed = 7
[model]
d_input = 1
d_output = 10
d_model = 16
d_state = 32
norm = "none"
residual = false
[data]
source = "mnist"
[optimizer]
lr = 1
ssm_lr = 2e-3
weight_decay = 0.01
batch = 50
average = 0.9995
[schedule]
epochs = 16
warmup = 0.02
"""


def test_reads_every_table(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(FULL)
    recipe = read_recipe(path)
    assert recipe.seed == 7
    assert recipe.model.d_state == 32
    assert recipe.model.residual is False
    assert recipe.optimizer.lr == 1.0
    assert isinstance(recipe.optimizer.lr, float)
    assert recipe.data.image == ()
    assert (recipe.init.dt_min, recipe.init.dt_max) == (0.001, 0.1)


@pytest.mark.parametrize("name", ["s4d-digits", "s4d-smnist-16", "s4d-smnist-64"])
def test_recipes_that_ship_are_read(name):
    assert read_recipe(recipes()[name]).schedule.epochs >= 1


def test_source_may_name_its_place(document):
    document["data"]["source"] = "npz:mine.npz"
    assert recipe_from(document, "test").data.source == "npz:mine.npz"


@pytest.mark.parametrize("source", ["listops,length=64", "mnist:a,order=permuted", "keywords:k"])
def test_source_may_have_options(document, source):
    document["data"]["source"] = source
    assert recipe_from(document, "test").data.source == source


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"no recipe can be read at .*none\.toml"):
        read_recipe(tmp_path / "none.toml")


def test_not_toml(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("[model")
    with pytest.raises(UsageError, match="not valid TOML"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(sede=1), "unknown entry sede; a recipe has data, family, init, model"),
        (lambda d: d.pop("schedule"), "the table [schedule] is missing"),
        (lambda d: d["optimizer"].update(rl=1.0), "[optimizer] has unknown key(s) rl; it takes lr"),
        (lambda d: d["optimizer"].pop("lr"), "[optimizer] lacks lr"),
        (lambda d: d["model"].pop("d_state"), "[model] lacks d_state"),
        (lambda d: d["model"].update(d_model="six"), "d_model is 'six'; it must be of type int"),
        (lambda d: d["model"].update(d_model=True), "d_model is True; it must be of type int"),
        (lambda d: d["model"].update(norm="batch"), "norm must be none, pre or post"),
        (lambda d: d["data"].update(source="imagenet"), "source must be one of digits, mnist"),
        (lambda d: d["data"].update(image=[4.0, 4]), "it must be a list of integers"),
        (lambda d: d["data"].update(image=[]), "image must give rows and columns"),
        (lambda d: d["schedule"].update(epochs=0), "epochs must be at least 1"),
        (lambda d: d["schedule"].update(every=-1), "every must not be negative"),
        (lambda d: d["schedule"].update(warmup=1.0), "warmup must be at least 0 and below 1"),
        (lambda d: d["optimizer"].update(lr=0.0), "lr and ssm_lr must be above 0"),
        (lambda d: d["optimizer"].update(lr=float("nan")), "lr and ssm_lr must be above 0"),
        (lambda d: d["optimizer"].update(dropout=1.0), "dropout must be at least 0 and below 1"),
        (lambda d: d["optimizer"].update(average=1.0), "average must be at least 0 and below 1"),
        (lambda d: d["init"].update(dt_min=1.0), "0 < dt_min <= dt_max"),
        (lambda d: d.update(seed=-1), "seed must not be negative"),
    ],
)
def test_what_no_run_could_use_is_refused(document, change, message):
    change(document)
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        recipe_from(document, "here.toml")
    assert str(caught.value).startswith("here.toml")


def test_every_broken_rule_is_named_at_once(document):
    document["schedule"]["epochs"] = 0
    document["optimizer"]["batch"] = 0
    with pytest.raises(UsageError, match=r"batch must be at least 1; .*epochs must be at least 1"):
        recipe_from(document, "here.toml")


def test_a_recipe_may_be_of_any_family(document):
    document["family"] = "s5"
    recipe = recipe_from(document, "test")
    assert (type(recipe.model).__name__, recipe.model.d_state) == ("S5Config", 4)
    for wrong in ("s6", ["s5"]):
        document["family"] = wrong
        with pytest.raises(UsageError, match="must be s4d or s5 or mamba or mamba2"):
            recipe_from(document, "test")


def test_a_snapshot_of_before_dropout_is_of_the_same_recipe(document):
    """Its identity does not say what it could not say then."""
    found = document_of(recipe_from(document, "test"))
    assert set(found) == {"model", "data", "optimizer", "schedule", "init", "seed"}
    assert "dropout" not in found["optimizer"]
    document |= {"family": "mamba", "optimizer": {**document["optimizer"], "dropout": 0.1}}
    document["model"] = {"d_input": 1, "d_output": 3, "d_model": 4, "dt_rank": 1}
    found = document_of(recipe_from(document, "test"))
    assert (found["family"], found["optimizer"]["dropout"]) == ("mamba", 0.1)
