"""Presets: every recipe resolves on its families, runs, and rounds what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mimo
import pytest
import selective
import torch
from builders import CONFIGS, tiny

from sensprobe import api, zoo
from sensprobe.errors import PlanError, SchemeError
from sensprobe.export import export_model, load_artefact
from sensprobe.models.apply import Applier, needs_calibration, observe, wanted_by
from sensprobe.numerics.rounding import encode
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import Resolved
from sensprobe.plans.presets import PRESETS
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind, matching
from sensprobe.session.plans import as_plan

MAKERS = {
    "mamba": (selective, selective.MAMBAS),
    "mamba2": (selective, selective.MAMBA2S),
    "s5": (mimo, mimo.CONFIGS),
}
MODELS = {
    f"{family} {name}": maker.tiny(config)
    for family, (maker, configs) in MAKERS.items()
    for name, config in configs.items()
}
SELECTIVE = [name for name, preset in PRESETS.items() if "mamba" in preset.schemes]
PAIRS = [
    (preset, name)
    for preset, found in PRESETS.items()
    for name, model in MODELS.items()
    if model.family in found.schemes
]
each_model = pytest.mark.parametrize(("preset", "name"), PAIRS)


def inputs(name: str, batch: int, length: int) -> torch.Tensor:
    return MAKERS[MODELS[name].family][0].inputs(MODELS[name].config, batch, length)


def resolved(preset: str, name: str) -> Resolved:
    model = MODELS[name]
    return PRESETS[preset].plan(model.family, model.sites.values()).resolve(model.sites.values())


def calibrated(name: str, plan: Resolved) -> Applier:
    model = MODELS[name]
    x = inputs(name, 6, 9)
    return Applier(model, observe(model, x, wanted_by(plan, model)))


@each_model
def test_every_preset_runs_on_every_model_it_is_for(preset, name):
    model, plan = MODELS[name], resolved(preset, name)
    x = inputs(name, 3, 7)
    outputs = model(x, calibrated(name, plan).tap(plan))
    assert outputs.isfinite().all()
    assert not torch.equal(outputs, model(x))
    full, ours = (cost(model.sites.values(), p).total_bytes for p in ({}, plan))
    assert ours < full


@pytest.mark.parametrize(
    ("preset", "family"), sorted({(preset, MODELS[name].family) for preset, name in PAIRS})
)
def test_every_pattern_names_something_in_some_model(preset, family):
    """What names nothing is passed over, so a slip of the pen would go unseen."""
    sites = [list(m.sites.values()) for m in MODELS.values() if m.family == family]
    other = [list(m.sites.values()) for m in MODELS.values() if m.family != family]
    for pattern, _ in PRESETS[preset].schemes[family]:
        assert any(matching(pattern, s) for s in [*sites, *other]), pattern


@each_model
def test_no_weight_or_state_is_forgotten(preset, name):
    plan = resolved(preset, name)
    for site in MODELS[name].sites.values():
        assert site.kind is Kind.ACTIVATION or site.name in plan, f"{site.name} is float32"


def bits(plan: Resolved, part: str) -> set[str]:
    return {str(s.format) for n, s in plan.items() if n.removeprefix("layers.0.") == part}


@pytest.mark.parametrize("name", ["mamba deep", "mamba2 groups"])
@pytest.mark.parametrize(
    ("preset", "matrix", "activation", "state"),
    [
        ("w8a8", "int8", "int8", "fp16"),
        ("w4a16", "int4", "fp16", "fp16"),
        ("w4a8", "int4", "int8", "fp16"),
        ("quamba", "int8", "int8", "fp16"),
        ("quamba2", "int4", "int8", "int8"),
        ("qmamba", "int8", "int8", "int4"),
    ],
)
def test_bits_are_those_of_the_name(name, preset, matrix, activation, state):
    plan = resolved(preset, name)
    for part, want in (
        ("in_proj.x", matrix),
        ("in_proj.z", matrix),
        ("out_proj", matrix),
        ("in_proj_in", activation),
        ("x", activation),
        ("B", activation),
        ("out_proj_in", activation),
        ("state", state),
    ):
        assert bits(plan, part) == {want}, part
    assert bits(plan, "norm") == {"fp16"}


@pytest.mark.parametrize(
    ("preset", "matrix", "B", "A"),
    [
        ("qs5-w8a8", "int8", "int8", "int8"),
        ("qs5-w4a8-wssm8", "int4", "int8", "int8"),
        ("qs5-w4a8-wa8", "int4", "int4", "int8"),
        ("qs5-w4a8", "int4", "int4", "int4"),
        ("qs5-w2a8-wssm8", "int2", "int8", "int8"),
    ],
)
def test_bits_of_an_s5_are_those_of_the_name(preset, matrix, B, A):
    plan = resolved(preset, "s5 plain")
    wanted = {"out_proj": matrix, "A": A, "B": B, "C": B, "D": B, "x": "int8", "state": "int8"}
    assert {part: bits(plan, part) for part in wanted} == {p: {b} for p, b in wanted.items()}


def test_a_preset_of_q_s5_rounds_both_factors_of_a_norm_of_two():
    config = replace(mimo.PLAIN, norm_kind="layer-product", final_norm=True)
    sites = mimo.tiny(config).sites.values()
    plan = PRESETS["qs5-w8a8"].plan("s5", sites).resolve(sites)
    factors = [f"{at}.norm_{of}" for at in ("layers.1", "final") for of in ("in", "factor")]
    assert [str(plan[name]) for name in factors] == ["int8"] * 4


def test_quamba_clips_x_and_rotates_what_out_proj_reads_and_no_more():
    base, ours = resolved("w8a8", "mamba deep"), resolved("quamba", "mamba deep")
    differing = {
        name.split(".", 2)[-1]: str(ours.get(name, "-"))
        for name in base
        if base[name] != ours.get(name)
    }
    assert differing == {
        "encoder": "fp16",
        "head": "fp16",
        "head_in": "-",
        "x": "int8/p99.999",
        "out_proj": "int8/hadamard",
        "out_proj_in": "int8/hadamard",
    }


def test_quamba2_has_a_scale_a_group_for_B_and_C_and_a_channel_for_x():
    plan = resolved("quamba2", "mamba2 groups")
    assert {str(plan[f"layers.0.{part}"]) for part in "BCx"} == {"int8/channel"}
    model = MODELS["mamba2 groups"]
    tap = calibrated("mamba2 groups", plan).tap(plan)
    assert tap.scales["layers.0.B"][0].shape == (model.config.groups, 1)
    assert tap.scales["layers.0.x"][0].shape == (model.config.heads, model.config.d_head)
    assert str(plan["layers.0.out_proj"]) == "int4/group128/gptq/hadamard"


@pytest.mark.parametrize("preset", ["quamba", "quamba2", "qmamba"])
@pytest.mark.parametrize("name", ["mamba deep", "mamba2 groups", "mamba2 tied"])
def test_an_exported_preset_is_what_was_simulated(preset, name, tmp_path):
    model, plan = MODELS[name], resolved(preset, name)
    applier = calibrated(name, plan)
    result = export_model(model, plan, applier, tmp_path / "out", name=preset)
    assert result.weight_bytes == cost(model.sites.values(), plan).weight_bytes
    again, x = load_artefact(tmp_path / "out"), selective.inputs(model.config, 3, 7)
    assert torch.equal(again.model(x, again.tap), model(x, applier.tap(plan)))


def test_the_rotated_codes_are_what_the_file_holds(tmp_path):
    """Folded: codes in the file are those of the weight times the transform."""
    from sensprobe.numerics.transforms import rotate

    name, plan = "mamba deep", resolved("quamba", "mamba deep")
    model = MODELS[name]
    site = model.sites["layers.0.out_proj"]
    folded = encode(rotate(model.weights[site.name].double()), parse("int8"), site)[""].codes
    applier = calibrated(name, plan)
    assert torch.equal(applier.encoded(site, plan[site.name])[""].codes, folded)


@pytest.mark.parametrize("preset", PRESETS)
def test_other_families_are_told(preset):
    sites = tiny(CONFIGS["plain"]).sites.values()
    whose = " and ".join(PRESETS[preset].schemes)
    with pytest.raises(PlanError, match=rf"{preset} is for {whose} models.*is\s+s4d"):
        PRESETS[preset].plan("s4d", sites)


def test_a_size_that_cannot_be_rotated_is_an_error():
    """The recipe is about rotation: leaving it out would be another recipe."""
    model = selective.tiny(replace(selective.MAMBAS["bare"], d_model=5))
    PRESETS["quamba"].plan("mamba", model.sites.values())  # out_proj reads 2 · 5 channels
    with pytest.raises(SchemeError, match=r"in_proj\.z .*holds 5 value"):
        PRESETS["quamba2"].plan("mamba", model.sites.values())


@pytest.mark.parametrize("preset", SELECTIVE)
def test_which_presets_need_data(preset):
    plan = resolved(preset, "mamba deep")
    static = preset != "w4a16"
    assert needs_calibration(plan, MODELS["mamba deep"].sites) == static


# -- by name --------------------------------------------------------------------------------------


def test_a_preset_is_a_plan_by_name():
    model = MODELS["mamba deep"]
    plan = as_plan("quamba", model)
    assert plan.name == "quamba"
    assert plan.resolve(model.sites.values()) == resolved("quamba", "mamba deep")


def test_several_plans_override_one_another():
    model = MODELS["mamba deep"]
    plan = as_plan(["quamba", {"layers.*.x": "int8/p99.95"}], model)
    assert plan.name == "quamba"
    changed = plan.resolve(model.sites.values())
    assert str(changed["layers.1.x"]) == "int8/p99.95"
    assert changed | {f"layers.{i}.x": parse("int8/p99.999") for i in (0, 1)} == resolved(
        "quamba", "mamba deep"
    )


def test_a_presets_name_comes_before_a_files(tmp_path, monkeypatch):
    model = MODELS["mamba deep"]
    monkeypatch.chdir(tmp_path)
    Path("w8a8").write_text(json.dumps({"sensprobe_plan": 1, "schemes": [["head", "int2"]]}))
    assert as_plan("w8a8", model).name == "w8a8"
    assert len(as_plan("w8a8", model).entries) > 1
    for file in ("./w8a8", Path("w8a8")):
        assert as_plan(file, model).entries == (("head", parse("int2")),)


def test_a_name_that_is_nothing_lists_what_there_is():
    with pytest.raises(PlanError, match=r"no plan 'qamba'.*Did you mean q.*Presets: w8a8, w4a16"):
        as_plan("qamba", MODELS["mamba deep"])


def test_the_names_are_no_models():
    assert not set(PRESETS) & set(zoo.shipped())


def test_the_listing_has_costs_or_says_why_not():
    bare = api.list_presets()
    assert [row["name"] for row in bare] == list(PRESETS)
    assert all(row["source"] and row["differs"] and row["schemes"] for row in bare)
    assert "cost" not in bare[0]
    shipped = api.list_presets("s4d-digits")
    assert all(" is for " in row["why_not"] for row in shipped)
