"""What the streaming runtime holds is known from shapes alone, as it is when a model is loaded."""

from __future__ import annotations

import random

import pytest
from packed_memory import CONFIGS, ONE, packed
from selective import tiny

from sensprobe.errors import UnsupportedError
from sensprobe.export import export_model
from sensprobe.models.apply import Applier, needs_calibration
from sensprobe.models.mamba import MambaConfig
from sensprobe.packed import Holding
from sensprobe.packed.holding import why_unpacked
from sensprobe.plans.fitting import why_not
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import parse
from sensprobe.session.load import load
from sensprobe.session.source import open_model

SCHEMES = [
    "int8/channel", "int4/group4", "int12", "fp16", "int8/head/dynamic", "int6/group4/dynamic",
    "int8/dynamic/stochastic", "int8/head/dynamic/every4", "int9/dynamic", "int4/hadamard",
    "int8/head/dynamic/feedback", "int8/asym/range2", "log4/channel", "int8/group3/dynamic",
]  # fmt: skip


@pytest.mark.parametrize("name", ["mamba", "mamba2", "groups"])
def test_a_plan_streams_where_each_of_its_sites_would(name: str) -> None:
    """Random plans: told site by site, from shapes alone, and by the program made of the plan."""
    model, draw = tiny(CONFIGS[name]), random.Random(name)
    holding, told = Holding(model), {True: 0, False: 0}
    for _ in range(40):
        some = draw.sample(list(model.sites.values()), 6)
        chosen = {site.name: parse(draw.choice(SCHEMES)) for site in some}
        plan = {n: s for n, s in chosen.items() if why_not(s, model.sites[n]) is None}
        plan = {n: s for n, s in plan.items() if not needs_calibration({n: s}, model.sites)}
        why = ""
        try:
            packed(model, {n: str(s) for n, s in plan.items()}).stream.program(1)
        except UnsupportedError as error:
            why = str(error)
        assert bool(holding.why(plan)) == bool(why) == bool(why_unpacked(model, plan)), plan
        told[bool(why)] += 1
    assert min(told.values()) > 5


@pytest.mark.parametrize(
    ("scheme", "packs"), [("int8/head/dynamic/every16", False), ("int8/head/dynamic", True)]
)
def test_bytes_told_are_the_bytes_a_loaded_model_holds(scheme: str, packs: bool, tmp_path) -> None:
    model = open_model("mamba2-bytes").model
    plan = Plan((("layers.*.state", parse(scheme)),)).resolve(model.sites.values())
    export_model(model, plan, Applier(model), tmp_path / "out", name="m")
    loaded, holding = load(tmp_path / "out"), Holding(model)
    assert loaded.packed is packs is not bool(holding.why(plan))
    assert holding.state_bytes(plan) == loaded.state_bytes(1)
    assert (holding.state_bytes(plan) == loaded.cost().state_bytes) is packs


def test_a_model_whose_shape_no_kernel_takes_never_packs() -> None:
    model = tiny(MambaConfig(**ONE | {"d_model": 12}, dt_rank=3, d_state=4))
    plan = {"layers.0.state": parse("int8/head/dynamic")}
    assert "sixteen" in Holding(model).why(plan)
    full = sum(4 * s.reals for s in model.sites.values() if s.kind == "state")
    assert Holding(model).state_bytes(plan) == full
