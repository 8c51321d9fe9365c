"""The weights that ship: what their headers and cards claim, measured again."""

import re

import pytest
import torch
from safetensors.torch import load_file

from sensprobe.checkpoints import read_checkpoint
from sensprobe.data import load_data
from sensprobe.train import Recipe, SampleTask, read_document, recipe_from, train_task
from sensprobe.zoo import recipes, shipped


def recipe_of(name: str) -> Recipe:
    return recipe_from(read_document(recipes()[name]), name)


NAMES = ("s4d-digits", "s5-digits", "s4d-smnist-16", "s4d-smnist-64")


def accuracy(model, split, mode):
    with torch.inference_mode():
        outputs = torch.cat([model(x, mode=mode) for x in split.x.split(200)])
    return (outputs.argmax(1) == split.y).float().mean().item()


@pytest.mark.parametrize("name", NAMES)
def test_header_recipe_and_card_agree(name):
    model, header = read_checkpoint(shipped()[name])
    assert model.config == recipe_of(name).model
    assert model.spectral_radius() < 1
    card = shipped()[name].with_suffix(".md").read_text(encoding="utf-8")
    count = sum(t.numel() for t in load_file(shipped()[name]).values())
    assert f"| parameters | {count:,}" in card
    radius = re.search(r"\| max abs\(Ā\) \| ([\d.]+) \|", card).group(1)
    assert float(radius) == pytest.approx(model.spectral_radius(), abs=6e-5)
    recorded = header["recorded"]
    assert recorded["split"] == "confirmation"
    claimed = re.search(r"\*\*([\d.]+) ± ([\d.]+) %\*\* \(standard error, n = ([\d,]+),", card)
    value, n = recorded["value"], recorded["n"]
    error = 100 * (value * (1 - value) / n) ** 0.5
    assert claimed.groups() == (f"{100 * value:.2f}", f"{error:.2f}", f"{n:,}")


@pytest.mark.parametrize(
    ("name", "h", "bar"), [("s4d-smnist-16", 16, 97), ("s4d-smnist-64", 64, 98.5)]
)
def test_smnist_models_are_the_published_size_and_good_enough(name, h, bar):
    count = sum(t.numel() for t in load_file(shipped()[name]).values())
    assert count == 2 * h**2 + 208 * h + 10
    assert 100 * read_checkpoint(shipped()[name])[1]["recorded"]["value"] >= bar


@pytest.mark.parametrize("mode", ["recurrent", "fft"])
def test_digits_score_what_is_recorded(mode):
    model, header = read_checkpoint(shipped()["s4d-digits"])
    split = load_data("digits").splits["confirmation"]
    assert header["recorded"]["n"] == len(split)
    # One image may fall the other way where another machine sums in another order.
    assert abs(accuracy(model, split, mode) - header["recorded"]["value"]) < 1.5 / len(split)


@pytest.mark.slow
def test_the_digits_recipe_makes_such_a_model(tmp_path):
    splits = load_data("digits").splits
    train, held_out = splits["train"], splits["search"]
    task = SampleTask(recipe_of("s4d-digits"), (train.x, train.y), (held_out.x, held_out.y))
    assert train_task(task, tmp_path).value > 0.97
