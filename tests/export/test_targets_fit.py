"""What of a plan a target keeps, what becomes of the rest, and what is refused."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import selective
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from runtimes import CONFIGS, applier, model, plan_of
from tiny_models import tiny

from sensprobe.cli.options import RUNTIMES as SAID
from sensprobe.errors import CheckpointError, RunError, UnsupportedError, UsageError
from sensprobe.export import folder
from sensprobe.export.runtimes import (
    RUNTIMES,
    Runtime,
    fit,
    grouped,
    require_family,
    runtime_named,
    write_for,
)
from sensprobe.models import Model
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.plans.fitting import why_not
from sensprobe.plans.plan import Resolved, from_json
from sensprobe.plans.presets import PRESETS
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind
from sensprobe.session.source import open_model
from sensprobe.testing.runtime import RuntimeContract

EVERYTHING = {
    "*": "int8/channel",
    "*.bias": "fp16",
    "embedding": "int4/group32",
    "*.in_proj.x": "int8/channel/hadamard",
    "*.state": "int8/dynamic",
    "*.x": "int8",
}


def reasons(target: str, schemes: dict[str, str], name: str = "mamba2") -> dict[str, str]:
    found = fit(RUNTIMES[target], model(name), plan_of(name, schemes))
    return {change.site: change.why for change in found.changes}


@pytest.mark.parametrize("target", RUNTIMES)
@pytest.mark.parametrize("preset", ["quamba2", "w4a8"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_scheme_is_kept_or_has_a_row(target: str, preset: str, name: str) -> None:
    """Whatever the plan: what is written differs from it exactly where a row says so."""
    if model(name).family not in RUNTIMES[target].matrices:
        return
    sites = model(name).sites
    plan = PRESETS[preset].plan(model(name).family, sites.values()).resolve(sites.values())
    plan |= plan_of(name, {"*.D": "fp16", "layers.0.out_proj": "int8/group32"})
    found = fit(RUNTIMES[target], model(name), plan)
    rows = {change.site: change for change in found.changes}
    for site in sites:
        asked, kept = plan.get(site), found.plan.get(site)
        assert (site in rows) == (asked != kept), site
        if site in rows:
            activation = sites[site].kind is Kind.ACTIVATION
            assert rows[site].becomes == (
                "the runtime's dtype" if activation else str(kept or "fp32")
            )
            assert rows[site].why
    assert sum(r["count"] for r in grouped(model(name), found.changes)) == len(rows)


NEAR = ["int8/channel", "int4/group32", "int4/group32/asym", "e4m3/channel", "int8", "fp16", "bf16"]
LIVE = ["int8/dynamic", "e4m3/dynamic", "int8"]


@st.composite
def plans(draw: st.DrawFn) -> tuple[str, str, Resolved]:
    """A target, a model it knows, and a plan some of which it can express, layers often alike."""
    target, name = draw(st.sampled_from(list(RUNTIMES))), draw(st.sampled_from(list(CONFIGS)))
    name = name if model(name).family in RUNTIMES[target].matrices else "mamba2"
    chosen: dict[str, str] = {}
    for pattern in ("*.in_proj.*", "*.out_proj", "*.x_proj.*", "head", "embedding"):
        chosen[pattern] = draw(st.sampled_from(NEAR))
    chosen |= {p: draw(st.sampled_from(LIVE)) for p in ("*.in_proj_in", "*.out_proj_in", "*.x")}
    chosen |= {p: draw(st.sampled_from(NEAR[-2:])) for p in ("*.bias", "*.state", "*.norm", "*.D")}
    sites = list(model(name).sites)
    for site in draw(st.lists(st.sampled_from(sites), max_size=4)):
        fits = [s for s in (*NEAR, *LIVE) if why_not(parse(s), model(name).sites[site]) is None]
        chosen[site] = draw(st.sampled_from([*fits, "fp32"]))
    return target, name, plan_of(name, chosen)


@settings(max_examples=100, deadline=None)
@given(plans())
def test_whatever_the_plan_rows_tell_every_difference(case: tuple[str, str, Resolved]) -> None:
    """And what is written is kept whole when it is asked for again."""
    target, name, plan = case
    try:
        found = fit(RUNTIMES[target], model(name), plan)
    except UsageError:
        assume(False)
    rows = {change.site for change in found.changes}
    assert rows == {n for n in model(name).sites if plan.get(n) != found.plan.get(n)}
    again = fit(RUNTIMES[target], model(name), found.plan)
    assert (again.changes, again.plan, again.layouts) == ((), found.plan, found.layouts)


@pytest.mark.parametrize("target", [t for t in RUNTIMES if "mamba2" in RUNTIMES[t].matrices])
def test_fitting_what_was_fitted_changes_nothing(target: str) -> None:
    found = fit(RUNTIMES[target], model("mamba2"), plan_of("mamba2", EVERYTHING | {"*.D": "fp16"}))
    again = fit(RUNTIMES[target], model("mamba2"), found.plan)
    assert not again.changes
    assert again.plan == found.plan


def test_rows_of_one_tensor_stand_or_fall_together() -> None:
    schemes = {
        "layers.0.in_proj.*": "int4/group32",
        "*.in_proj.dt": "int4/group16",
        "*.out_proj": "int8",
    }
    found = reasons("compressed-tensors", schemes)
    assert set(found) == {
        *(f"layers.0.in_proj.{part}" for part in ("z", "x", "B", "C", "dt")),
        *(f"layers.1.in_proj.{part}" for part in ("z", "x", "B", "C", "dt")),
    } - {f"layers.1.in_proj.{part}" for part in ("z", "x", "B", "C")}
    assert (
        "in_proj.weight is one tensor (layers.0.in_proj.z in int4/group32"
        in found["layers.0.in_proj.dt"]
    )


def test_a_scale_for_a_tensor_and_one_a_row_share_a_layout() -> None:
    schemes = {"*.in_proj.*": "int8", "*.in_proj.z": "int8/channel", "*.in_proj.B": "int8/group99"}
    assert not reasons("compressed-tensors", schemes)


def test_states_have_one_format_for_all_layers() -> None:
    found = reasons("vllm", {"*.state": "bf16", "layers.1.state": "fp16", "*.out_proj": "int8"})
    assert found["layers.0.state"] == found["layers.1.state"]
    assert found["layers.0.state"] == "vllm has one format for every layer's state"
    assert "layers.0.state" not in reasons("vllm", {"*.state": "bf16"})


@pytest.mark.parametrize(
    ("target", "site", "scheme", "why"),
    [
        ("vllm", "out_proj", "int5/channel", "vllm has no int5 matrices"),
        ("vllm", "out_proj", "int4/group16", "pack-quantized has groups of 32, 64, 128"),
        ("vllm", "out_proj", "int4/group32/s32", "pack-quantized keeps scales as s16"),
        ("vllm", "out_proj", "int8/hadamard", "its codes are those of a rotated matrix"),
        ("vllm", "out_proj", "int8/channel/asym", "pack-quantized has no zero points"),
        ("vllm", "state", "int8/dynamic", "vllm keeps this state in fp32 or fp16 or bf16"),
        ("vllm", "conv", "int8", "vllm keeps this tensor in fp16"),
        ("vllm", "A", "fp16", "vllm keeps this tensor in fp32"),
        ("vllm", "y", "int8/dynamic", "an activation stays in the runtime's own dtype"),
        ("modelopt", "out_proj", "int4/group32/asym", "W4A16_AWQ has no zero points"),
        ("llama.cpp", "out_proj", "int8/channel", "q8_0 has no scale a channel"),
        ("llama.cpp", "conv", "fp16", "llama.cpp keeps this tensor in fp32"),
        ("compressed-tensors", "out_proj", "int4/group24", "needs groups that divide the 64"),
        ("torchao", "out_proj", "e4m3/channel", "torchao has no e4m3 matrices"),
    ],
)
def test_why_not(target: str, site: str, scheme: str, why: str) -> None:
    found = reasons(target, {"*.in_proj.*": "fp16", f"layers.0.{site}": scheme})
    assert why in found[f"layers.0.{site}"]


def test_vllm_packs_whole_words_of_rows() -> None:
    odd = selective.tiny(Mamba2Config(**selective.WIDE, d_state=8, d_head=16))
    plan = {n: parse("int4/group32") for n in odd.sites if ".in_proj." in n or "out_proj" in n}
    plan = {n: s for n, s in plan.items() if odd.sites[n].kind is Kind.WEIGHT}
    dropped = {c.site: c.why for c in fit(RUNTIMES["vllm"], odd, plan).dropped}
    assert dropped.keys() == {n for n in plan if ".in_proj." in n}
    assert set(dropped.values()) == {"pack-quantized packs 8 rows together, and there are 148"}
    whole = {n: parse("int8/channel") for n in plan}
    assert not fit(RUNTIMES["vllm"], odd, whole).dropped


def test_zero_points_beyond_the_codes_are_not_expressed() -> None:
    """A row of weights on one side of zero has its zero point far outside."""
    plan = plan_of("mamba2", {"*.out_proj": "int4/channel/asym"})
    shifted = {**model("mamba2").weights}
    shifted["layers.1.out_proj"] = shifted["layers.1.out_proj"].clone()
    shifted["layers.1.out_proj"][5] += 4
    other = type(model("mamba2"))(model("mamba2").config, shifted)
    found = fit(RUNTIMES["compressed-tensors"], other, plan)
    assert [c.site for c in found.changes] == ["layers.1.out_proj"]
    assert "zero point" in found.changes[0].why


def test_unknown_targets_families_and_plans_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no runtime 'trt'\. There are: .*llama\.cpp, a folder"):
        runtime_named("trt")
    with pytest.raises(UnsupportedError, match="vllm knows mamba and mamba2 models, and this one"):
        require_family(RUNTIMES["vllm"], tiny("one layer"))
    with pytest.raises(
        UnsupportedError, match="modelopt knows mamba2 models, and this one is mamba"
    ):
        require_family(RUNTIMES["modelopt"], model("mamba"))
    plan = plan_of("mamba", {"*.in_proj.*": "int8/channel"})
    with pytest.raises(
        UsageError, match=r"vllm can express nothing of this plan \(layers.0.in_proj"
    ):
        fit(RUNTIMES["vllm"], model("mamba"), plan)


def test_the_command_line_names_the_targets_there_are() -> None:
    assert sorted(SAID) == sorted(RUNTIMES)


# -- the folder -----------------------------------------------------------------------------------

PLAN = {"*.out_proj": "int8/channel", "*.state": "int4/dynamic"}


def export(out: Path, target: str = "vllm", overwrite: bool = False) -> None:
    plan = plan_of("mamba2", PLAN)
    fitted = fit(RUNTIMES[target], model("mamba2"), plan)
    write_for(fitted, applier("mamba2", plan), out, name="mine", overwrite=overwrite)


@pytest.mark.parametrize("target", RUNTIMES)
def test_a_folder_says_what_it_is_and_what_it_lost(target: str, tmp_path: Path) -> None:
    if target == "modelopt":
        plan = plan_of("mamba2", PLAN | {"*.out_proj": "int4/group32"})
        write_for(
            fit(RUNTIMES[target], model("mamba2"), plan),
            applier("mamba2", plan),
            tmp_path / "m",
            name="mine",
        )
    elif target == "llama.cpp":
        plan = plan_of("mamba2", PLAN | {"*.out_proj": "int8/group32"})
        write_for(
            fit(RUNTIMES[target], model("mamba2"), plan),
            applier("mamba2", plan),
            tmp_path / "m",
            name="mine",
        )
    else:
        export(tmp_path / "m", target)
    card = (tmp_path / "m" / "README.md").read_text()
    assert card.startswith(f"# mine, for {target}\n")
    first = RUNTIMES[target].states["state"][0]
    assert f"| `layers.*.state` | 2 | `int4/dynamic` | {first} |" in card
    plan = from_json(json.loads((tmp_path / "m" / "plan.json").read_text()))
    kept = plan.resolve(model("mamba2").sites.values())
    assert not fit(RUNTIMES[target], model("mamba2"), kept).changes


def test_a_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    export(tmp_path / "m")
    with pytest.raises(UsageError, match="holds an exported model already"):
        export(tmp_path / "m")
    export(tmp_path / "m", overwrite=True)
    (tmp_path / "m" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"did not write \(mine.txt\)"):
        export(tmp_path / "m", overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other things \(notes\)"):
        export(tmp_path / "other", overwrite=True)


@pytest.mark.parametrize("before", ["modelopt", "llama.cpp", "torchao"])
def test_a_folder_for_one_runtime_gives_way_to_one_for_another(before: str, tmp_path: Path) -> None:
    plan = plan_of("mamba2", PLAN | {"*.out_proj": "int4/group32"})
    fitted = fit(RUNTIMES[before], model("mamba2"), plan)
    write_for(fitted, applier("mamba2", plan), tmp_path / "m", name="mine")
    with pytest.raises(UsageError, match="holds an exported model already"):
        export(tmp_path / "m")
    export(tmp_path / "m", overwrite=True)
    held = {path.name for path in (tmp_path / "m").iterdir()}
    assert held == {"README.md", "config.json", "model.safetensors", "plan.json"}


@pytest.mark.parametrize("target", RUNTIMES)
def test_lines_that_load_a_folder_hold_for_any_name(target: str, tmp_path: Path) -> None:
    schemes = {"*.out_proj": "int8/group32", "*.state": "fp32", "*.conv": "fp16"}
    fitted = fit(RUNTIMES[target], model("mamba2"), plan_of("mamba2", schemes))
    folder = tmp_path / 'the "best" of {us}'
    plan = plan_of("mamba2", schemes)
    result = write_for(fitted, applier("mamba2", plan), folder, name="mine")
    if result.use[0].startswith("from "):  # lines of Python, else a command
        named = [
            n.value
            for n in ast.walk(ast.parse("\n".join(result.use)))
            if isinstance(n, ast.Constant)
        ]
    else:
        named = [word for line in result.use for word in shlex.split(line)]
    assert str(folder) in named
    assert str(tmp_path) not in (folder / "README.md").read_text()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.os, "fsync", full)
    with pytest.raises(RunError, match="disk is full; free some space"):
        export(tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", RUNTIMES)
def test_a_folder_without_packed_weights_is_no_quantized_one(target: str, tmp_path: Path) -> None:
    plan = plan_of("mamba2", {"embedding": "fp16", "*.norm": "fp32"})
    fitted = fit(RUNTIMES[target], model("mamba2"), plan)
    assert not fitted.layouts
    write_for(fitted, applier("mamba2", plan), tmp_path / "m", name="mine")
    assert "quantization_config" not in json.loads((tmp_path / "m" / "config.json").read_text())
    assert not (tmp_path / "m" / "hf_quant_config.json").exists()
    weights = applier("mamba2", fitted.plan).tap(fitted.plan).weights
    assert torch.equal(open_model(tmp_path / "m").model.weights["embedding"], weights["embedding"])


@pytest.mark.parametrize("target", ["vllm", "modelopt", "torchao"])
def test_packed_folders_are_not_read_as_checkpoints(target: str, tmp_path: Path) -> None:
    schemes = {"*.out_proj": "int4/group32", "*.in_proj.*": "int4/group32"}
    plan = plan_of("mamba2", schemes)
    fitted = fit(RUNTIMES[target], model("mamba2"), plan)
    write_for(fitted, applier("mamba2", plan), tmp_path / "m", name="mine")
    with pytest.raises(CheckpointError, match=r"packed for .*Name the model it was made from"):
        open_model(tmp_path / "m")


def test_an_unquantized_folder_reads_back_as_the_plan_left_it(tmp_path: Path) -> None:
    plan = plan_of("mamba", {"*.in_proj.*": "int8/group32", "*.D": "fp32"})
    fitted = fit(RUNTIMES["llama.cpp"], model("mamba"), plan)
    write_for(fitted, applier("mamba", plan), tmp_path / "m", name="mine")
    weights = applier("mamba", plan).tap(plan).weights
    again = open_model(tmp_path / "m").model
    assert again.config == model("mamba").config
    for name in ("layers.0.in_proj.x", "layers.1.in_proj.z", "head", "layers.1.conv"):
        assert torch.equal(again.weights[name], weights[name])


def test_no_runtimes_package_is_imported_to_write_for_it() -> None:
    code = (
        "import sys, sensprobe.export.runtimes, sensprobe.jobs.export_runtime; "
        "print([m for m in ('torchao', 'compressed_tensors', 'gguf', 'transformers', 'vllm') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_schemes_worth_profiling_are_expressed() -> None:
    for target in RUNTIMES.values():
        for scheme in target.examples:
            wide = parse(scheme).group in (0, 32)
            schemes = {"*.out_proj": scheme if wide else "int4/group32", "*.D": "fp32"}
            assert not [c for c in reasons(target.name, schemes) if c.endswith("out_proj")]


class TestEveryRuntime(RuntimeContract):
    @pytest.fixture(params=RUNTIMES)
    def runtime(self, request: pytest.FixtureRequest) -> Runtime:
        return RUNTIMES[request.param]

    @pytest.fixture(name="model")
    def _model(self) -> Model:
        return model("mamba2")
