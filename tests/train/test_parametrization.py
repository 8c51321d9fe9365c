"""Ways to train a recurrence's A: each ends as a checkpoint that evaluates to the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import CONFIGS
from under_plans import inputs_of, plan_of, start_of

from sensprobe.checkpoints import open_checkpoint
from sensprobe.checkpoints.own import build
from sensprobe.errors import UsageError
from sensprobe.models import FAMILIES
from sensprobe.models.apply import Applier, observe, wanted_by
from sensprobe.models.apply import inputs_of as inputs_of_projections
from sensprobe.numerics.noise import noisy_weight
from sensprobe.plans.noise import Draw, Gaussian
from sensprobe.train.method import Method
from sensprobe.train.parametrization import (
    fixed,
    parametrized,
    slow,
    stabilised,
    stability,
    with_weights,
)
from sensprobe.train.snapshot import write_weights
from sensprobe.train.under import UnderPlan

PLAN = "*.A=int6/head/asym *.B=int4/channel *.state=int6/head/dynamic"


def test_a_discrete_checkpoint_is_the_same_model_and_trains_to_the_bit(tmp_path: Path) -> None:
    """What is written, read and evaluated is what the training ran, A's codes included."""
    before, config = start_of("two, post-norm")
    params, found = parametrized(before, config, "discrete")
    assert found.discretization == "none"
    plan, x = plan_of(PLAN, build(params, found, Path("here"))), inputs_of(config)
    close = build(before, config, Path("here"))(x)
    assert (build(params, found, Path("here"))(x) - close).abs().max() < 1e-5
    leaves = {n: p.clone().requires_grad_() for n, p in params.items()}
    outputs = UnderPlan(plan, found, x).outputs(leaves, x)
    outputs.square().sum().backward()
    moved = {n: (p - 0.01 * p.grad).detach() for n, p in leaves.items()}
    assert not torch.equal(moved["layers.0.A"], params["layers.0.A"])
    write_weights(tmp_path / "w.safetensors", moved, found, {})
    model = open_checkpoint(tmp_path / "w.safetensors").model
    assert torch.equal(
        model.weights["layers.0.A"], torch.view_as_complex(moved["layers.0.A"].double())
    )
    applier = Applier(model, observe(model, x, wanted_by(plan, model)))
    with torch.no_grad():
        want = UnderPlan(plan, found, x).outputs(moved, x)
        assert torch.equal(model(x, applier.tap(plan)), want)


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_a_selective_model_has_no_discrete_a(name: str) -> None:
    params, config = start_of(name)
    with pytest.raises(UsageError, match=rf"a {name} model has no discretised A.*or frozen"):
        parametrized(params, config, "discrete")
    plan = plan_of("*.A=int4", build(params, config, Path("here")))
    with pytest.raises(UsageError, match="--stable is for models"):
        UnderPlan(plan, config, method=Method(stable=True))


def test_a_discrete_checkpoint_is_not_trained_by_what_it_does_not_hold() -> None:
    params, config = parametrized(*start_of("one layer"), "discrete")
    with pytest.raises(UsageError, match="Take discrete or frozen"):
        parametrized(params, config, "continuous")
    assert parametrized(params, config, "") == (params, config)


def test_which_parameters_stay_and_which_go_slowly() -> None:
    params, config = start_of("one layer")
    discrete, other = parametrized(params, config, "discrete")
    at = "layers.0."
    assert slow(params, config) == {at + n for n in ("log_dt", "log_A_real", "A_imag")}
    assert fixed(params, "frozen", "all") == slow(params, config)
    assert slow(discrete, other) == {at + "A", at + "B"}
    assert fixed(discrete, "frozen", "all") == {at + "A"}
    assert fixed(params, "continuous", "all") == set()
    mamba, _ = start_of("mamba")
    want = {"A_log", "dt_proj.weight", "dt_proj.bias"}
    assert {n.removeprefix(at) for n in fixed(mamba, "frozen", "all") if n.startswith(at)} == want


@pytest.mark.parametrize("parametrization", ["continuous", "discrete"])
@pytest.mark.parametrize("words", ["*.A=int3", "*.A=int4/head/asym", "*.A=int5/parts"])
def test_the_guard_moves_those_that_are_above_and_no_other(
    words: str, parametrization: str
) -> None:
    params, config = start_of("one layer")
    params = params | {"layers.0.log_A_real": torch.full((3, 5), -6.0)}  # hardly any decay
    params, config = parametrized(params, config, parametrization)
    model = build(params, config, Path("here"))
    plan = plan_of(words, model)
    before = stability(Applier(model), plan)
    assert before.values == 15
    found = stabilised(params, config, plan)
    after_model = build(found, config, Path("here"))
    after = stability(Applier(after_model), plan)
    assert after.above == 0
    assert after.largest <= 1 < before.largest
    A, moved = model.weights["layers.0.A"], after_model.weights["layers.0.A"]
    stays = torch.isclose(A, moved, rtol=1e-6)
    assert int((~stays).sum()) >= before.above
    assert torch.allclose(moved / moved.abs(), A / A.abs(), atol=1e-5)  # the phase is kept
    assert moved.abs().max() > 0.4


def test_the_guard_leaves_a_stable_model_as_it_is() -> None:
    params, config = start_of("one layer")
    plan = plan_of("*.A=logpolar(m4,p8)", build(params, config, Path("here")))
    found = stabilised(params, config, plan)
    assert all(found[name] is p for name, p in params.items())


@pytest.mark.parametrize("words", ["", "*.A=int8/head/asym"])
def test_the_guard_leaves_room_for_noise(words: str) -> None:
    params, config = start_of("one layer")
    params = params | {"layers.0.log_A_real": torch.full((3, 5), -6.0)}
    plan = plan_of(words, build(params, config, Path("here"))) if words else {}
    noises = {"layers.0.A": Gaussian(0.01)}
    found = stabilised(params, config, plan, noises)
    model = build(found, config, Path("here"))
    largest = stability(Applier(model), plan).largest
    peak = torch.view_as_real(model.weights["layers.0.A"]).abs().max().item()
    assert largest <= 1 - 0.03 * peak * 0.99
    assert largest > 1 - 0.03 * peak - (0.002 if not words else 0.02)  # no further than it takes
    assert stabilised(found, config, plan, noises) == found
    site = model.sites["layers.0.A"]
    for index in range(20):  # 15 numbers and 20 devices beyond three deviations: 0.4 are expected
        noisy = noisy_weight(
            model.weights[site.name], noises[site.name], site, Draw(noises, 0, index)
        )
        assert noisy.abs().max() < 1.01


def test_noise_that_leaves_no_room_is_said() -> None:
    params, config = start_of("one layer")
    with pytest.raises(UsageError, match=r"noise of 0\.5 has no room"):
        stabilised(params, config, {}, {"layers.0.A": Gaussian(0.5)})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"parametrization": "log"}, "one of continuous, discrete, frozen, not 'log'"),
        ({"parametrization": "frozen", "stable": True}, "leave it, or them, out"),
        ({"train": "vectors", "stable": True}, "leave it, or them, out"),
        ({"clip": -1.0}, "--clip must not be negative"),
    ],
)
def test_a_method_that_means_nothing(changes: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        replace(Method(), **changes)


@pytest.mark.parametrize("name", ["two, post-norm", "mamba", "mamba2"])
def test_projections_get_weights_wherever_their_parameters_lie(name: str) -> None:
    params, config = start_of(name)
    model = build(params, config, Path("here"))
    named = [w for w in inputs_of_projections(model)]
    g = torch.Generator().manual_seed(1)
    wanted = {n: torch.randn(model.sites[n].shape, generator=g) for n in named}
    after = build(with_weights(params, config, wanted), config, Path("here"))
    for n, weight in model.weights.items():
        assert torch.equal(after.weights[n], wanted.get(n, weight).to(weight.dtype)), n


def test_a_model_can_be_drawn_with_discretised_parameters() -> None:
    from sensprobe.models import family_of

    config = replace(CONFIGS["one layer"], discretization="none")
    drawn = family_of(config).initial(config, (0.01, 0.1), 3)
    want, _ = parametrized(*start_of("one layer"), "discrete")
    assert all(torch.equal(drawn[n], p) for n, p in want.items())


@pytest.mark.parametrize(
    ("family", "sizes", "some", "none"),
    [
        ("s5", {"d_state": 4}, {"D", "norm.bias", "out_proj.bias"}, {"log_dt", "A_real", "A_imag"}),
        ("mamba", {"dt_rank": 1}, {"D", "dt_proj.bias"}, {"A_log"}),
        ("mamba2", {"d_head": 4}, {"D", "dt_bias"}, {"A_log"}),
    ],
)
def test_vectors_are_norms_biases_and_D(
    family: str, sizes: dict[str, int], some: set[str], none: set[str]
) -> None:
    """Biases of dt too, but nothing that a state matrix is made of."""
    config = FAMILIES[family].config(d_input=1, d_output=2, d_model=4, **sizes)
    shapes = FAMILIES[family].parameter_shapes(config)
    params = {name: torch.zeros(shape) for name, shape in shapes.items()}
    trained = {n.removeprefix("layers.0.") for n in {*params} - fixed(params, "", "vectors")}
    assert some <= trained
    assert not none & trained
