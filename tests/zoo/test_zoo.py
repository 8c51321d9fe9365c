"""What ships: complete, of the size the literature names, and as good as its cards say."""

import os
import re
import tomllib
from math import sqrt
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from sensprobe import zoo
from sensprobe.checkpoints import read_checkpoint
from sensprobe.data import load_data
from sensprobe.evaluate import Evaluator, mean
from sensprobe.models.apply import Applier

HEADS = {"s4d-digits": 16, "s4d-smnist-16": 16, "s4d-smnist-64": 64}
PAIRS = {"s4d-digits": 8, "s4d-smnist-16": 32, "s4d-smnist-64": 32}
BAR = {"s4d-digits": 0.95, "s4d-smnist-16": 0.97, "s4d-smnist-64": 0.985}
KEPT_BACK = {"s4d-digits": 400, "s4d-smnist-16": 10_000, "s4d-smnist-64": 10_000}
LANGUAGE = {"mamba-bytes", "mamba2-bytes"}  # see test_language.py
MIMO = {"s5-digits"}
each = pytest.mark.parametrize("name", HEADS)


def card(name):
    return zoo.shipped()[name].with_suffix(".md").read_text(encoding="utf-8")


def row(name, label):
    """The second cell of a card's row."""
    (found,) = re.findall(rf"^\| {re.escape(label)} \| (.*) \|$", card(name), re.MULTILINE)
    return found


def test_every_model_ships_with_its_recipe_and_its_card():
    assert set(zoo.shipped()) == set(zoo.recipes()) == set(HEADS) | LANGUAGE | MIMO
    for name, path in zoo.shipped().items():
        assert path.suffix == ".safetensors"
        assert card(name).startswith(f"# {name}\n")
        assert zoo.recipes()[name].suffix == ".toml"


def test_the_package_carries_them():
    """Weights, recipes and cards are package data, or an installed package has no models."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    data = tomllib.loads(project.read_text())["tool"]["setuptools"]["package-data"]["sensprobe"]
    assert {"**/*.safetensors", "**/*.toml", "**/*.md"} <= set(data)


@each
def test_the_parameters_count_what_the_published_model_does(name):
    """2H² + 208H + 10 at 32 pairs; each pair fewer saves 6 numbers a head."""
    h, n = HEADS[name], PAIRS[name]
    with safe_open(zoo.shipped()[name], "pt") as file:
        count = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float32}  # noqa: SIM118
    assert count == 2 * h**2 + 208 * h + 10 - 6 * h * (32 - n)
    assert row(name, "parameters").split(" ")[0] == f"{count:,}"


@each
def test_the_card_describes_the_model_in_the_file(name):
    model, _ = read_checkpoint(zoo.shipped()[name])
    config = model.config
    said = row(name, "model")
    assert said.startswith(
        f"S4D, {config.layers} layer, {config.d_model} heads of {config.d_state} complex pairs"
    )
    assert (config.d_model, config.d_state) == (HEADS[name], PAIRS[name])
    assert ("no norm" in said, "no residual" in said) == (
        config.norm == "none",
        not config.residual,
    )
    assert (config.activation, config.pooling) == ("gelu", "mean")
    assert config.d_input == 1
    assert "steps of one value in [0, 1]" in row(name, "input, output")
    assert f"{config.d_output} classes" in row(name, "input, output")
    radius = row(name, "max abs(Ā)")
    assert float(radius) == pytest.approx(model.spectral_radius(), abs=0.6 * 10 ** -len(radius[2:]))


@each
def test_the_card_claims_what_the_file_records(name):
    _, header = read_checkpoint(zoo.shipped()[name])
    recorded = header["recorded"]
    assert set(recorded) >= {"metric", "value", "n", "split"}
    assert (recorded["metric"], recorded["split"]) == ("accuracy", "confirmation")
    assert recorded["n"] == KEPT_BACK[name]
    assert BAR[name] <= recorded["value"] < 1
    assert recorded["value"] * recorded["n"] == pytest.approx(
        round(recorded["value"] * recorded["n"]), abs=1e-6
    )
    value, error, n = re.match(
        r"\*\*([\d.]+) ± ([\d.]+) %\*\* \(standard error, n = ([\d,]+),", row(name, "accuracy")
    ).groups()
    assert value == f"{100 * recorded['value']:.2f}"
    assert n == f"{recorded['n']:,}"
    p = recorded["value"]
    assert float(error) == pytest.approx(100 * sqrt(p * (1 - p) / recorded["n"]), abs=0.0051)


def measured(name, data, split):
    """Accuracy as `sensprobe eval` measures it."""
    model, _ = read_checkpoint(zoo.shipped()[name])
    samples = load_data(data).splits[split]
    evaluator = Evaluator(model, Applier(model), samples, "classification", divergence=False)
    return mean(evaluator.evaluate({}, 0, len(samples))["correct"])


@pytest.mark.parametrize("name", ["s4d-digits", "s5-digits"])
def test_the_digits_models_score_what_they_record(name):
    """One image may fall the other way where another machine sums in another order."""
    _, header = read_checkpoint(zoo.shipped()[name])
    score, recorded = measured(name, "digits", "confirmation"), header["recorded"]
    assert score.n == recorded["n"]
    assert abs(score.value - recorded["value"]) < 1.5 / score.n
    (line,) = re.findall(r"^\| \| ([\d.]+) ± [\d.]+ % \(n = 400", card(name), re.MULTILINE)
    assert abs(100 * measured(name, "digits", "search").value - float(line)) < 150 / 400


@pytest.mark.slow
@pytest.mark.skipif("SENSPROBE_DATA" not in os.environ, reason="SENSPROBE_DATA names no folder")
@pytest.mark.parametrize("name", ["s4d-smnist-16", "s4d-smnist-64"])
def test_the_mnist_models_score_what_they_record(name):
    recorded = read_checkpoint(zoo.shipped()[name])[1]["recorded"]
    score = measured(name, f"mnist:{os.environ['SENSPROBE_DATA']}/mnist", "confirmation")
    assert score.n == recorded["n"]
    assert abs(score.value - recorded["value"]) < 3.5 / score.n
