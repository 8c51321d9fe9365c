"""Learned ranges end as ranges of a plan that stores the same bits; integers narrow leg by leg."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from builders import site
from under_plans import inputs_of, plan_of, start_of

from sensprobe.checkpoints.own import build
from sensprobe.errors import UsageError
from sensprobe.models.apply import Applier, observe, static_scale, wanted_by
from sensprobe.models.forward import one_layer
from sensprobe.numerics.taps import RoundingTap, rounded
from sensprobe.plans.plan import Plan, fingerprint, from_json
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Kind, Part
from sensprobe.train.method import Method
from sensprobe.train.ram import recomputed
from sensprobe.train.ranges import (
    LOW,
    WIDTH,
    LearningTap,
    is_range,
    learnable,
    learned,
    told,
    widened,
    with_ranges,
)
from sensprobe.train.under import UnderPlan

LEARNED = Method(ranges="learned")
PLANS = {
    "two, post-norm": [
        "*.x=int4 *.y=int5/asym *.out_proj_in=int4/hadamard/mse *.B=int3 head=int4/asym/mse "
        "*.out_proj=int3/channel *.state=int6/asym",
        "*.out=log4 *.C=e4m3 *.D=int4/range3 *.state=int5/every3/clip2 *.out_proj_out=int6/p99",
    ],
    "mamba": ["*.x=int5 *.out_proj=int4/s32 *.decay=int8 *.state=int6/head"],
    "mamba2": ["weights=int4/hadamard *.state=int8/stochastic *.y=int6/pow2"],
}
CASES = [(name, words) for name, all_ in PLANS.items() for words in all_]


@pytest.mark.parametrize(("name", "words"), CASES)
def test_a_checkpoint_under_the_tuned_plan_is_the_network_in_training(
    name: str, words: str
) -> None:
    """After the ranges have moved, and by the text of the plan."""
    params, config = start_of(name)
    plan, x = plan_of(words, build(params, config, Path("here"))), inputs_of(config)
    under = UnderPlan(plan, config, x, method=LEARNED)
    params |= under.first_ranges(params)
    for n in params:
        params[n] = params[n] - (0.21 if n.startswith(WIDTH) else 0.0)
    leaves = {n: p.clone().requires_grad_() for n, p in params.items()}
    outputs = under.outputs(leaves, x)
    tuned = under.tuned(params)
    assert {n for n in plan if str(tuned[n]) != str(plan[n])} == {
        n.removeprefix(WIDTH) for n in params if n.startswith(WIDTH)
    }
    document = json.loads(json.dumps(Plan(tuple(tuned.items())).to_json()))
    kept = {n: p for n, p in params.items() if not is_range(n)}
    model = build(kept, config, Path("here"))
    read = from_json(document).resolve(model.sites.values())
    applier = Applier(model, observe(model, x, wanted_by(read, model)))
    with torch.no_grad():
        assert torch.equal(outputs, model(x, applier.tap(read)))
    outputs.square().sum().backward()
    moved = [p.grad for n, p in leaves.items() if n.startswith(WIDTH)]
    assert len(moved) > 1
    assert all(g is not None and g.isfinite() for g in moved)
    assert sum(g != 0 for g in moved) >= len(moved) - 1


def test_recomputed_layers_give_learned_ranges_the_same_gradients() -> None:
    params, config = start_of("two, post-norm")
    plan = plan_of("*.x=int4 *.B=int3 *.state=int6", build(params, config, Path("here")))
    x, found = inputs_of(config), []
    for layer in (one_layer, recomputed):
        under = UnderPlan(plan, config, x, method=LEARNED, layer=layer)
        leaves = {n: p.clone().requires_grad_() for n, p in params.items()}
        leaves |= {n: p.requires_grad_() for n, p in under.first_ranges(params).items()}
        under.outputs(leaves, x).square().sum().backward()
        found.append({n: p.grad for n, p in leaves.items() if not n.startswith(LOW)})
    assert all(torch.equal(one, found[1][n]) for n, one in found[0].items())


def test_it_starts_at_the_ranges_that_were_watched() -> None:
    params, config = start_of("one layer")
    model = build(params, config, Path("here"))
    plan, x = plan_of("*.x=int5 *.y=int6/asym *.B=int4/mse", model), inputs_of(config)
    under = UnderPlan(plan, config, x, method=LEARNED)
    tuned = under.tuned(params | under.first_ranges(params))
    watched = observe(model, x, wanted_by(plan, model))
    for name in ("layers.0.x", "layers.0.y"):
        want = static_scale(model.sites[name], plan[name], watched)
        got = static_scale(model.sites[name], tuned[name], {})
        assert want is not None
        assert got is not None
        assert got[0].item() == pytest.approx(want[0].item(), rel=2e-3)  # a float16
    applier = Applier(model)
    name, at = "layers.0.B", model.sites["layers.0.B"]
    want, got = (applier.encoded(at, s)[""].scale for s in (plan[name], tuned[name]))
    assert want is not None
    assert got is not None
    assert got.item() == pytest.approx(want.item(), rel=2e-3)


@pytest.mark.parametrize("text", ["int3", "int4/asym", "int8", "log3", "e2m1"])
def test_the_gradient_is_that_of_lsq(text: str) -> None:
    """q(v) - v inside, the last code outside; times the step, for the logarithm of a step."""
    x = torch.linspace(-2.5, 2.5, 101)
    at = site(name="x", part=Part.X, kind=Kind.ACTIVATION, shape=(101,), axes=(Axis.HEAD,))
    scheme = parse(text + ("/range-0.7:1.6" if "asym" in text else "/range1.3"))
    static = static_scale(at, scheme, {})
    assert static is not None
    scale, zero = static[0].item(), None if static[1] is None else static[1].item()
    to = rounded(x, scheme, at, static, None)
    width = torch.zeros((), requires_grad=True)
    g = torch.randn(101, generator=torch.Generator().manual_seed(0))
    leaf = x.clone().requires_grad_()
    (learned(leaf, to, width, scheme, at, static) * g).sum().backward()
    v, q = x / scale, to / scale
    low, high = -scheme.format.peak, scheme.format.peak
    if zero is not None:
        low, high = -zero, scheme.format.levels - zero
    slope = torch.where((v >= low) & (v <= high), q - v, v.clamp(low, high))
    want = (g * slope * scale).sum() / math.sqrt(101 * scheme.format.peak)
    assert width.grad == pytest.approx(want.item(), rel=1e-4)
    assert torch.equal(leaf.grad, g)


@pytest.mark.parametrize(("range_", "grows"), [(0.2, True), (8, False), (40, False)])
def test_a_range_goes_where_the_error_is_less(range_: float, grows: bool) -> None:
    x = torch.linspace(-2.5, 2.5, 101)
    at = site(name="x", part=Part.X, kind=Kind.ACTIVATION, shape=(101,), axes=(Axis.HEAD,))
    tap = RoundingTap({"x": (scheme := parse(f"int4/range{range_}"))}, {}, {
        "x": static_scale(at, scheme, {})
    })  # fmt: skip
    width = torch.zeros((), requires_grad=True)
    (LearningTap(tap, {"x": width})(at, x) - x).square().sum().backward()
    assert (width.grad < 0) == grows


def test_a_recurrence_whose_state_is_learned_is_said_to_be_slow() -> None:
    params, config = start_of("one layer")
    sites = build(params, config, Path("here")).sites
    state = {"layers.0.x": parse("int8"), "layers.0.state": parse("int8")}
    slow = "the recurrence of layers.0.state runs on the reference loop, slowly"
    assert told(state, sites) == f"2 range(s) are learned; {slow}"
    assert told({**state, "layers.0.state": parse("int8/head")}, sites) == "1 range(s) are learned"


def test_what_one_range_cannot_say_stays_watched() -> None:
    for text in ("int4/head", "int4/parts", "int6/feedback", "int6/dynamic", "bf16",
                 "polar(m2,p3)", "int4/group8"):  # fmt: skip
        assert not learnable(parse(text)), text
    assert learnable(parse("int4/asym/mse"))


def test_integers_narrow_to_the_plan() -> None:
    plan = {"a": parse("int2/channel"), "b": parse("int6/dynamic"), "c": parse("int12"),
            "d": parse("log4")}  # fmt: skip
    bits = [[s.format.bits for s in widened(plan, share).values()] for share in (1, 0.5, 0.1, 0)]
    assert bits == [[8, 8, 12, 4], [5, 7, 12, 4], [3, 7, 12, 4], [2, 6, 12, 4]]
    assert widened(plan, 0) == plan
    assert str(widened(plan, 1)["a"]) == "int8/channel"


@pytest.mark.parametrize("changes", [{"ranges": "sampled"}])
def test_a_way_there_is_not(changes: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="--ranges is one of watched, learned, not 'sampled'"):
        Method(**changes)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (LEARNED, "no static range of a whole tensor"),
        (Method(progressive=True), "no integers of fewer than 8 bits"),
    ],
)
def test_a_choice_that_the_plan_gives_no_use(method: Method, says: str) -> None:
    params, config = start_of("one layer")
    plan = plan_of("*.B=int8/head *.state=e4m3/dynamic", build(params, config, Path("here")))
    with pytest.raises(UsageError, match=says):
        UnderPlan(plan, config, None, method=method)


def test_the_place_of_zero_is_not_trained() -> None:
    params, config = start_of("one layer")
    model = build(params, config, Path("here"))
    under = UnderPlan(plan_of("*.y=int6/asym/range-1:3", model), config, None, method=LEARNED)
    steps = under.first_ranges(params)
    assert steps[LOW + "layers.0.y"] == -0.25
    wider = params | {n: s + (n.startswith(WIDTH) * math.log(2)) for n, s in steps.items()}
    assert str(under.tuned(wider)["layers.0.y"]) == "int6/asym/range-2:6"


def test_a_range_from_zero_is_that_of_a_plan_that_is_read() -> None:
    """Of numbers from -0 on, as what relu leaves."""
    params = {WIDTH + "x": torch.tensor(0.5), LOW + "x": torch.tensor(-0.0)}
    found = with_ranges({"x": parse("int4/asym")}, params)
    read = {name: parse(str(scheme)) for name, scheme in found.items()}
    assert fingerprint(read) == fingerprint(found)
