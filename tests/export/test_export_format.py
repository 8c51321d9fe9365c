"""The folder's documented form: enough to unpack the weights without this package."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from tiny_models import NAMES, applier, tiny

from sensprobe.export import export_model
from sensprobe.export.document import schema as config_schema
from sensprobe.plans.plan import schema as plan_schema
from sensprobe.plans.scheme import parse

SITE = "layers.0.A"


def export(out: Path, words: str, site: str = SITE) -> torch.Tensor:
    """Export with one site in a scheme; returns what the simulation computes with there."""
    name, plan = NAMES[0], {site: parse(words)}
    export_model(tiny(name), plan, applier(name), out, name="mine")
    return applier(name).tap(plan).weights[site]


WORDS = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "uint8": "U8", "int8": "I8",
    "int16": "I16", "int32": "I32",
}  # fmt: skip
WIDTHS = {word: 4 if "32" in word else 1 if word.endswith("t8") else 2 for word in WORDS}


def layers_of(name: str) -> list[str]:
    """`layers.{0,2-3}.A` -> layers.0.A, layers.2.A, layers.3.A"""
    if "{" not in name:
        return [name]
    head, _, rest = name.partition("{")
    inside, _, tail = rest.partition("}")
    ends = [part.split("-") for part in inside.split(",")]
    return [f"{head}{k}{tail}" for a, *b in ends for k in range(int(a), int((b or [a])[0]) + 1)]


DTYPES = {"F32": "<f4", "F16": "<f2", "U8": "u1", "I8": "i1", "I16": "<i2", "I32": "<i4"}


class Reader:
    """Reads an artefact by its documentation alone: struct, json, numpy."""

    def __init__(self, folder: Path) -> None:
        content = (folder / "model.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        self.header = json.loads(content[8 : 8 + length])
        self.data = content[8 + length :]
        self.config = json.loads((folder / "config.json").read_text())
        self.header.pop("__metadata__", None)
        self.entries = self.config["tensors"]
        if isinstance(self.entries, list):
            self.entries = self.unfold(self.entries)

    def unfold(self, rows: list[list[Any]]) -> dict[str, dict[str, Any]]:
        """The compact form: what each row stands for, one after the other in one tensor."""
        assert self.header.keys() == {"packed"}
        self.header, entries, at = {}, {}, 0
        for name, dtype, shape, *coded in rows:
            for full in layers_of(name):
                entries[full] = {
                    "shape": shape,
                    **dict(zip(("bits", "signed"), coded, strict=False)),
                }
                count = int(np.prod(shape))
                size = -(-count * coded[0] // 8) if coded else count * WIDTHS[dtype]
                stored = [size] if coded else shape
                word = {"dtype": WORDS[dtype], "shape": stored, "data_offsets": [at, at + size]}
                self.header[full], at = word, at + size
        assert at == len(self.data)
        return entries

    def tensor(self, name: str) -> np.ndarray:
        entry = self.header[name]
        begin, end = entry["data_offsets"]
        return np.frombuffer(self.data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])

    def codes(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        stream = int.from_bytes(self.tensor(name).tobytes(), "little")
        out = []
        for _ in range(int(np.prod(entry["shape"]))):
            code = stream & (2 ** entry["bits"] - 1)
            stream >>= entry["bits"]
            if entry["signed"] and code >= 2 ** (entry["bits"] - 1):
                code -= 2 ** entry["bits"]
            out.append(code)
        return np.array(out, np.int64).reshape(entry["shape"])


def same(tensor: torch.Tensor, values: np.ndarray) -> None:
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    assert np.array_equal(real.numpy(), values.astype(np.float32))


def test_signed_codes(tmp_path: Path) -> None:
    site = "layers.0.C"
    value = export(tmp_path / "m", "int5/head", site)
    file = Reader(tmp_path / "m")
    codes = file.codes(f"{site}.codes")
    assert codes.min() < 0 < codes.max()
    assert (abs(codes).max((1, 2)) == 15).all()  # every head reaches the end of its range
    same(value, codes.astype(np.float32) * file.tensor(f"{site}.scale").astype(np.float32))


def test_unsigned_codes_with_zero_points(tmp_path: Path) -> None:
    value = export(tmp_path / "m", "int3/head/asym/parts/s32")
    file = Reader(tmp_path / "m")
    codes = file.codes(f"{SITE}.codes")
    assert (codes.min(), codes.max()) == (0, 7)
    offset = (codes - file.tensor(f"{SITE}.zero")).astype(np.float32)
    same(value, offset * file.tensor(f"{SITE}.scale"))


def test_exponents_for_scales(tmp_path: Path) -> None:
    value = export(tmp_path / "m", "int7/channel/pow2", "head")
    file = Reader(tmp_path / "m")
    assert file.header["head.scale"]["dtype"] == "I8"
    same(value, file.codes("head.codes") * 2.0 ** file.tensor("head.scale"))


def test_magnitude_and_phase(tmp_path: Path) -> None:
    value = export(tmp_path / "m", "polar(m5,p7)/head")
    file = Reader(tmp_path / "m")
    scale = file.tensor(f"{SITE}.magnitude.scale").astype(np.float64)
    magnitude = file.codes(f"{SITE}.magnitude.codes") * scale
    steps = file.codes(f"{SITE}.phase.codes") * file.tensor(f"{SITE}.phase.scale").astype(float)
    phase = steps + file.tensor(f"{SITE}.phase.low")
    expected = magnitude * np.exp(1j * phase)
    assert np.allclose(value.numpy(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("words", "dtype"), [("fp16", "F16"), ("bf16", "BF16")])
def test_unscaled_weights_keep_their_own_dtype(words: str, dtype: str, tmp_path: Path) -> None:
    export(tmp_path / "m", words)
    file = Reader(tmp_path / "m")
    assert file.header[SITE]["dtype"] == dtype
    assert file.header[SITE]["shape"] == [3, 5, 2]
    assert file.header["head"]["dtype"] == "F32"


def test_static_scales_of_states_and_nothing_else_of_them(tmp_path: Path) -> None:
    name = NAMES[0]
    plan = {"layers.0.x": parse("int8/dynamic"), "layers.0.state": parse("int8/head/asym")}
    export_model(tiny(name), plan, applier(name), tmp_path / "m", name="")
    kept = [n for n in Reader(tmp_path / "m").header if n.startswith(("layers.0.x", "layers.0.s"))]
    assert sorted(kept) == ["layers.0.state.scale", "layers.0.state.zero"]


def document(out: Path, name: str) -> Any:
    return json.loads((out / name).read_text())


def test_documents_follow_their_schemas_and_name_sites_in_full(tmp_path: Path) -> None:
    export(tmp_path / "m", "int5/head")
    plan, config = (document(tmp_path / "m", n) for n in ("plan.json", "config.json"))
    Draft202012Validator(plan_schema()).validate(plan)
    Draft202012Validator(config_schema()).validate(config)
    Draft202012Validator.check_schema(config_schema())
    assert plan == {"sensprobe_plan": 1, "name": "mine", "schemes": [[SITE, "int5/head"]]}
    assert (config["name"], config["family"], config["semantics"]) == ("mine", "s4d", 1)
    assert config["input"]["axes"] == ["batch", "length", 2]
    assert config["output"] == {
        "axes": ["batch", 3],
        "dtype": "float32",
        "meaning": "logits",
    }
    assert set(config["fingerprints"]) == {"model", "plan"}
    reader = Reader(tmp_path / "m")
    assert reader.entries.keys() == reader.header.keys()
