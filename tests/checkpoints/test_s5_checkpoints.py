"""Checkpoints of lindermanlab/S5 against a plain implementation of its forward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s5_files as s5
import torch
from checkpoint_files import refusal
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sensprobe.checkpoints import describe, entries, open_checkpoint, read_checkpoint
from sensprobe.checkpoints.s5_parts import OPTIONS
from sensprobe.errors import CheckpointError, UsageError

LENGTH = 20
FULL = {"activation_fn": "full_glu"}
X = np.random.default_rng(5).normal(size=(3, LENGTH, s5.INPUTS)).astype(np.float32)


@pytest.fixture(autouse=True)
def _notes_anew():
    entries.note.cache_clear()


def write(path: Path, tree: s5.Tree) -> Path:
    """A file in the format of its name: flax's msgpack where it has none of the others'."""
    match path.suffix:
        case ".npz":
            np.savez(path, **s5.flat(tree))
        case ".safetensors":
            save_file(s5.flat(tree, "."), path)
        case _:
            path.write_bytes(s5.packed(tree))
    return path


def toml(path: Path, **config: Any) -> Path:
    """A model.toml beside a file that says what the file does not."""
    lines = (
        f"config.{k} = {str(v).lower() if isinstance(v, bool) else repr(v)}"
        for k, v in config.items()
    )
    text = f'file = "{path.name}"\nformat = "s5"\n' + "\n".join(lines)
    path.with_name("model.toml").write_text(text)
    return path.with_name("model.toml")


def require_same(path: Path, want: NDArray[Any], norm: str | None = None) -> Any:
    """The model in a file has these outputs of X, and its description is that of the model."""
    model, _ = read_checkpoint(path, norm)
    got = model(torch.from_numpy(X)).numpy()
    error = np.abs(got - want).max() / np.abs(want).max()
    assert error < 8 * (LENGTH * s5.H) ** 0.5 * np.finfo(np.float32).eps, error
    said, opened = describe(path, norm), open_checkpoint(path, norm)
    assert said.config == model.config
    assert said.stored == opened.stored
    return model


def outputs(weights: s5.Tree, stats: s5.Tree | None = None, **said: Any) -> NDArray[Any]:
    return np.stack([s5.forward(weights, x, stats, **said) for x in X])


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # arguments of `params`, of the repository's run_train.py, and what a model.toml says
    "half_glu1": ({}, {}, {}),
    "half_glu2": ({}, {"activation_fn": "half_glu2"}, {"gate": "half2"}),
    "full_glu": ({"activation": "full_glu"}, {"activation_fn": "full_glu"}, {}),
    "gelu": ({"activation": "gelu"}, {"activation_fn": "gelu"}, {}),
    "postnorm": ({}, {"prenorm": False}, {"norm": "post"}),
    "last": ({}, {"mode": "last"}, {"pooling": "last"}),
    "bilinear": ({}, {"discretization": "bilinear"}, {"discretization": "bilinear"}),
    "all modes": ({}, {"conj_sym": False}, {"conjugate": False}),
    "C1 and C2": ({"bidirectional": True}, {}, {}),
    "one wide C": ({"bidirectional": True, "joined": True}, {}, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [True, False], ids=["batch norm", "layer norm"])
def test_the_model_is_the_one_that_was_trained(tmp_path, case, batch):
    given, said, config = CASES[case]
    weights, stats = s5.params(**given), s5.batch_stats() if batch else None
    path = write(tmp_path / "checkpoint_7", s5.train_state(weights, stats))
    want = outputs(weights, stats, **said)
    model = require_same(toml(path, **config) if config else path, want)
    assert model.config.norm_kind == ("affine" if batch else "layer")
    if config:  # what the toml says makes another model of it
        other = read_checkpoint(path)[0](torch.from_numpy(X)).numpy()
        assert np.abs(other - want).max() > 1e-3


def test_clipped_eigenvalues(tmp_path):
    weights = s5.params()
    seq = weights["encoder"]["layers_0"]["seq"]
    seq["Lambda_re"][1] = 0.25
    path = write(tmp_path / "m.msgpack", {"params": weights})
    require_same(path, outputs(weights))
    require_same(toml(path, clip_eigs=True), outputs(weights, clip_eigs=True))


@pytest.mark.parametrize("name", ["m.msgpack", "best", "m.npz", "m.safetensors"])
@pytest.mark.parametrize("whole", [True, False], ids=["variables", "params alone"])
def test_every_format_holds_the_same_model(tmp_path, name, whole):
    weights, stats = s5.params("full_glu"), s5.batch_stats() if whole else None
    tree = {"params": weights, "batch_stats": stats} if whole else weights
    model = require_same(write(tmp_path / name, tree), outputs(weights, stats, **FULL))
    assert model.config.d_input == s5.INPUTS
    assert model.config.d_output == s5.OUTPUTS
    assert (model.config.d_model, model.config.d_state, model.config.layers) == (6, 4, 2)


def test_a_name_is_of_the_weights_and_not_of_the_format(tmp_path):
    tree = {"params": s5.params(), "batch_stats": s5.batch_stats()}
    names = ("a.msgpack", "b.npz", "c.safetensors")
    assert len({open_checkpoint(write(tmp_path / n, tree)).fingerprint for n in names}) == 1
    other = {"params": s5.params(), "batch_stats": s5.batch_stats(2)}
    found = open_checkpoint(write(tmp_path / "d.npz", other)).fingerprint
    assert found != open_checkpoint(tmp_path / "b.npz").fingerprint


def test_an_option_says_where_the_norm_stands(tmp_path):
    weights = s5.params()
    for name in ("m.msgpack", "m.safetensors"):
        require_same(write(tmp_path / name, weights), outputs(weights, prenorm=False), "post")
    assert read_checkpoint(tmp_path / "m.msgpack")[0].config.norm == "pre"


def test_numbers_of_other_types(tmp_path):
    half = s5.params()
    half["decoder"]["kernel"] = half["decoder"]["kernel"].astype(np.float16)
    path = write(tmp_path / "m.npz", half)
    require_same(path, outputs(half))
    assert open_checkpoint(path).stored["head"] == "float16"
    flat = s5.flat(s5.params())  # numpy, unlike flax, writes Fortran order and big-endian numbers
    flat["decoder/kernel"] = np.asfortranarray(flat["decoder/kernel"])
    flat["decoder/bias"] = flat["decoder/bias"].astype(">f4")
    np.savez(tmp_path / "w.npz", **flat)
    require_same(tmp_path / "w.npz", outputs(s5.params()))


# -- what is assumed, and said --------------------------------------------------------------------


def test_what_is_assumed_is_said_once(tmp_path, caplog):
    path = write(tmp_path / "m.msgpack", {"params": s5.params()})
    describe(path)
    read_checkpoint(path)
    (record,) = caplog.records
    assert (
        'read with norm = "pre", pooling = "mean", gate = "half1", conjugate = true'
        in record.message
    )
    assert 'norm_kind = "layer"' in record.message  # the statistics may have been left out
    assert 'a model.toml with format = "s5"' in record.message


def test_a_whole_state_without_statistics_has_layer_norms(tmp_path, caplog):
    read_checkpoint(write(tmp_path / "m.msgpack", s5.train_state(s5.params("full_glu"))))
    assert "norm_kind" not in caplog.text
    assert " gate =" not in caplog.text


def test_nothing_is_said_where_everything_is(tmp_path, caplog):
    path = write(tmp_path / "m.msgpack", {"params": s5.params()})
    said = {
        "norm": "pre",
        "pooling": "mean",
        "gate": "half1",
        "conjugate": True,
        "norm_kind": "layer",
    }
    read_checkpoint(toml(path, **said, clip_eigs=False, discretization="zoh"))
    assert not caplog.records


def test_eigenvalues_of_either_sign_are_pointed_out(tmp_path, caplog):
    weights = s5.params()
    weights["encoder"]["layers_0"]["seq"]["Lambda_im"][:2] *= -1
    weights["encoder"]["layers_0"]["seq"]["Lambda_im"][:2] += 3
    path = write(tmp_path / "m.msgpack", {"params": weights})
    read_checkpoint(path)
    assert "config.conjugate = false may be right" in caplog.text


# -- PyTorch ports --------------------------------------------------------------------------------


def port(
    weights: s5.Tree, stats: s5.Tree | None = None, of_complex: bool = False
) -> dict[str, Any]:
    """The same model as a PyTorch port has it: `weight` (outputs, inputs), `running_mean`, and as
    s5-pytorch stores a mixer, complex Lambda and C, and log_step without an axis of 1."""
    out: dict[str, Any] = {}
    for name, value in s5.flat(weights, ".").items():
        short = name.replace("layers_", "layers.").removeprefix("encoder.")
        if short.endswith("kernel"):
            out[short.replace("kernel", "weight")] = torch.from_numpy(value.T.copy())
        else:
            out[short.replace("scale", "weight")] = torch.from_numpy(value)
    for i in range(s5.LAYERS if of_complex else 0):
        seq = f"layers.{i}.seq."
        out[seq + "Lambda"] = torch.complex(out.pop(seq + "Lambda_re"), out.pop(seq + "Lambda_im"))
        out[seq + "C"] = torch.view_as_complex(out[seq + "C"])
        out[seq + "log_step"] = out[seq + "log_step"][:, 0]
    for name, value in s5.flat(stats or {}, ".").items():
        short = name.replace("layers_", "layers.").removeprefix("encoder.")
        at, _, what = short.rpartition(".")
        out[f"{at}.running_{what}"] = torch.from_numpy(value)
        out[f"{at}.num_batches_tracked"] = torch.tensor(9)
    return out


@pytest.mark.parametrize("before", ["", "module.", "net.backbone."])
def test_a_port_to_pytorch(tmp_path, before):
    weights, stats = s5.params("full_glu"), s5.batch_stats()
    state = {before + name: value for name, value in port(weights, stats).items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "m.pth")
    model = require_same(tmp_path / "m.pth", outputs(weights, stats, exact=True, **FULL))
    assert model.config.activation == "gelu"  # torch's own is the exact one


def test_a_port_with_complex_numbers_counts_every_mode(tmp_path):
    weights = s5.params("gelu")
    torch.save(port(weights, of_complex=True), tmp_path / "m.pt")
    want = outputs(weights, exact=True, conj_sym=False, activation_fn="gelu", eps=1e-5)
    require_same(tmp_path / "m.pt", want)


def test_a_port_with_names_of_its_own(tmp_path):
    weights = s5.params("full_glu")
    renamed = {
        name.replace("layers.", "blocks.")
        .replace(".seq.", ".s5.")
        .replace("decoder.", "fc."): value
        for name, value in port(weights).items()
    }
    torch.save(renamed | {"temperature": torch.ones(1)}, tmp_path / "m.pt")
    assert "holds S5 layers alone (blocks.0.s5.Lambda_re), not a model" in refusal(
        tmp_path / "m.pt"
    )
    path = toml(tmp_path / "m.pt", norm="pre")
    keys = """
[keys]
"blocks.{i}.s5.*" = "layers.{i}.seq.*"
"blocks.{i}.*" = "layers.{i}.*"
"fc.*" = "decoder.*"
"temperature" = ""
"""
    path.write_text(path.read_text() + keys)
    require_same(path, outputs(weights, exact=True, eps=1e-5, **FULL))
    path.write_text(path.read_text() + '\n"gone.*" = ""')
    assert "keys that fit no tensor: gone.*" in refusal(path)


def test_a_layer_alone_is_no_model(tmp_path):
    state = port(s5.params(), of_complex=True)
    alone = {
        n.removeprefix("layers.0."): t for n, t in state.items() if n.startswith("layers.0.seq")
    }
    torch.save(alone, tmp_path / "layer.pt")
    said = refusal(tmp_path / "layer.pt")
    assert "holds S5 layers alone (seq.Lambda), not a model: needed are an encoder" in said
    block = {f"s5.{name}": t for name, t in alone.items()} | {"ff_enc.weight": torch.ones(4, 6)}
    torch.save(block, tmp_path / "block.pt")
    assert "holds an S5Block of s5-pytorch, whose feed-forward part" in refusal(
        tmp_path / "block.pt"
    )


def test_a_table_that_holds_itself_is_read_once(tmp_path):
    state: dict[str, Any] = dict(port(s5.params("full_glu")))
    state |= {f"again{i}": state for i in range(40)}
    torch.save({"model": state}, tmp_path / "m.pt")
    require_same(tmp_path / "m.pt", outputs(s5.params("full_glu"), exact=True, eps=1e-5, **FULL))


# -- files that do not fit ------------------------------------------------------------------------


def test_a_name_that_two_values_have_is_refused(tmp_path):
    flat = {"/".join(name): value for name, value in leaves(s5.params("full_glu"))}
    twice = {**flat, "decoder.kernel": flat["decoder/kernel"]}
    np.savez(tmp_path / "m.npz", **twice)
    with pytest.raises(CheckpointError, match=r"two values called decoder\.kernel"):
        read_checkpoint(tmp_path / "m.npz")


def leaves(tree, before=()):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*before, name))
        else:
            yield (*before, name), value


def changed(path: tuple[str, ...], value: Any) -> s5.Tree:
    """A model with another entry; None takes it away."""
    tree: s5.Tree = {"params": s5.params("full_glu")}
    table = tree
    for name in path[:-1]:
        table = table.setdefault(name, {})
    table[path[-1]] = value
    if value is None:
        del table[path[-1]]
    return tree


ENCODER, LAYER = ("params", "encoder"), ("params", "encoder", "layers_1")
ONES = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ((*ENCODER, "encoder"), None, r"encoder.kernel (inputs, outputs) or encoder.weight"),
        (("params", "decoder"), None, "decoder.weight (outputs, inputs) is missing"),
        (("params", "decoder", "layer1"), {"kernel": ONES}, "left over: decoder.layer1.kernel"),
        ((*LAYER, "out1"), None, "missing: layers.1.out1.kernel, layers.1.out1.bias"),
        ((*LAYER, "seq", "D"), ONES, "layers.1.seq.D (in the file params.encoder.layers_1.seq.D)"),
        ((*ENCODER, "layers_0", "seq", "B"), None, "B must have shape (modes, features, 2); it is"),
        ((*ENCODER, "layers_0", "seq", "C"), ONES[0], "C must have shape (features, modes, 2)"),
        ((*LAYER, "norm", "mean"), ONES[0], "left over: layers.1.norm.mean"),
        (("ema", "params"), s5.params(), "several entries of an S5 model: 'ema.params', 'params'"),
        (("params",), {"Dense_0": {"kernel": ONES}}, "holds no S5 model, the only one"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, path, value, says):
    said = refusal(write(tmp_path / "m.msgpack", changed(path, value)))
    assert says in said
    assert "m.msgpack" in said
    assert len(said) < 700


def test_a_folder_of_orbax_is_known_by_its_files(tmp_path):
    (tmp_path / "checkpoint_9").mkdir()
    (tmp_path / "checkpoint_9" / "_METADATA").write_text("{}")
    said = refusal(tmp_path / "checkpoint_9")
    assert "is a folder that orbax wrote, which is not read: restore it in JAX" in said


def test_an_entry_says_which_of_several_models(tmp_path):
    mean = s5.params(seed=9)
    path = write(tmp_path / "m.msgpack", changed(("ema", "params"), mean))
    described = toml(path)
    described.write_text(described.read_text() + 'entry = "ema.params"\n')
    require_same(described, outputs(mean))
    described.write_text(described.read_text().replace("ema.params", "average"))
    assert "no entry 'average' of an S5 model" in refusal(described)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"d_model": 3}, "format s5 takes only norm, pooling, gate"),
        ({"gate": "sigmoid"}, "config.gate must be full, half1, half2 or none"),
        ({"norm": "none"}, "left over: layers.0.norm.scale"),
        ({"norm_kind": "affine"}, "missing: layers.0.norm.var"),
        ({"blocks": 3}, "config.d_state 4 cannot be cut into 3 blocks"),
        ({"activation": 1}, "config.activation is 1, not str"),
    ],
)
def test_an_option_that_means_nothing_is_refused(tmp_path, config, says):
    assert says in refusal(toml(write(tmp_path / "m.npz", s5.params()), **config))


def test_every_option_is_taken(tmp_path):
    values = {"norm": "post", "pooling": "last", "gate": "half2", "conjugate": False,
              "clip_eigs": True, "discretization": "bilinear", "norm_kind": "layer",
              "norm_eps": 1e-3, "activation": "qgelu", "sigmoid": "hard", "blocks": 2}  # fmt: skip
    assert set(values) == set(OPTIONS)
    model, _ = read_checkpoint(toml(write(tmp_path / "m.npz", s5.params()), **values))
    assert {name: getattr(model.config, name) for name in values} == values


def test_a_norm_is_for_files_that_do_not_say(tmp_path):
    from checkpoint_files import write_own

    with pytest.raises(UsageError, match="is for checkpoints of state-spaces/s4 and S5"):
        read_checkpoint(write_own(tmp_path / "m.safetensors"), "pre")


def test_not_a_number_is_refused(tmp_path):
    weights = s5.params()
    weights["encoder"]["layers_1"]["seq"]["B"][0, 0, 0] = np.nan
    with pytest.raises(CheckpointError, match=r"NaN or infinite values: layers\.1\.B"):
        read_checkpoint(write(tmp_path / "m.msgpack", weights))
