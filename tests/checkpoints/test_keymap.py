"""model.toml with a key map: any file of tensors, its names said to be ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders import PLAIN, tiny
from builders import parameters as s4d_parameters
from checkpoint_files import CONFIG, DOCUMENT, KEYS, one_block, refusal
from safetensors.torch import save_file
from selective import tiny as selective

from sensprobe.checkpoints import read_checkpoint
from sensprobe.checkpoints.keymap import Rule
from sensprobe.models import FAMILIES


def written(folder: Path, keys: str = KEYS, text: str = DOCUMENT, **changes) -> Path:
    tensors = {k: v for k, v in (one_block() | changes).items() if v is not None}
    save_file(tensors, folder / "w.safetensors")
    (folder / "model.toml").write_text(text + keys)
    return folder / "model.toml"


def test_a_file_of_other_names_comes_back_to_the_bit(tmp_path):
    model, _ = read_checkpoint(written(tmp_path))
    want = selective(CONFIG)
    assert model.config == CONFIG
    assert all(torch.equal(w, want.weights[name]) for name, w in model.weights.items())


@pytest.mark.parametrize("inside", [None, "state_dict", "model"])
def test_a_torch_file_too(tmp_path, inside):
    state = one_block()
    torch.save({inside: state, "epoch": 3} if inside else state, tmp_path / "w.pt")
    path = tmp_path / "model.toml"
    path.write_text(DOCUMENT.replace("w.safetensors", "w.pt") + KEYS)
    assert read_checkpoint(path)[0].config == CONFIG


def test_s4d_too(tmp_path):
    state = {f"net.{name}": p for name, p in s4d_parameters(PLAIN).items()}
    save_file(state, tmp_path / "w.safetensors")
    path = tmp_path / "model.toml"
    path.write_text(
        'file = "w.safetensors"\nfamily = "s4d"\nkeys = { "net.*" = "*" }\n'
        "config = { d_input = 1, d_output = 3, d_model = 4, d_state = 3 }\n"
    )
    model, _ = read_checkpoint(path)
    assert all(torch.equal(w, tiny().weights[name]) for name, w in model.weights.items())


def test_what_is_not_wanted_may_be_left_unread(tmp_path):
    extra = {"optimizer.step": torch.zeros(1)}
    assert "left over: optimizer.step" in refusal(written(tmp_path, **extra))
    read_checkpoint(written(tmp_path, KEYS + '"optimizer.*" = ""\n', **extra))


@pytest.mark.parametrize(
    ("keys", "changes", "says"),
    [
        (
            KEYS.replace('"linear_in.*" = "encoder.*"\n', ""),
            {},
            [
                "missing: encoder.weight, encoder.bias",
                "left over: linear_in.bias, linear_in.weight",
            ],
        ),
        (
            KEYS.replace("layers.0.conv", "layers.0.convolution"),
            {},
            [
                "missing: layers.0.conv.weight, layers.0.conv.bias",
                "layers.0.convolution.bias (in the file mamba.conv1d.bias)",
            ],
        ),
        (KEYS, {"mamba.D": None}, ["missing: layers.0.D."]),
        (
            KEYS,
            {"mamba.D": torch.zeros(8, 2)},
            ["layers.0.D (in the file mamba.D) is (8, 2), needed (8,)"],
        ),
        (KEYS + '"mmaba.*" = "layers.0.*"\n', {}, ["keys that fit no tensor: mmaba.*"]),
        (
            KEYS + '"mamba.A_log" = "layers.0.A_log"\n',
            {},
            ["keys that fit no tensor: mamba.A_log"],
        ),
        ('"mamba.D" = "layers.0.A_log"\n' + KEYS, {}, ["both become layers.0.A_log; change"]),
        ('"mamba.D" = 3\n', {}, ["'mamba.D' is 3; write the name of one of our parameters"]),
        ('mamba.D = "layers.0.D"\n', {}, ["quote names with dots"]),
        ('"mamba.D" = "layers.{i}.D"\n', {}, ["{i} 0 time(s) on the left and 1 on the right"]),
        ('"*.*" = "layers.0.*"\n', {}, ["* 2 time(s) on the left"]),
    ],
)
def test_a_wrong_map_says_what_is_wrong(tmp_path, keys, changes, says):
    said = refusal(written(tmp_path, keys, **changes))
    for piece in says:
        assert piece in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (DOCUMENT.replace('family = "mamba"\n', ""), f"families here: {', '.join(FAMILIES)}"),
        (DOCUMENT.replace("dt_rank = 2\n", ""), "its config is incomplete"),
        (DOCUMENT.replace("dt_rank", "dtrank"), "unknown config key(s) dtrank"),
        (DOCUMENT.replace("d_state = 3", 'd_state = "three"'), "config.d_state is 'three'"),
        (DOCUMENT.replace("d_model = 4", "d_model = 4\nlayers = 999"), "says 999 layers"),
        (DOCUMENT.replace("[keys]", "").replace("[config]", "keys = 3\n[config]"), "keys is 3"),
    ],
)
def test_a_config_that_cannot_be(tmp_path, text, says):
    keys = "" if "keys = 3" in text else KEYS
    assert says in refusal(written(tmp_path, keys, text))


def test_numbers_of_layers_are_carried_over():
    rule = Rule("blocks.{i}.mixer.*", "layers.{i}.*")
    assert rule.renamed("blocks.12.mixer.dt_proj.bias") == "layers.12.dt_proj.bias"
    assert rule.renamed("blocks.x.mixer.D") is None
    assert rule.renamed("blocks.1.mixer.") is None
    assert Rule("a.b", "c").renamed("aXb") is None


def test_a_tensor_that_is_none(tmp_path):
    torch.save({"mamba.D": [1, 2]}, tmp_path / "w.pt")
    path = tmp_path / "model.toml"
    path.write_text(DOCUMENT.replace("w.safetensors", "w.pt") + KEYS)
    assert "mamba.D is of type list, not a tensor" in refusal(path)
