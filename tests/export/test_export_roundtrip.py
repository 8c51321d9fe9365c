"""An artefact weighs what was predicted and computes what was simulated, for every plan."""

from __future__ import annotations

import json
import struct
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import INVARIANT, NAMES, SELECTIVE, applier, fitting, inputs, schemes, tiny

from sensprobe.export import ExportResult, export_model, load_artefact
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import Resolved, from_json
from sensprobe.plans.scheme import Scheme, parse


def data_bytes(path: Path) -> int:
    """Sum of the tensors' data sizes, from the file alone (safetensors: length, header, data)."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    ends = [entry["data_offsets"] for entry in header.values()]
    total = sum(end - begin for begin, end in ends)
    assert 8 + length + total == len(content), "the file holds bytes that belong to no tensor"
    return total


def check(name: str, plan: Resolved, folder: Path) -> ExportResult:
    """Export, and hold the three claims: bytes as predicted, the same plan, the same outputs."""
    model, tap = tiny(name), applier(name).tap(plan)
    result = export_model(model, plan, applier(name), folder, name="mine")
    expected = cost(model.sites.values(), plan).weight_bytes
    assert data_bytes(folder / "model.safetensors") == result.weight_bytes == expected
    again = load_artefact(folder)
    assert dict(again.tap.plan) == plan
    x = inputs(model)
    with torch.inference_mode():
        simulated, reloaded = model(x, tap), again.model(x, again.tap)
    assert simulated.numpy().tobytes() == reloaded.numpy().tobytes()
    return result


@cache
def choices(name: str) -> dict[str, list[Scheme]]:
    return {site.name: fitting(site) for site in tiny(name).sites.values()}


@st.composite
def plans(draw: st.DrawFn) -> tuple[str, Resolved]:
    """A model and any scheme that makes sense on any of its sites."""
    name = draw(st.sampled_from(NAMES))
    plan: Resolved = {}
    for site, fit in choices(name).items():
        if draw(st.booleans()) and (scheme := draw(st.sampled_from(fit))) and not scheme.exact:
            plan[site] = scheme
    return name, plan


@examples(40)
@given(plans())
def test_any_plan_weighs_what_cost_says_and_reloads_to_the_bit(case: tuple[str, Resolved]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(*case, Path(folder) / "out")


def test_the_drawn_schemes_cover_every_format_and_every_scale() -> None:
    used = {s for name in NAMES for fit in choices(name).values() for s in fit}
    assert {str(s.format).split("(")[0] for s in schemes()} == {
        str(s.format).split("(")[0] for s in used
    }
    assert {(s.scales, s.asym, s.granularity) for s in used if s.scaled} == {
        (s.scales, s.asym, s.granularity) for s in schemes() if s.scaled
    }


PLANS = {
    "exact": {},
    "static int8 state": {"*.state": "int8"},
    "static int8 state a head": {"*.state": "int8/head/asym/parts", "*.A": "int8/head/asym/parts"},
    "dynamic state": {"*.state": "int6/head/asym/dynamic", "*.B": "int4/channel/pow2"},
    "feedback": {"*.state": "int8/feedback/clip3", "*.C": "int3/group2/asym/s32"},
    "stochastic": {"*.state": "int4/stochastic7", "*.x": "int6/stochastic", "*.D": "int2"},
    "every activation": {
        "*.x": "int8",
        "*.y": "int7/asym",
        "*.out": "e5m2/pow2",
        "head_in": "fp16",
    },
    "polar": {"*.A": "logpolar(m1,p11)/head", "*.B": "polar(m3,p7)", "*.C": "polar(m8,p8)/pow2"},
    "wide": {"*.A": "bf16", "*.C": "fp16", "encoder": "bf16", "head": "e2m1/channel"},
}


@pytest.mark.parametrize("name", INVARIANT)
@pytest.mark.parametrize("words", PLANS.values(), ids=PLANS)
def test_these_plans_too(name: str, words: dict[str, str], tmp_path: Path) -> None:
    document = {"sensprobe_plan": 1, "schemes": [[p, s] for p, s in words.items()]}
    check(name, from_json(document).resolve(tiny(name).sites.values()), tmp_path / "out")


SELECTIVE_PLANS = {
    "exact": {},
    "static": {"*.state": "int8", "*.conv_state": "int4", "*.decay": "int8/asym"},
    "feedback": {"*.state": "int8/feedback/clip3", "*.conv_state": "int4/stochastic/every3"},
    "dynamic": {"*.state": "int6/asym/dynamic", "*.decay": "e4m3/dynamic", "*.B": "int4"},
    "decoupled": {"*.state": "int4/decoupled", "*.conv_state": "int8/decoupled/stochastic/pow2"},
    "rotated, fed forward": {
        "*.out_proj": "int4/group2/hadamard/gptq",
        "*.out_proj_in": "int8/hadamard",
        "*.in_proj.x": "int3/channel/gptq",
        "*.in_proj_in": "int8/p99/hadamard/s32",
    },
    "weights": {"*.in_proj.x": "int4/group4", "*.A": "log4", "*.conv": "int5", "*.out": "int8"},
}


@pytest.mark.parametrize("name", SELECTIVE)
@pytest.mark.parametrize("words", SELECTIVE_PLANS.values(), ids=SELECTIVE_PLANS)
def test_these_plans_of_selective_models_too(
    name: str, words: dict[str, str], tmp_path: Path
) -> None:
    document = {"sensprobe_plan": 1, "schemes": [[p, s] for p, s in words.items()]}
    check(name, from_json(document).resolve(tiny(name).sites.values()), tmp_path / "out")


@pytest.mark.parametrize("name", SELECTIVE)
def test_a_document_says_what_a_model_reads_and_writes(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    export_model(model, {}, applier(name), tmp_path / "out", name="m")
    document = json.loads((tmp_path / "out" / "config.json").read_text())
    tokens = model.config.encoder == "embedding"
    assert document["input"]["dtype"] == ("int64" if tokens else "float32")
    assert len(document["input"]["axes"]) == inputs(model).ndim
    assert len(document["output"]["axes"]) == model(inputs(model)).ndim


def test_a_plan_it_was_not_written_with_computes_something_else(tmp_path: Path) -> None:
    """The comparison above can fail."""
    name, model = NAMES[1], tiny(NAMES[1])
    plan = {"layers.0.state": parse("int8")}
    export_model(model, plan, applier(name), tmp_path / "out", name="")
    again, x = load_artefact(tmp_path / "out"), inputs(model)
    other = applier(name).tap({"layers.0.state": parse("int7")})
    assert not torch.equal(again.model(x, again.tap), model(x, other))


def test_the_result_adds_up(tmp_path: Path) -> None:
    result = check(NAMES[0], {"layers.0.A": parse("int5/head")}, tmp_path / "out")
    sizes = {path.name: path.stat().st_size for path in result.path.iterdir()}
    assert set(sizes) == {"model.safetensors", "plan.json", "config.json", "README.md"}
    assert result.file_bytes == sizes["model.safetensors"]
    assert result.file_bytes == result.weight_bytes + result.header_bytes
    assert result.folder_bytes == sum(sizes.values())


def test_the_same_export_is_the_same_bytes(tmp_path: Path) -> None:
    plan = {"layers.0.A": parse("int5/head"), "layers.0.state": parse("int8/asym")}
    for out in "ab":
        export_model(tiny(NAMES[1]), plan, applier(NAMES[1]), tmp_path / out / "m", name="m")
    for path in (tmp_path / "a" / "m").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "m" / path.name).read_bytes(), path.name
