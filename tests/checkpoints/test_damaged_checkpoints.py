"""Every bad file is one CheckpointError that names what to do, and nothing in it is run."""

import json
import os
import pickle
import re

import checkpoint_files
import pytest
import torch
from builders import PLAIN, parameters
from checkpoint_files import HEADS, PAIRS, s4_state, write_own, write_s4
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from sensprobe.checkpoints import read_checkpoint
from sensprobe.errors import CheckpointError, UsageError


def refusal(path, norm=None):
    """What is said of a file that cannot be read: one paragraph, with the file's name in it."""
    text = checkpoint_files.refusal(path, norm)
    assert CheckpointError.exit_code == 1
    assert path.name in text
    assert "\n" not in text
    assert len(text) < 700
    return text


# -- files that are not what they should be -------------------------------------------------------


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors", "model.toml"])
class TestAnyKind:
    def test_missing(self, tmp_path, name):
        (tmp_path / "other.pth").write_bytes(b"x")
        assert "That folder holds: other.pth" in refusal(tmp_path / name)
        assert "Neither does its folder exist" in refusal(tmp_path / "no" / name)

    def test_empty(self, tmp_path, name):
        (tmp_path / name).touch()
        assert "is empty: copy the checkpoint again" in refusal(tmp_path / name)

    def test_a_folder(self, tmp_path, name):
        (tmp_path / name).mkdir()
        assert "is a folder without a sensprobe config.json; name a" in refusal(tmp_path / name)


@pytest.mark.parametrize("keep", [1, 3, 30, 500, 0.5, -1])
def test_a_truncated_torch_file(tmp_path, keep):
    path = write_s4(tmp_path / "ckpt.pth")
    truncate(path, keep)
    said = refusal(path)
    assert re.search(r"truncated, damaged or|is damaged|is not a torch checkpoint", said), said


@pytest.mark.parametrize("keep", [1, 7, 8, 100, 0.5, -1])
def test_a_truncated_safetensors_file(tmp_path, keep):
    path = write_own(tmp_path / "m.safetensors")
    truncate(path, keep)
    assert "it is truncated or damaged; copy it again" in refusal(path)


def truncate(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])


@pytest.mark.parametrize(
    "text", ["version https://git-lfs.github.com/spec/v1\noid sha256:1", "<html>", "hello", "{}"]
)
def test_a_text_file(tmp_path, text):
    path = tmp_path / "ckpt.pth"
    path.write_text(text)
    assert "is not a torch checkpoint: it is neither a zip nor a pickle" in (said := refusal(path))
    assert "Git LFS pointer; download the file itself" in said
    path = tmp_path / "m.safetensors"
    path.write_text(text)
    assert "cannot be read as safetensors" in refusal(path)


def test_safetensors_under_a_torch_name(tmp_path):
    path = write_own(tmp_path / "m.pth")
    assert "need a name that ends in .safetensors" in refusal(path)


def test_a_zip_of_something_else(tmp_path):
    import zipfile

    path = tmp_path / "ckpt.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "of another kind. Copy it again, or name a .safetensors file" in refusal(path)


def flipped(content, place, bit):
    out = bytearray(content)
    out[place % len(out)] ^= 1 << bit
    return bytes(out)


@given(st.integers(0, 1 << 20), st.integers(0, 7))
@pytest.mark.parametrize("kind", ["m.pth", "m.safetensors"])
def test_a_flipped_bit_gives_a_model_or_a_checkpoint_error(tmp_path_factory, kind, place, bit):
    folder = tmp_path_factory.getbasetemp() / f"flipped-{kind}"
    folder.mkdir(exist_ok=True)
    path = folder / kind
    content = (write_s4 if kind == "m.pth" else write_own)(path).read_bytes()
    # half of the flips where structure is: the first and last 2 KiB
    place = place if place % 2 else (place % 4096) - 2048
    path.write_bytes(flipped(content, place, bit))
    try:
        model, _ = read_checkpoint(path)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert model.family == "s4d"


# -- code in a file -------------------------------------------------------------------------------


class Payload:
    """Pickles into a call that makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["model", "epoch", "deep", "alone"])
def test_code_in_a_checkpoint_is_not_run(tmp_path, place, new):
    mark, path = tmp_path / "executed", tmp_path / "ckpt.pth"
    payload = Payload(mark)
    content = {
        "model": {"model": payload},
        "epoch": {"model": s4_state(), "epoch": payload},
        "deep": {"model": {**s4_state(), "decoder.bias": payload}},
        "alone": payload,
    }[place]
    torch.save(content, path, _use_new_zipfile_serialization=new)
    said = refusal(path)
    assert not mark.exists()
    assert "was not opened, because reading it could run code" in said
    assert "Save it again as a plain state_dict, or as safetensors" in said
    assert "it asks for posix.mkdir" in said
    assert "weights_only" not in said  # torch's advice to load it all the same
    torch.load(path, weights_only=False)
    assert mark.exists()  # the payload works: the test can fail


def test_code_in_a_plain_pickle_is_not_run(tmp_path):
    mark, path = tmp_path / "executed", tmp_path / "ckpt.pth"
    path.write_bytes(pickle.dumps({"model": Payload(mark)}))
    refusal(path)
    assert not mark.exists()
    with path.open("rb") as file:
        pickle.load(file)
    assert mark.exists()


# -- tensors that do not fit ----------------------------------------------------------------------


def changed(**changes):
    """s4_state with entries replaced (dots as __); None takes one away."""
    state = s4_state() | {name.replace("__", "."): t for name, t in changes.items()}
    return {name: t for name, t in state.items() if t is not None}


NAN = torch.tensor([float("nan"), 1.0, float("inf")])
BAD = {
    "nan": (changed(encoder__bias=NAN), "hold NaN or infinite values: encoder.bias (2)"),
    "integers": (changed(encoder__bias=torch.ones(3, dtype=torch.int64)), "holds torch.int64"),
    "booleans": (changed(encoder__bias=torch.ones(3) > 0), "holds torch.bool numbers"),
    "a list": (changed(encoder__bias=[1.0, 2.0, 3.0]), "encoder.bias is of type list, not a"),
    "sparse": (changed(encoder__bias=torch.ones(3).to_sparse()), "save it dense"),
    "complex": (
        changed(s4_layers__0__kernel__C=torch.ones(HEADS, PAIRS, dtype=torch.complex64)),
        "complex ones as pairs (torch.view_as_real). Convert it and save again",
    ),
    "missing": (changed(decoder__bias=None), "missing: decoder.bias"),
    "a layer's": (changed(s4_layers__1__kernel__log_dt=None), "missing: s4_layers.1.kernel.log_dt"),
    "unexpected": (changed(s4_layers__0__kernel__B=torch.ones(2)), "left over: s4_layers.0.kernel"),
    "norms": (changed(norms__1__weight=None), "missing: norms.1.weight"),
    "mis-shaped": (
        changed(s4_layers__0__D=torch.ones(2)),
        "of another shape: s4_layers.0.D is (2,), needed (3,)",
    ),
    "pairs of three": (
        changed(s4_layers__0__kernel__C=torch.ones(HEADS, PAIRS, 3)),
        "s4_layers.0.kernel.C is (3, 4, 3), needed (3, 4, 2)",
    ),
    "no encoder": (changed(encoder__weight=None), "encoder.weight must have shape (heads, inputs)"),
    "S4 not S4D": (
        changed(s4_layers__0__kernel__log_A_real=None),
        "s4_layers.0.kernel.log_A_real must have shape (heads, pairs); it is missing",
    ),
    "a vector": (changed(decoder__weight=torch.ones(5)), "decoder.weight must have shape"),
    "no heads": (changed(encoder__weight=torch.ones(0, 2)), "it is (0, 2)"),
}


@pytest.mark.parametrize("what", BAD)
def test_an_s4_checkpoint_whose_tensors_do_not_fit(tmp_path, what):
    state, says = BAD[what]
    assert says in refusal(write_s4(tmp_path / "ckpt.pth", model=state))


def test_weights_that_are_not_finite_once_discretised(tmp_path):
    """A mode at zero: (A_bar - 1) / A is 0 / 0."""
    state = changed(
        s4_layers__0__kernel__log_A_real=torch.full((HEADS, PAIRS), -800.0),
        s4_layers__0__kernel__A_imag=torch.zeros(HEADS, PAIRS),
    )
    assert "NaN or infinite values: layers.0.B" in refusal(
        write_s4(tmp_path / "a.pth", model=state)
    )


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (["backbone.layers.0.mixer.x_proj.weight"], "a Mamba model"),
        (["backbone.layers.0.mixer.dt_bias"], "a Mamba-2 model"),
        (["model.layers.0.self_attn.q_proj.weight"], "a Transformer"),
    ],
)
def test_a_model_of_another_family_is_named(tmp_path, names, family):
    tensors = {name: torch.ones(2) for name in names}
    torch.save(tensors, tmp_path / "m.pth")
    save_file(tensors, tmp_path / "m.safetensors")
    for kind in ("m.pth", "m.safetensors"):
        assert f"Its names are those of {family}" in (said := refusal(tmp_path / kind))
        assert "model.toml" in said


def test_a_part_of_an_s5_says_what_it_lacks(tmp_path):
    torch.save({"layers.0.seq.Lambda_re": torch.ones(2)}, tmp_path / "m.pth")
    said = refusal(tmp_path / "m.pth")
    assert "layers.0.seq.B must have shape (modes, features, 2); it is missing" in said


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(3), 5, "text", None])
def test_a_torch_file_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "m.pth")
    assert f"holds a {type(content).__name__}, not a state_dict" in refusal(tmp_path / "m.pth")


@pytest.mark.parametrize("model", [[1], 5, "text"])
def test_a_model_entry_that_is_no_state_dict(tmp_path, model):
    path = write_s4(tmp_path / "m.pth", model=model)
    assert f"`model` is of type {type(model).__name__}, not a state_dict" in refusal(path)


def test_a_norm_there_is_not(tmp_path):
    with pytest.raises(UsageError, match=r"norm 'middle' is not one of none, pre, post"):
        read_checkpoint(write_s4(tmp_path / "m.pth"), "middle")


def test_a_file_with_norms_read_without(tmp_path):
    said = refusal(write_s4(tmp_path / "m.pth"), "none")
    assert "left over: norms.0.weight" in said


# -- own checkpoints ------------------------------------------------------------------------------


def own_params(**changes):
    state = parameters(PLAIN) | {name.replace("__", "."): t for name, t in changes.items()}
    return {name: t for name, t in state.items() if t is not None}


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (own_params(head__bias=None), "missing: head.bias"),
        (own_params(more=torch.ones(1)), "left over: more"),
        (own_params(head__bias=torch.ones(9)), "head.bias is (9,), needed (3,)"),
        (own_params(head__bias=torch.ones(3, dtype=torch.int32)), "holds torch.int32 numbers"),
        (own_params(head__bias=NAN), "head.bias (2)"),
        (own_params(layers__0__B=torch.ones(4, 3, dtype=torch.complex64)), "complex ones as pairs"),
    ],
)
def test_an_own_checkpoint_whose_tensors_do_not_fit(tmp_path, params, says):
    assert says in refusal(write_own(tmp_path / "m.safetensors", params=params))


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"format": 2}, "is of format 2; this sensprobe reads 1. If the file is newer, upgrade"),
        ({"format": None}, "is of format None"),
        ({"family": "s6"}, "says it is a 's6' model; families here: s4d"),
        ({"family": ["s4d"]}, "says it is a ['s4d'] model"),
        ({"config": [1]}, "its config is of type list, not a table"),
        ({"config": {}}, "its config is incomplete"),
        ({"config": {"width": 3}}, "unknown config key(s) width; known: ["),
        ({"config": {"d_input": 1, "d_output": 1, "d_model": 0, "d_state": 1}}, "at least 1"),
        ({"config": {"d_input": 1, "d_output": 1, "d_model": "4", "d_state": 1}}, "not int"),
        (
            {"config": {"d_input": 1, "d_output": 3, "d_model": 4, "d_state": 3, "layers": 10**9}},
            "the config says 1000000000 layers and the file holds 12 tensors",
        ),
    ],
)
def test_an_own_checkpoint_whose_header_says_what_cannot_be(tmp_path, header, says):
    assert says in refusal(write_own(tmp_path / "m.safetensors", header=header))


@pytest.mark.parametrize(("text", "says"), [("{", "is not JSON"), ("[1]", "is not a JSON object"),
                                            ("[" * 100_000, "is not JSON")])  # fmt: skip
def test_an_own_checkpoint_whose_header_is_not_one(tmp_path, text, says):
    save_file(parameters(PLAIN), tmp_path / "m.safetensors", {"sensprobe": text})
    assert says in refusal(tmp_path / "m.safetensors")


def test_safetensors_without_a_header(tmp_path):
    save_file(parameters(PLAIN), tmp_path / "m.safetensors")
    said = refusal(tmp_path / "m.safetensors")
    assert "has no sensprobe header" in said
    assert "Describe it in a model.toml" in said


@pytest.mark.parametrize(
    "name",
    ["/etc/hostname", "../secret.pth", "link.pth", "x" * 5000, "a/../../secret.pth"],
)
def test_a_toml_opens_nothing_outside_its_folder(tmp_path, name):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.pth").write_text("my secret")
    (folder / "link.pth").symlink_to(tmp_path / "secret.pth")
    (folder / "model.toml").write_text(f'file = "{name}"')
    assert "is not in the folder of the toml" in (said := refusal(folder / "model.toml"))
    assert "my secret" not in said


def test_a_toml_whose_file_is_a_loop_of_links(tmp_path):
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    (tmp_path / "model.toml").write_text('file = "loop.pth"')
    assert "loop.pth" in refusal(tmp_path / "model.toml")


def test_no_bytes_of_an_unreadable_file_are_shown(tmp_path):
    for content in (b"my secret", b"\x80my secret", b"PKmy secret"):
        (tmp_path / "ckpt.pth").write_bytes(content)
        assert "secret" not in refusal(tmp_path / "ckpt.pth")


def test_a_pipe_in_place_of_a_checkpoint(tmp_path):
    for name in ("m.pth", "m.safetensors", "model.toml"):
        os.mkfifo(tmp_path / name)
        assert "a pipe or a device" in refusal(tmp_path / name)


# -- model.toml -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file = ", "is not valid TOML"),
        ("a = " + "[" * 5000, "is not valid TOML"),
        (
            'file = "ckpt.pth"\nfiel = 1',
            "unknown key(s) fiel; known: config, entry, family, file, format",
        ),
        ('format = "s4"', '`file = "…"` must name the weights, relative to the toml'),
        ("file = 3", "must name the weights"),
        ('file = "ckpt.pth"\nformat = "onnx"', "format 'onnx' is unknown; use s4, s5, own or keys"),
        ('file = "ckpt.pth"\nformat = ["s4"]', "format ['s4'] is unknown"),
        ('file = "ckpt.pth"\nconfig = 3', "config is 3; it must be a table"),
        (
            'file = "ckpt.pth"\nconfig.d_model = 3',
            "takes only `norm` and `head` in [config], not d_model",
        ),
        ('file = "ckpt.pth"\nconfig.norm = "up"', "config.norm must be none, pre or post"),
        ('file = "ckpt.pth"\nconfig.norm = 3', "config.norm is 3, not str"),
        ('file = "ckpt.pth"\nfamily = "mamba"', "format s4 is of family s4d, not 'mamba'"),
        ('file = "own.safetensors"\nconfig.wide = 3', "unknown config key(s) wide"),
        ('file = "own.safetensors"\nfamily = "retnet"', "says it is a 'retnet' model"),
        ('file = "own.safetensors"\nfamily = "mamba"', "unknown config key(s) activation"),
        ('file = "own.safetensors"\nconfig.layers = 2', "does not fit the s4d model"),
    ],
)
def test_a_toml_that_cannot_be(tmp_path, text, says):
    write_s4(tmp_path / "ckpt.pth")
    write_own(tmp_path / "own.safetensors")
    path = tmp_path / "model.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("file", "says"),
    [("gone.pth", "no checkpoint at"), ("", "is a folder"), (".", "is a folder")],
)
def test_a_toml_whose_file_is_not_there(tmp_path, file, says):
    path = tmp_path / "model.toml"
    path.write_text(f'file = "{file}"', encoding="utf-8")
    with pytest.raises(CheckpointError, match=says):
        read_checkpoint(path)


def test_a_toml_that_is_not_text(tmp_path):
    (tmp_path / "model.toml").write_bytes(b"\xff\xfe\x00")
    assert "is not valid TOML" in refusal(tmp_path / "model.toml")


@pytest.mark.parametrize(
    ("header", "says"),
    [({"config": [1]}, "config is of type list"), ({"format": 9}, "is of format 9")],
)
def test_a_toml_over_a_header_that_cannot_be(tmp_path, header, says):
    write_own(tmp_path / "own.safetensors", header=header)
    path = tmp_path / "model.toml"
    path.write_text('file = "own.safetensors"', encoding="utf-8")
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert says in str(error.value)


def test_headers_are_json_that_other_tools_can_read(tmp_path):
    from safetensors import safe_open

    with safe_open(write_own(tmp_path / "m.safetensors"), "pt") as file:
        assert json.loads(file.metadata()["sensprobe"])["family"] == "s4d"
