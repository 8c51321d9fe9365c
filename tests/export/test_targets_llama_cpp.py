"""Names, types, rounding and bytes of GGUF, by the package that llama.cpp's converter uses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize
from runtimes import NAMES, applier, model, plan_of
from safetensors.torch import load_file

from sensprobe.export.runtimes import RUNTIMES, Fit, fit, write_for
from sensprobe.export.runtimes.llama_cpp import gguf_name, tensor_types
from sensprobe.plans.cost import cost

RUNTIME = RUNTIMES["llama.cpp"]
SCHEMES = {
    "*.in_proj.*": "int8/group32",
    "*.in_proj.*.bias": "fp32",
    "*.out_proj": "int4/group32",
    "*.out_proj.bias": "fp32",
    "layers.1.out_proj": "int4/group32/asym",
    "*.x_proj.*": "bf16",
    "embedding": "fp16",
    "head": "int8/group32",
}
ARCHITECTURES = {"mamba": gguf.MODEL_ARCH.MAMBA, "mamba2": gguf.MODEL_ARCH.MAMBA2}


def fitted(name: str) -> Fit:
    found = fit(RUNTIME, model(name), plan_of(name, SCHEMES))
    assert not found.dropped
    return found


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_of_the_converter(name: str) -> None:
    found = fitted(name)
    known = gguf.get_tensor_name_map(ARCHITECTURES[found.model.family], 2)
    for tensor in found.tensors:
        if tensor.name.endswith(".dt_bias"):
            tensor_name = tensor.name.replace(".dt_bias", ".dt_proj.bias")  # as the converter does
        else:
            tensor_name = tensor.name
        theirs = known.get_name(tensor_name, try_suffixes=(".weight", ".bias"))
        assert gguf_name(tensor.name) == theirs


@pytest.mark.parametrize("name", NAMES)
def test_each_regex_finds_the_one_tensor_it_is_for(name: str) -> None:
    found = fitted(name)
    names = {gguf_name(t.name): t for t in found.tensors}
    others = [f"blk.{i}.{n}.weight" for i in (10, 11, 20) for n in ("ssm_in", "ssm_out", "ssm_x")]
    types = tensor_types(found)
    hit: list[str] = []
    for regex, kind in types.items():
        matches = [n for n in [*names, *others] if re.search(regex, n)]
        assert len(matches) == 1, regex
        hit += matches
        assert gguf.GGMLQuantizationType[kind.upper()].name.lower() == kind
    assert hit == [n for n, t in names.items() if t.matrix]


def test_types_follow_the_plan(tmp_path: Path) -> None:
    plan = plan_of("mamba", SCHEMES)
    found = fit(RUNTIME, model("mamba"), plan)
    write_for(found, applier("mamba", plan), tmp_path / "out", name="mine")
    words = (tmp_path / "out" / "tensor-types.txt").read_text().split()
    lines = dict(word.split("=") for word in words)
    assert lines[r"^token_embd\.weight$"] == "f16"
    assert lines[r"^blk\.0\.ssm_in\.weight$"] == "q8_0"
    assert lines[r"^blk\.0\.ssm_out\.weight$"] == "q4_0"
    assert lines[r"^blk\.1\.ssm_out\.weight$"] == "q4_1"
    assert lines[r"^blk\.1\.ssm_x\.weight$"] == "bf16"
    assert lines[r"^blk\.1\.ssm_dt\.weight$"] == "f32"
    assert lines[r"^output\.weight$"] == "q8_0"


def rounded(tensor: torch.Tensor, kind: str) -> Any:
    """What llama.cpp stores of a float tensor, and its values."""
    type = gguf.GGMLQuantizationType[kind.upper()]
    stored = quantize(tensor.float().numpy(), type)
    return stored, dequantize(stored, type)


def test_q8_0_finds_the_codes_of_the_simulation(tmp_path: Path) -> None:
    plan = plan_of("mamba", SCHEMES)
    found = fit(RUNTIME, model("mamba"), plan)
    write_for(found, applier("mamba", plan), tmp_path / "out", name="mine")
    file = load_file(tmp_path / "out" / "model.safetensors")
    weights = applier("mamba", plan).tap(plan).weights
    checked = 0
    for tensor in found.tensors:
        layout = found.layouts.get(tensor.name)
        if layout is not None and layout.name == "q8_0":
            _, values = rounded(file[tensor.name], "q8_0")
            assert np.array_equal(values, tensor.of(weights).numpy())
            checked += 1
    assert checked == 3


def test_matrices_on_grids_of_its_own_are_left_unrounded_and_said_to_be(tmp_path: Path) -> None:
    plan = plan_of("mamba", SCHEMES)
    found = fit(RUNTIME, model("mamba"), plan)
    write_for(found, applier("mamba", plan), tmp_path / "out", name="mine")
    file = load_file(tmp_path / "out" / "model.safetensors")
    names = [f"backbone.layers.{i}.mixer.out_proj.weight" for i in range(2)]
    assert found.rounded_anew() == names
    for i, name in enumerate(names):
        assert torch.equal(file[name], model("mamba").weights[f"layers.{i}.out_proj"])
    assert "2 matrices become q4_0, q4_1" in (tmp_path / "out" / "README.md").read_text()


def test_a_gguf_file_weighs_what_the_plan_does(tmp_path: Path) -> None:
    """The bytes of every tensor as GGUF stores it, against the cost model."""
    plan = plan_of("mamba", SCHEMES)
    found = fit(RUNTIME, model("mamba"), plan)
    result = write_for(found, applier("mamba", plan), tmp_path / "out", name="mine")
    file = load_file(tmp_path / "out" / "model.safetensors")
    types = {gguf_name(t.name): "f32" for t in found.tensors}
    for regex, kind in tensor_types(found).items():
        types[next(n for n in types if re.search(regex, n))] = kind
    total = 0
    for tensor in found.tensors:
        stored, _ = rounded(file[tensor.name], types[gguf_name(tensor.name)])
        total += stored.nbytes
    planned = cost(found.model.sites.values(), found.plan).weight_bytes
    assert (total, total) == (planned, result.weight_bytes[1])
