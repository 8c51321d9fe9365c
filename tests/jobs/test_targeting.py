"""A target freezes, ties and takes away options before a search; what it leaves, it keeps whole."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import selective

from sensprobe.errors import UnsupportedError, UsageError
from sensprobe.export.runtimes import RUNTIMES, fit
from sensprobe.jobs.problem import Space, build_space
from sensprobe.jobs.runtime_limits import limits_of
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.plans.plan import adapted
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind, group_pattern

MODELS = {
    "mamba": selective.tiny(MambaConfig(**selective.WIDE, dt_rank=2, d_state=4, bias=True)),
    "mamba2": selective.tiny(Mamba2Config(**selective.WIDE, d_state=8, d_head=8)),
}
SCHEMES = (
    "fp16",
    "bf16",
    "int8/channel",
    "int8/group32",
    "int4/group32",
    "int4/channel/asym",
    "int3",
    "e4m3/channel",
    "int8/head/asym/dynamic",
)


def sensitivity(name: str, by: str, schemes: tuple[str, ...] = SCHEMES) -> dict[str, Any]:
    """A profile of every weight and state, a target a site or a part."""
    groups: dict[str, list[str]] = {}
    for site in MODELS[name].sites.values():
        if site.kind is not Kind.ACTIVATION:
            label = site.name if by == "site" else group_pattern(site)
            groups.setdefault(label, []).append(site.name)
    rows = [
        {"target": t, "sites": sites, "scheme": s, "kl": {"value": 0.1 * k, "stderr": 0.01}}
        for t, sites in groups.items()
        for k, s in enumerate(schemes)
    ]
    return {"rows": rows, "schemes": list(schemes), "additive": "kl", "sign": 1, "by": by}


def space(name: str, target: str, by: str = "site", **options: Any) -> Space:
    model = MODELS[name]
    schemes = options.pop("profiled", SCHEMES)
    limits = limits_of(target, model)
    return build_space(model.sites, sensitivity(name, by, schemes), limits=limits, **options)


CASES = [
    (name, target)
    for name, target in product(MODELS, RUNTIMES)
    if MODELS[name].family in RUNTIMES[target].matrices
]


def require_kept_whole(found: Space, name: str, target: str) -> None:
    """Every option of every decision, the others at their first: no row, dropped or narrowed."""
    first = tuple(0 for _ in found.meaning)
    assert found.problem.count > 1
    for k, options in enumerate(found.meaning):
        for option in range(len(options)):
            plan = found.resolved((*first[:k], option, *first[k + 1 :]))
            fitted = fit(RUNTIMES[target], MODELS[name], plan)
            assert not fitted.changes
            assert all(layout.dense for layout in fitted.layouts.values())


@pytest.mark.parametrize("by", ["site", "part"])
@pytest.mark.parametrize(("name", "target"), CASES)
def test_any_plan_of_the_space_is_kept_whole(name: str, target: str, by: str) -> None:
    require_kept_whole(space(name, target, by), name, target)


@pytest.mark.parametrize("live", ["int8/dynamic", "e4m3/dynamic"])
@pytest.mark.parametrize(
    ("name", "target"),
    [("mamba", "compressed-tensors"), ("mamba2", "compressed-tensors"), ("mamba2", "vllm")],
)
def test_beside_rounded_inputs_only_what_rounds_them_is_offered(
    name: str, target: str, live: str
) -> None:
    found = space(name, target, freeze=[("layers.*.out_proj_in", parse(live))])
    asked = dict(zip((d.name for d in found.problem.decisions), found.asked, strict=True))
    kept = {"int8/dynamic": ("int8/channel",), "e4m3/dynamic": ("e4m3/channel",)}
    assert asked["layers.1.out_proj"] == kept[live]
    assert len(asked["layers.1.in_proj.weight"]) > 1
    require_kept_whole(found, name, target)


@pytest.mark.parametrize(
    ("name", "target", "site"),
    [
        ("mamba2", "vllm", "head_in"),
        ("mamba", "vllm", "layers.0.in_proj_in"),
        ("mamba2", "torchao", "layers.0.out_proj_in"),
    ],
)
def test_inputs_that_nothing_there_rounds_cannot_be_frozen(
    name: str, target: str, site: str
) -> None:
    with pytest.raises(UsageError, match=f"--freeze {site}=int8/dynamic: an activation stays"):
        space(name, target, freeze=[(site, parse("int8/dynamic"))])


def test_an_input_that_a_bare_product_reads_leaves_no_option() -> None:
    """transformers multiplies Mamba's dt_proj by its weight, past the module that would round."""
    frozen = [("layers.0.dt_proj_in", parse("int8/dynamic"))]
    with pytest.raises(UsageError, match=r"compressed-tensors can keep layers.0.dt_proj in none"):
        space("mamba", "compressed-tensors", freeze=frozen)


def test_without_the_target_the_same_space_has_plans_that_are_not_kept() -> None:
    model = MODELS["mamba2"]
    found = build_space(model.sites, sensitivity("mamba2", "site"))
    plan = found.resolved(tuple(2 for _ in found.meaning))
    assert fit(RUNTIMES["vllm"], model, plan).dropped


def test_vllm_leaves_two_projections_a_layer_and_the_caches() -> None:
    found = space("mamba2", "vllm")
    names = [d.name for d in found.problem.decisions]
    assert names == [
        "layers.0.in_proj.weight",
        "layers.1.in_proj.weight",
        "layers.*.state",
        "layers.*.conv_state",
        "layers.0.out_proj",
        "layers.1.out_proj",
    ]
    asked = dict(zip(names, found.asked, strict=True))
    assert asked["layers.0.in_proj.weight"] == (
        "fp16", "int8/channel", "int8/group32", "int4/group32", "int4/channel/asym", "e4m3/channel",
    )  # fmt: skip
    assert set(asked["layers.*.state"]) == {"fp16", "bf16", "fp32"}
    assert found.frozen["embedding"] == parse("fp16")
    assert found.frozen["layers.0.A"] == parse("fp32")


def test_by_part_a_decision_is_of_all_layers() -> None:
    found = space("mamba2", "vllm", by="part")
    assert [d.name for d in found.problem.decisions] == [
        "layers.*.in_proj.weight",
        "layers.*.state",
        "layers.*.conv_state",
        "layers.*.out_proj",
    ]


def test_vllm_quantizes_no_matrix_of_mamba() -> None:
    decisions = [d.name for d in space("mamba", "vllm").problem.decisions]
    assert decisions == ["layers.*.state", "layers.*.conv_state"]


def test_a_byte_for_four_bits_is_not_offered() -> None:
    asked = space("mamba2", "torchao").asked
    offered = {scheme for options in asked for scheme in options}
    assert offered == {
        "fp16", "bf16", "fp32", "int8/channel", "int8/group32", "int8/head/asym/dynamic",
    }  # fmt: skip


def test_a_users_ties_and_a_targets_join() -> None:
    found = space("mamba2", "vllm", tie=["layers.*.in_proj.z"])
    names = [d.name for d in found.problem.decisions]
    assert names[0] == "layers.*.in_proj.z"
    rows = {n for n in found.meaning[0][0]}
    assert rows == {n for n in MODELS["mamba2"].sites if ".in_proj." in n}


def test_rounded_inputs_open_what_reads_them_so() -> None:
    frozen = [("layers.*.in_proj_in", parse("e4m3/dynamic"))]
    found = space("mamba2", "modelopt", freeze=frozen)
    asked = dict(zip((d.name for d in found.problem.decisions), found.asked, strict=True))
    assert "e4m3/channel" in asked["layers.0.in_proj.weight"]
    assert "e4m3/channel" not in asked["layers.0.out_proj"]


def test_freezing_what_the_target_cannot_express_is_refused() -> None:
    frozen = [("layers.*.state", parse("int8/dynamic"))]
    with pytest.raises(UsageError, match=r"--freeze layers.0.state=int8/dynamic: vllm keeps this"):
        space("mamba2", "vllm", freeze=frozen)
    sites = MODELS["mamba2"].sites.values()
    assert adapted(frozen, sites).entries  # a scheme that makes sense, and not there


def test_a_profile_without_anything_it_can_keep_says_what_to_profile() -> None:
    expected = (
        r"vllm can keep layers.0.in_proj.weight in none of the schemes profiled \(int3: vllm has "
        r"no int3 matrices; fp32: .*Profile again with .*--scheme int4/group128"
    )
    with pytest.raises(UsageError, match=expected):
        space("mamba2", "vllm", profiled=("int3",))


def test_targets_and_models_there_are_not() -> None:
    with pytest.raises(UsageError, match="no runtime 'gpu'"):
        limits_of("gpu", MODELS["mamba"])
    with pytest.raises(UnsupportedError, match="its encoder is 'linear', there 'embedding'"):
        limits_of("vllm", selective.tiny(selective.MAMBAS["deep"]))
