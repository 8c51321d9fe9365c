"""Own checkpoints and model.toml: what is written is what is read."""

import json
from dataclasses import asdict, replace

import pytest
import selective
import torch
from builders import CONFIGS, PLAIN, inputs, parameters
from checkpoint_files import s4_state, write_own, write_s4
from safetensors.torch import save_file

from sensprobe.checkpoints import read_checkpoint
from sensprobe.checkpoints.own import parameter_shapes
from sensprobe.models.s4d_layers import S4D, deploy


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_comes_back_to_the_bit(tmp_path, name):
    config = CONFIGS[name]
    model, header = read_checkpoint(write_own(tmp_path / "m.safetensors", config))
    params = {key: p.double() for key, p in parameters(config).items()}
    want = S4D(config, deploy(params, config))
    assert model.config == config == type(config)(**header["config"])
    assert set(model.weights) == set(want.weights)
    assert all(torch.equal(w, want.weights[key]) for key, w in model.weights.items())
    assert torch.equal(model(inputs(config)), want(inputs(config)))


@pytest.mark.parametrize("config", [*selective.MAMBAS.values(), *selective.MAMBA2S.values()])
def test_a_selective_model_comes_back_to_the_bit(tmp_path, config):
    want = selective.tiny(config)
    described = {"format": 1, "family": want.family, "config": asdict(config)}
    header = {"sensprobe": json.dumps(described)}
    save_file(selective.parameters(config), tmp_path / "m.safetensors", header)
    model, _ = read_checkpoint(tmp_path / "m.safetensors")
    assert model.config == config
    assert set(model.weights) == set(want.weights)
    assert all(torch.equal(w, want.weights[key]) for key, w in model.weights.items())


def test_the_header_is_given_back(tmp_path):
    recorded = {"metric": "accuracy", "value": 0.5, "n": 4, "split": "confirmation"}
    path = write_own(tmp_path / "m.safetensors", header={"recorded": recorded})
    assert read_checkpoint(path)[1]["recorded"] == recorded


def test_parameters_count_what_the_paper_counts():
    """2H² + 208H + 10 at 32 pairs, one input, ten classes (arXiv 2506.12480, table III)."""
    for h, count in ((16, 3850), (64, 21_514), (256, 184_330), (512, 630_794)):
        shapes = parameter_shapes(replace(PLAIN, d_output=10, d_model=h, d_state=32))
        assert (
            sum(torch.Size(s).numel() for s in shapes.values()) == count == 2 * h * h + 208 * h + 10
        )


# -- model.toml -----------------------------------------------------------------------------------


def toml(folder, text):
    path = folder / "model.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_toml_says_where_the_norm_stands(tmp_path, norm):
    weights = write_s4(tmp_path / "ckpt.pth")
    path = toml(tmp_path, f'file = "ckpt.pth"\nformat = "s4"\nconfig.norm = "{norm}"\n')
    model, header = read_checkpoint(path)
    want, _ = read_checkpoint(weights, norm)
    assert model.config == want.config
    assert model.config.norm == norm
    assert header["recorded"]["accuracy"] == 0.9125


def test_a_toml_needs_no_more_than_a_file(tmp_path):
    write_s4(tmp_path / "ckpt.pth")
    assert read_checkpoint(toml(tmp_path, 'file = "ckpt.pth"'))[0].config.norm == "post"
    write_own(tmp_path / "m.safetensors", CONFIGS["deep"])
    assert read_checkpoint(toml(tmp_path, 'file = "m.safetensors"'))[0].config == CONFIGS["deep"]


def test_the_file_lies_beside_the_toml(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    write_s4(tmp_path / "deep" / "ckpt.pth")
    path = toml(tmp_path / "deep", 'file = "ckpt.pth"')
    monkeypatch.chdir(tmp_path)
    assert read_checkpoint(path.relative_to(tmp_path))[0].config.layers == 2


def test_a_toml_describes_tensors_without_a_header(tmp_path):
    config = CONFIGS["last"]
    save_file(parameters(config), tmp_path / "bare.safetensors")
    lines = [f"{k} = {str(v).lower() if isinstance(v, bool) else repr(v)}"
             for k, v in asdict(config).items()]  # fmt: skip
    text = 'file = "bare.safetensors"\nfamily = "s4d"\n[config]\n' + "\n".join(lines)
    model, header = read_checkpoint(toml(tmp_path, text))
    assert model.config == config
    assert header == {}
    want, _ = read_checkpoint(write_own(tmp_path / "m.safetensors", config))
    assert torch.equal(model(inputs(config)), want(inputs(config)))


def test_a_toml_changes_what_the_header_says(tmp_path):
    write_own(tmp_path / "m.safetensors", PLAIN)
    model, _ = read_checkpoint(toml(tmp_path, 'file = "m.safetensors"\nconfig.pooling = "last"'))
    assert model.config == replace(PLAIN, pooling="last")


def test_a_norm_that_is_none_leaves_tensors_over_and_says_which(tmp_path):
    state = {name: t for name, t in s4_state().items() if not name.startswith("norms")}
    model, _ = read_checkpoint(write_s4(tmp_path / "ckpt.pth", model=state), "none")
    assert model.config.norm == "none"
