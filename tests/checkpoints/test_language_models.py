"""Folders of mamba_ssm and transformers: what they mean, and what is said of others."""

from __future__ import annotations

import json
from dataclasses import replace
from fnmatch import fnmatch
from math import prod
from pathlib import Path

import pytest
import torch
from checkpoint_files import refusal
from language_models import (
    HF,
    HF_CONFIG,
    LAYERS,
    PADDED,
    SSM,
    SSM2,
    SSM2_CONFIG,
    SSM_CONFIG,
    VOCABULARY,
    WIDTH,
    N,
    shard,
    theirs,
    write,
)
from selective import inputs, parameters, tiny

import sensprobe
from sensprobe import api
from sensprobe.checkpoints import hf, mamba_ssm, open_checkpoint, read_checkpoint
from sensprobe.checkpoints.own import parameter_shapes
from sensprobe.errors import DataError, UnsupportedError, UsageError
from sensprobe.models.layouts import UNLIMITED, limits_of_dt
from sensprobe.session.source import open_model

# -- configs --------------------------------------------------------------------------------------


def test_a_config_of_mamba_ssm():
    assert mamba_ssm.config_from(SSM_CONFIG, Path("c")) == SSM
    assert mamba_ssm.config_from(SSM2_CONFIG, Path("c")) == SSM2


@pytest.mark.parametrize(
    ("document", "count"),
    [
        # Published sizes of state-spaces/mamba-130m, mamba-1.4b, mamba-2.8b and mamba2-130m.
        ({"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}}, 129_135_360),
        ({"d_model": 2048, "n_layer": 48, "vocab_size": 50277, "ssm_cfg": {}}, 1_372_178_432),
        ({"n_layer": 64, "ssm_cfg": {}}, 2_768_345_600),
    ],
)
def test_missing_keys_take_the_defaults_of_mamba_ssm(document, count):
    config = mamba_ssm.config_from(document, Path("config.json"))
    assert sum(prod(shape) for shape in parameter_shapes(config).values()) == count


def test_a_layer_of_published_mamba2_has_the_shapes_of_its_file():
    """As torch.load lists state-spaces/mamba2-1.3b."""
    document = {
        "d_model": 2048,
        "n_layer": 48,
        "vocab_size": 50277,
        "ssm_cfg": {"layer": "Mamba2"},
        "pad_vocab_size_multiple": 16,
    }
    shapes = parameter_shapes(mamba_ssm.config_from(document, Path("config.json")))
    recorded = {
        "embedding.weight": (50288, 2048),
        "layers.0.norm.weight": (2048,),
        "layers.0.dt_bias": (64,),
        "layers.0.A_log": (64,),
        "layers.0.D": (64,),
        "layers.0.in_proj.weight": (8512, 2048),
        "layers.0.conv.weight": (4352, 1, 4),
        "layers.0.conv.bias": (4352,),
        "layers.0.gated_norm.weight": (4096,),
        "layers.0.out_proj.weight": (2048, 4096),
        "final.norm.weight": (2048,),
    }
    first = {name: s for name, s in shapes.items() if not name.startswith("layers.")}
    first |= {name: s for name, s in shapes.items() if name.startswith("layers.0.")}
    assert first == recorded


def test_a_config_of_transformers():
    assert hf.config_from(HF_CONFIG, Path("c")) == HF
    falcon = hf.config_from(
        HF_CONFIG | {"model_type": "falcon_mamba", "mixer_rms_eps": 1e-4}, Path("c")
    )
    assert falcon == replace(HF, inner_norm=True, inner_norm_eps=1e-4)
    two = {"model_type": "mamba2", "num_heads": 4, "head_dim": 4, "n_groups": 2}
    assert hf.config_from(HF_CONFIG | two, Path("c")) == replace(
        SSM2, d_input=VOCABULARY, d_output=VOCABULARY, tied_head=False
    )


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ([0.0, float("inf")], (0.0, UNLIMITED)),
        ([0.0, {"__float__": "Infinity"}], (0.0, UNLIMITED)),
        ([0.01, 1], (0.01, 1.0)),
        (None, (0.0, UNLIMITED)),
    ],
)
def test_limits_of_dt_in_every_spelling(given, want):
    assert limits_of_dt(given) == want


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (HF_CONFIG | {"model_type": "llama"}, "is of a 'llama' model (transformers); this reads"),
        (HF_CONFIG | {"hidden_act": "gelu"}, "hidden_act is 'gelu'; only silu"),
        (HF_CONFIG | {"hidden_size": "wide"}, "the width of the model is 'wide', not a number"),
        (HF_CONFIG | {"num_hidden_layers": 0}, "config.json: layers must be at least 1"),
        (HF_CONFIG | {"model_type": "mamba2"}, "does not divide"),
        (HF_CONFIG | {"model_type": "mamba2", "head_dim": 4, "n_groups": 2}, "num_heads is 128"),
        (HF_CONFIG | {"model_type": "mamba2", "time_step_limit": [1]}, "the limits of dt are [1]"),
        (SSM_CONFIG | {"attn_layer_idx": [1]}, "this model has attention layers"),
        (SSM_CONFIG | {"d_intermediate": 64}, "this model has MLPs between its mixers"),
        (SSM_CONFIG | {"ssm_cfg": {"layer": "Mamba3"}}, "its layers are 'Mamba3'"),
        (SSM_CONFIG | {"ssm_cfg": [1]}, "ssm_cfg is [1], not a table"),
        (SSM_CONFIG | {"vocab_size": "many"}, "must be whole numbers"),
        (SSM2_CONFIG | {"ssm_cfg": {"layer": "Mamba2", "headdim": 3}}, "d_head 3 does not divide"),
        (
            SSM2_CONFIG | {"ssm_cfg": {"layer": "Mamba2", "headdim": 4, "norm_before_gate": True}},
            "norm_before_gate is not known",
        ),
        (SSM2_CONFIG | {"ssm_cfg": {"layer": "Mamba2", "headdim": 4, "d_ssm": 8}}, "d_ssm is 8"),
    ],
)
def test_a_config_of_something_else(tmp_path, document, says):
    assert says in refusal(write(tmp_path, document, SSM))


# -- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "config"),
    [
        (SSM_CONFIG | {"model_type": "mamba"}, SSM),
        (SSM2_CONFIG | {"model_type": "mamba2"}, SSM2),
        (
            SSM2_CONFIG
            | {"model_type": "mamba2", "ssm_cfg": {"d_state": N}, "headdim": 4, "n_groups": 2},
            SSM2,
        ),
        (
            {
                "model_type": "mamba2",
                "vocab_size": PADDED,
                "hidden_size": WIDTH,
                "n_layer": LAYERS,
                "ssm_cfg": {"d_state": N, "headdim": 4, "ngroups": 2},
                "tie_embeddings": True,
            },
            SSM2,
        ),
    ],
)
def test_sizes_count_under_the_names_of_either_package(document, config):
    """Defaults of transformers do not stand in for what is given under mamba_ssm's names."""
    reader = mamba_ssm if mamba_ssm.described(document) else hf
    assert reader.config_from(document, Path("c")) == config


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_size": WIDTH, "num_hidden_layers": 64}, "n_layer 2 and num_hidden_layers 64"),
        ({"model_type": "mamba2", "ssm_cfg": {"layer": "Mamba1"}}, "they are not the same"),
        ({"model_type": "falcon_mamba"}, "they are not the same"),
        ({"model_type": "gpt2"}, "is of a 'gpt2' model"),
    ],
)
def test_two_names_that_say_two_things(tmp_path, changes, says):
    document = SSM_CONFIG | {"model_type": "mamba"} | changes
    assert says in refusal(write(tmp_path, document, SSM))


@pytest.mark.parametrize(
    ("document", "config", "file"),
    [
        (SSM_CONFIG, SSM, "pytorch_model.bin"),
        (SSM2_CONFIG, SSM2, "pytorch_model.bin"),
        (HF_CONFIG, HF, "model.safetensors"),
    ],
)
def test_a_folder_comes_back_to_the_bit(tmp_path, document, config, file):
    model, header = read_checkpoint(write(tmp_path, document, config, file))
    want = tiny(config)
    assert model.config == config
    assert header == {}
    assert set(model.weights) == set(want.weights)
    assert all(torch.equal(w, want.weights[name]) for name, w in model.weights.items())


def test_shards_are_one_model(tmp_path):
    whole, _ = read_checkpoint(write(tmp_path, HF_CONFIG, HF, "model.safetensors"))
    shard(tmp_path)
    again, _ = read_checkpoint(tmp_path)
    assert all(torch.equal(w, again.weights[name]) for name, w in whole.weights.items())


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("shards", ["there", "gone"])
def test_a_whole_file_is_read_and_not_the_shards_of_an_older_model(tmp_path, file, shards):
    """As transformers does, which leaves the index of what it replaces where it is."""
    write(tmp_path, HF_CONFIG, HF, "model.safetensors")
    shard(tmp_path)
    (old := tmp_path / "model.safetensors.index.json").rename(tmp_path / f"{file}.index.json")
    for path in tmp_path.glob("model-0*") if shards == "gone" else ():
        path.unlink()
    table = torch.randn(VOCABULARY, WIDTH)
    write(tmp_path, HF_CONFIG, HF, file, **{"backbone.embeddings.weight": table})
    assert torch.equal(read_checkpoint(tmp_path)[0].weights["embedding"], table)
    assert not old.exists() or file == "model.safetensors"


def test_safetensors_come_before_a_torch_file(tmp_path):
    write(tmp_path, HF_CONFIG, HF, "model.safetensors")
    want, _ = read_checkpoint(tmp_path)
    other = {"backbone.embeddings.weight": torch.randn(VOCABULARY, WIDTH)}
    write(tmp_path, HF_CONFIG, HF, "pytorch_model.bin", **other)
    again, _ = read_checkpoint(tmp_path)
    assert torch.equal(again.weights["embedding"], want.weights["embedding"])


def test_an_index_whose_shards_are_gone_is_not_a_reason_to_read_another_file(tmp_path):
    write(tmp_path, HF_CONFIG, HF, "model.safetensors")
    shard(tmp_path)
    write(tmp_path, HF_CONFIG, HF, "pytorch_model.bin")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    said = refusal(tmp_path)
    assert "names 2 file(s) and 1 of them are not there: model-00002-of-00002.safetensors" in said
    assert "take model.safetensors.index.json away to read pytorch_model.bin" in said


@pytest.mark.parametrize(
    ("document", "config", "embedding"),
    [
        (HF_CONFIG | {"tie_word_embeddings": True}, replace(HF, tied_head=True), "embeddings"),
        (SSM2_CONFIG, SSM2, "embedding"),
    ],
)
def test_a_base_model_saved_without_its_head_has_the_tied_embedding(
    tmp_path, document, config, embedding
):
    want, _ = read_checkpoint(write(tmp_path, document, config))
    state = {
        name.removeprefix("backbone."): t
        for name, t in theirs(parameters(config), embedding).items()
    }
    torch.save(state, tmp_path / "pytorch_model.bin")
    model, _ = read_checkpoint(tmp_path)
    assert all(torch.equal(w, want.weights[name]) for name, w in model.weights.items())


def test_a_head_that_is_not_tied_must_be_there(tmp_path):
    said = refusal(write(tmp_path, HF_CONFIG, HF, **{"lm_head.weight": None}))
    assert "has no lm_head.weight, and the config does not tie the head to the embedding" in said
    assert "Set tie_word_embeddings (of mamba_ssm: tie_embeddings) to true" in said


def test_a_tied_head_in_the_file_must_be_the_embedding(tmp_path):
    table = torch.randn(PADDED, WIDTH)
    both = {"backbone.embedding.weight": table, "lm_head.weight": table.clone()}
    assert "head" not in read_checkpoint(write(tmp_path, SSM_CONFIG, SSM, **both))[0].weights
    write(tmp_path, SSM_CONFIG, SSM, **{"lm_head.weight": torch.randn(PADDED, WIDTH)})
    assert "ties the head to the embedding, and lm_head.weight differs" in refusal(tmp_path)


def test_half_precision_is_read_as_it_is(tmp_path):
    half = torch.randn(2 * 2 * WIDTH, WIDTH).to(torch.bfloat16)
    name = "backbone.layers.0.mixer.in_proj.weight"
    model, _ = read_checkpoint(write(tmp_path, SSM_CONFIG, SSM, **{name: half}))
    assert torch.equal(model.weights["layers.0.in_proj.x"], half[: 2 * WIDTH].float())


@pytest.mark.parametrize(("document", "config"), [(SSM_CONFIG, SSM), (SSM2_CONFIG, SSM2)])
def test_every_weight_site_has_the_type_of_its_parameters_in_the_file(tmp_path, document, config):
    """All in float16 but one, which is in another type each time: its sites have that, no other."""
    half = {name: t.half() for name, t in theirs(parameters(config)).items()}
    sites = {"in_proj.weight": "in_proj.*", "A_log": "A", "conv1d.bias": "conv.bias"}
    for theirs_name, pattern in sites.items():
        name = f"backbone.layers.1.mixer.{theirs_name}"
        file = half | {name: half[name].to(torch.bfloat16)}
        stored = open_checkpoint(write(tmp_path, document, config, **file)).stored
        other = {site for site, dtype in stored.items() if dtype != "float16"}
        assert other == {s for s in stored if fnmatch(s, f"layers.1.{pattern}")}
        assert {stored[s] for s in other} == {"bfloat16"}


def test_tensors_that_do_not_fit_are_named_as_the_file_has_them(tmp_path):
    mixer = "backbone.layers.1.mixer."
    changes = {
        mixer + "D": None,
        mixer + "A_log": torch.zeros(16, 5),
        mixer + "attention.weight": torch.zeros(2),
        "extra": torch.zeros(2),
    }
    said = refusal(write(tmp_path, SSM_CONFIG, SSM, **changes))
    assert "missing: layers.1.D;" in said
    assert (
        f"left over: layers.1.attention.weight (in the file {mixer}attention.weight), extra;"
        in said
    )
    assert f"layers.1.A_log (in the file {mixer}A_log) is (16, 5), needed (16, 3)" in said


def test_another_vocabulary(tmp_path):
    write(tmp_path, SSM_CONFIG | {"vocab_size": 99}, SSM)
    said = refusal(tmp_path)
    assert "embedding.weight (in the file backbone.embedding.weight) is (16, 8)" in said
    assert "needed (104, 8)" in said


def test_a_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(HF_CONFIG))
    assert "none of model.safetensors, model.safetensors.index.json" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ("{", "is not an index of shards"),
        ("[]", "is not an index of shards"),
        ('{"weight_map": 3}', "is not an index of shards"),
        ('{"weight_map": {"a": "../b.safetensors"}}', "which is not in its folder"),
        ('{"weight_map": {"a": "b.safetensors"}}', "1 of them are not there: b.safetensors."),
    ],
)
def test_a_damaged_index(tmp_path, index, says):
    (tmp_path / "config.json").write_text(json.dumps(HF_CONFIG))
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert says in refusal(tmp_path)


def test_a_shard_without_its_tensors(tmp_path):
    write(tmp_path, HF_CONFIG, HF, "model.safetensors")
    shard(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    document["weight_map"]["gone"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(document))
    assert "lacks 1 tensor(s) that" in refusal(tmp_path)


def test_more_layers_than_tensors_is_said_before_anything_is_made(tmp_path):
    assert "layers and the file holds" in refusal(
        write(tmp_path, SSM_CONFIG | {"n_layer": 10**9}, SSM)
    )


# -- running --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "lm", SSM_CONFIG, SSM)


def test_tokens_in_logits_out(folder):
    model, tokens = sensprobe.load(folder), inputs(SSM)
    logits = model(tokens)
    assert logits.shape == (3, 7, PADDED)
    assert torch.equal(logits, tiny(SSM)(tokens))
    assert torch.equal(model(tokens.numpy().astype("uint8")), logits)
    assert model(tokens[:0]).shape == (0, 7, PADDED)
    state = model.start(3)
    for t in range(7):
        out, state = model.step(tokens[:, t], state)
        torch.testing.assert_close(out, logits[:, t], rtol=0, atol=1e-5)


def test_a_plan_and_its_calibration_take_tokens(folder):
    plan = {"layers.*.state": "int8/head", "layers.*.decay": "int8", "embedding": "int8/channel"}
    tokens = inputs(SSM)
    model = sensprobe.load(folder, plan=plan, calibration=tokens)
    assert 0 < (model(tokens) - sensprobe.load(folder)(tokens)).abs().max() < 1
    assert model.cost().total_bytes < sensprobe.load(folder).cost().total_bytes


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (torch.zeros(1, 3), "x holds torch.float32 numbers; this model reads tokens"),
        (torch.zeros(3, dtype=torch.int64), "x has shape (3,); this model reads tokens"),
        (torch.zeros(3, 0, dtype=torch.int64), "at least one step long"),
        (torch.tensor([[0, PADDED]]), "x holds tokens from 0 to 16; this model knows 0 to 15"),
        (torch.tensor([[-1, 2]]), "x holds tokens from -1 to 2"),
    ],
)
def test_what_are_no_tokens(folder, x, says):
    with pytest.raises(DataError) as error:
        sensprobe.load(folder)(x)
    assert says in str(error.value)


def test_a_folder_takes_no_norm(folder):
    with pytest.raises(UsageError, match="norm 'pre' is for checkpoints of state-spaces/s4"):
        open_model(folder, norm="pre")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_weights_named_without_their_folder(tmp_path, file):
    folder = write(tmp_path / "lm", HF_CONFIG, HF, file)
    assert f"name its folder: {folder}." in refusal(folder / file)


def test_a_language_model_is_scored_on_text_alone(folder):
    with pytest.raises(
        UnsupportedError, match="predicts the next token of text, and digits is none"
    ):
        api.evaluate(folder, "digits")


def test_a_language_model_lists_its_sites_and_costs(folder):
    sites = api.list_sites(folder)
    assert {"embedding", "layers.1.in_proj.z", "layers.0.decay"} <= {s["site"] for s in sites}
    states = 4 * LAYERS * (16 * N + 16 * 3)
    assert api.cost(folder)["state_bytes"] == states


def test_its_name_is_that_of_the_folder(folder):
    assert open_model(folder).name == "lm"
