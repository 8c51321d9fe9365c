"""Checkpoints of state-spaces/s4 example.py against a plain implementation of its forward."""

import numpy as np
import pytest
import torch
from builders import vector
from checkpoint_files import HEADS, INPUTS, LAYERS, OUTPUTS, PAIRS, s4_state, write_s4
from scipy.special import erf, expit

from sensprobe.checkpoints import open_checkpoint, read_checkpoint

LENGTH = 30


def forward(state, x, prenorm):
    """example.py in numpy, float64: x (l, c) -> logits. Convolution by its double sum."""
    p = {name: t.double().numpy() for name, t in state.items()}
    u = x @ p["encoder.weight"].T + p["encoder.bias"]
    for i in range(LAYERS):
        z = layer_norm(u, p, i) if prenorm else u
        u = u + s4d_layer(z, p, f"s4_layers.{i}.")
        u = u if prenorm else layer_norm(u, p, i)
    return u.mean(0) @ p["decoder.weight"].T + p["decoder.bias"]


def layer_norm(u, p, i):
    centred = u - u.mean(1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    return scaled * p[f"norms.{i}.weight"] + p[f"norms.{i}.bias"]


def s4d_layer(u, p, at):
    dt, C = np.exp(p[at + "kernel.log_dt"]), p[at + "kernel.C"]
    A = -np.exp(p[at + "kernel.log_A_real"]) + 1j * p[at + "kernel.A_imag"]
    dtA = A * dt[:, None]
    C = (C[..., 0] + 1j * C[..., 1]) * (np.exp(dtA) - 1) / A
    K = 2 * np.einsum("hn,hnl->hl", C, np.exp(dtA[..., None] * np.arange(len(u)))).real
    y = np.zeros_like(u)
    for t in range(len(u)):
        for k in range(t + 1):
            y[t] += K[:, k] * u[t - k]
    y = y + p[at + "D"] * u
    y = y * 0.5 * (1 + erf(y / np.sqrt(2)))
    z = y @ p[at + "output_linear.0.weight"][:, :, 0].T + p[at + "output_linear.0.bias"]
    return z[:, :HEADS] * expit(z[:, HEADS:])


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_model_is_the_one_that_was_trained(tmp_path, norm):
    model, _ = read_checkpoint(write_s4(tmp_path / "ckpt.pth"), norm)
    x = vector(3, LENGTH, INPUTS, seed=5)
    got = model(x.float())
    want = np.stack([forward(s4_state(), row.numpy(), norm == "pre") for row in x])
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-5)
    other = np.stack([forward(s4_state(), row.numpy(), norm != "pre") for row in x])
    assert np.abs(got.numpy() - other).max() > 0.01  # a wrong norm is another model


def test_its_sizes_come_from_the_tensors(tmp_path):
    model, _ = read_checkpoint(write_s4(tmp_path / "ckpt.pth"))
    config = model.config
    assert (config.d_input, config.d_output) == (INPUTS, OUTPUTS)
    assert (config.d_model, config.d_state, config.layers) == (HEADS, PAIRS, LAYERS)
    assert (config.norm, config.residual, config.activation) == ("post", True, "gelu")


def test_what_it_records_of_itself_is_read(tmp_path):
    _, header = read_checkpoint(write_s4(tmp_path / "ckpt.pth"))
    assert header["recorded"] == {"epoch": 7, "accuracy": 0.9125}


@pytest.mark.parametrize("acc", [None, float("nan"), -1, 1e9, "ninety", torch.ones(2)])
def test_an_accuracy_that_is_none_is_left_out(tmp_path, acc):
    _, header = read_checkpoint(write_s4(tmp_path / "ckpt.pth", acc=acc, epoch=None))
    assert header["recorded"] == {}


def same(path, norm="post"):
    """The model in the file is that of `s4_state()`."""
    model, _ = read_checkpoint(path, norm)
    x = vector(2, 9, INPUTS, dtype=torch.float32)
    want, _ = read_checkpoint(write_s4(path.with_name("plain.pth")), norm)
    return torch.equal(model(x), want(x))


def test_a_bare_state_dict_is_read_too(tmp_path):
    torch.save(s4_state(), tmp_path / "bare.pt")
    assert same(tmp_path / "bare.pt")


def test_the_prefix_of_data_parallel_training_is_dropped(tmp_path):
    parallel = {f"module.{name}": t for name, t in s4_state().items()}
    assert same(write_s4(tmp_path / "parallel.pth", model=parallel))


def test_the_older_file_format_of_torch_is_read(tmp_path):
    torch.save({"model": s4_state()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(tmp_path / "old.pth")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_floating_point_types_are_read_as_their_values(tmp_path, dtype):
    state = {name: t.to(dtype) for name, t in s4_state().items()}
    model, _ = read_checkpoint(write_s4(tmp_path / "a.pth", model=state))
    widened = {name: t.double() for name, t in state.items()}
    want, _ = read_checkpoint(write_s4(tmp_path / "b.pth", model=widened))
    assert all(torch.equal(w, want.weights[name]) for name, w in model.weights.items())


def test_weights_keep_float64_and_fingerprints_tell_models_apart(tmp_path):
    model, _ = read_checkpoint(write_s4(tmp_path / "a.pth"))
    assert all(w.dtype in (torch.float64, torch.complex128) for w in model.weights.values())
    mark = open_checkpoint(tmp_path / "a.pth").fingerprint
    assert open_checkpoint(write_s4(tmp_path / "b.pth")).fingerprint == mark
    assert open_checkpoint(tmp_path / "a.pth", "pre").fingerprint != mark
    nudged = s4_state()
    name = "s4_layers.1.kernel.C"
    nudged[name] = torch.nextafter(nudged[name], nudged[name] + 1)
    assert open_checkpoint(write_s4(tmp_path / "c.pth", model=nudged)).fingerprint != mark
