"""Checkpoints as training leaves them: prefixes on names, averages and optimizers beside it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import CONFIGS, parameters, tiny
from checkpoint_files import (
    CONFIG,
    DOCUMENT,
    KEYS,
    one_block,
    refusal,
    s4_state,
    write_own,
    write_s4,
)
from language_models import HF, HF_CONFIG, theirs, write
from safetensors.torch import save_file
from selective import parameters as selective_parameters
from selective import tiny as selective

from sensprobe.checkpoints import entries, read_checkpoint
from sensprobe.checkpoints.prefixes import variants
from sensprobe.models import Model

PREFIXES = ["module.", "_orig_mod.", "model.", "net.", "base_model.model.", "_orig_mod.module."]
State = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def _said_anew() -> None:
    entries.note.cache_clear()


def is_the_model(path: Path, want: Model) -> bool:
    weights = read_checkpoint(path)[0].weights
    return all(torch.equal(w, want.weights[name]) for name, w in weights.items())


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: t for name, t in state.items()}


def keyed(folder: Path, content: Any, more: str = "", name: str = "w.pt") -> Path:
    """A model.toml with a key map over what a torch file (or safetensors) holds."""
    if name.endswith(".safetensors"):
        save_file(content, folder / name)
    else:
        torch.save(content, folder / name)
    path = folder / "model.toml"
    path.write_text(more + DOCUMENT.replace("w.safetensors", name) + KEYS)
    return path


BLOCK, DEEP = selective(CONFIG), CONFIGS["deep"]


# -- prefixes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_training_is_taken_off_where_that_gives_a_fit(tmp_path, prefix):
    """In files of state-spaces/s4, folders, own files and key maps alike."""
    want = read_checkpoint(write_s4(tmp_path / "plain.pth"))[0]
    assert is_the_model(write_s4(tmp_path / "s4.pth", model=prefixed(s4_state(), prefix)), want)

    params = prefixed(parameters(DEEP), prefix)
    assert is_the_model(write_own(tmp_path / "own.safetensors", DEEP, params=params), tiny(DEEP))

    assert is_the_model(keyed(tmp_path, prefixed(one_block(), prefix)), BLOCK)

    folder = write(tmp_path / "lm", HF_CONFIG, HF, "model.safetensors")
    want = read_checkpoint(folder)[0]
    tensors = theirs(selective_parameters(HF), "embeddings")
    save_file(prefixed(tensors, prefix), folder / "model.safetensors")
    assert is_the_model(folder, want)


def test_a_compiled_layer_has_the_prefix_inside(tmp_path):
    state = {n.replace("layers.0.", "layers.0._orig_mod."): t for n, t in parameters(DEEP).items()}
    own = write_own(tmp_path / "own.safetensors", DEEP, params=prefixed(state, "model."))
    assert is_the_model(own, tiny(DEEP))


def test_what_does_not_fit_is_said_with_the_prefix_it_has_in_the_file(tmp_path):
    state = prefixed(parameters(DEEP), "module.") | {"criterion.weight": torch.ones(3)}
    said = refusal(write_own(tmp_path / "own.safetensors", DEEP, params=state))
    assert "left over: criterion.weight. Names are read without their prefix module." in said
    state = {name: torch.ones(2) for name in ("module.a", "module.b", "net.c")}
    said = refusal(write_own(tmp_path / "own.safetensors", params=state))
    assert "Without their prefix" in said
    state = {f"{n.partition('.')[0]}_2.{n}": t for n, t in s4_state().items()}
    said = refusal(write_s4(tmp_path / "s4.pth", model=state))
    assert "behind a prefix that not all of them have (s4_layers_2.s4_layers.0.D)" in said


def test_names_that_fit_as_they_are_keep_what_looks_like_a_prefix(tmp_path):
    path = keyed(tmp_path, prefixed(one_block(), "model."))
    path.write_text(path.read_text().replace('\n"', '\n"model.'))
    assert is_the_model(path, BLOCK)


def test_two_names_never_become_one():
    assert list(variants(["model.a", "a"])) == [("", {"model.a": "model.a", "a": "a"})]


# -- entries --------------------------------------------------------------------------------------

OPTIMIZER = {"state": {0: {"step": torch.ones(1), "exp_avg": torch.ones(3)}}, "param_groups": []}


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": "it", "epoch": 3, "optimizer_states": [OPTIMIZER], "hyper_parameters": {}},
        {"model_state_dict": "it", "optimizer_state_dict": OPTIMIZER, "loss": torch.ones(2)},
        {"params": "it", "hparams": {"class_weights": torch.ones(3)}},
        {"net": "it", "optimizer": OPTIMIZER, "scheduler": {"x": torch.ones(2)}},
        {"checkpoint": {"model": "it", "optim": OPTIMIZER}},
        {"weights": "it", "callbacks": {"best": {"score": torch.tensor(0.5)}}},
    ],
)
def test_the_one_entry_that_can_be_the_model_is_read_without_a_word(tmp_path, content, caplog):
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: filled(inner) for name, inner in value.items()}
        return prefixed(one_block(), "model.") if value == "it" else value

    with caplog.at_level(logging.WARNING):
        assert is_the_model(keyed(tmp_path, filled(content)), BLOCK)
    assert not caplog.records


@pytest.mark.parametrize("ema", ["ema", "ema_state_dict", "model_ema", "averaged_model"])
def test_raw_weights_are_read_beside_averaged_ones_unless_the_toml_says_otherwise(
    tmp_path, ema, caplog
):
    averaged = {name: t / 2 for name, t in one_block().items()}
    path = keyed(tmp_path, {"model": one_block(), ema: averaged})
    with caplog.at_level(logging.WARNING):
        assert is_the_model(path, BLOCK)
    (record,) = caplog.records
    assert f"holds `model` (13 tensors: {next(iter(averaged))}" in record.message
    assert f'`model` is read; entry = "{ema}" in a model.toml reads the other.' in record.message
    keyed(tmp_path, {"model": one_block(), ema: averaged}, f'entry = "{ema}"')
    model = read_checkpoint(path)[0]
    assert torch.equal(model.weights["head"], BLOCK.weights["head"] / 2)


@pytest.mark.parametrize(
    ("trained", "average"), [("online_model.", "ema_model."), ("net.", "ema.module.")]
)
def test_an_average_among_the_names_is_an_entry_too(tmp_path, trained, average):
    """As libraries that keep both in one module write them, in safetensors too."""
    halves = {name: t / 2 for name, t in one_block().items()}
    flat = prefixed(one_block(), trained) | prefixed(halves, average)
    flat |= {"step": torch.tensor([7]), "initted": torch.tensor([True])}
    assert is_the_model(keyed(tmp_path, flat), BLOCK)
    path = keyed(tmp_path, flat, f'entry = "{average.partition(".")[0]}"', "w.safetensors")
    assert torch.equal(read_checkpoint(path)[0].weights["head"], BLOCK.weights["head"] / 2)


def test_averages_alone_are_read_and_said_to_be(tmp_path, caplog):
    swa = prefixed(one_block(), "module.") | {"n_averaged": torch.tensor(5)}
    with caplog.at_level(logging.WARNING):
        assert is_the_model(keyed(tmp_path, {"swa_state": swa}), BLOCK)
    assert "holds averaged weights alone: `swa_state` is read" in caplog.text


def test_several_that_may_be_meant_are_listed(tmp_path):
    two = {"generator": one_block(), "critic": one_block(), "optimizer": OPTIMIZER}
    said = refusal(keyed(tmp_path, two))
    assert "holds 2 entries that may be the model: `generator` (13 tensors: " in said
    assert "`critic` (13 tensors: " in said
    assert 'Say which in a model.toml: entry = "generator"' in said
    assert is_the_model(keyed(tmp_path, two, 'entry = "critic"'), BLOCK)
    said = refusal(keyed(tmp_path, two, 'entry = "ema"'))
    assert "there is no entry 'ema' of tensors. It holds `generator`" in said
    assert "entry is 3; write the name" in refusal(keyed(tmp_path, two, "entry = 3"))


def test_an_s4_file_knows_its_own_among_several(tmp_path, caplog):
    want = read_checkpoint(write_s4(tmp_path / "plain.pth"))[0]
    other = {"encoder.weight": torch.ones(3, 2)}
    path = write_s4(tmp_path / "ckpt.pth", discriminator=other)
    assert is_the_model(path, want)
    halves = {name: t / 2 for name, t in s4_state().items()}
    write_s4(tmp_path / "ckpt.pth", ema=prefixed(halves, "module."))
    with caplog.at_level(logging.WARNING):
        assert is_the_model(path, want)
    assert "`model` is read" in caplog.text
    (tmp_path / "model.toml").write_text('file = "ckpt.pth"\nentry = "ema"')
    head = read_checkpoint(tmp_path / "model.toml")[0].weights["head"]
    assert torch.equal(head, want.weights["head"] / 2)


def test_what_a_file_of_another_kind_holds_is_said(tmp_path):
    torch.save({"state_dict": {"blocks.0.w": torch.ones(2)}, "epoch": 1}, tmp_path / "m.ckpt")
    said = refusal(tmp_path / "m.ckpt")
    assert "It holds `state_dict` (1 tensors: blocks.0.w). Describe another kind of" in said


def test_a_file_without_named_tensors_says_what_it_holds(tmp_path):
    said = refusal(keyed(tmp_path, {"decay": 0.9, "shadow_params": [torch.ones(2)]}))
    assert "no tensors by name: `decay` is of type float, `shadow_params` is of type list" in said


def test_counters_and_notes_are_left_unread_and_whole_numbers_for_a_weight_are_not(tmp_path):
    notes = {"bn.num_batches_tracked": torch.tensor(9), "ids": torch.arange(4), "epoch": 3}
    path = keyed(tmp_path, one_block() | notes)
    assert is_the_model(path, BLOCK)
    mapped = {"position_ids": torch.arange(4)}
    path = keyed(tmp_path, one_block() | mapped)
    path.write_text(path.read_text() + '"position_ids" = ""\n')
    assert is_the_model(path, BLOCK)
    whole = one_block() | {"mamba.D": torch.ones(8, dtype=torch.int64)}
    assert "mamba.D holds torch.int64 numbers" in refusal(keyed(tmp_path, whole))
