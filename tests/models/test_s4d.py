"""S4D: its discretisation, its two forms, its variants, and the contract of every model."""

from __future__ import annotations

import cmath
from dataclasses import replace

import pytest
import torch
from builders import CONFIGS, PLAIN, inputs, parameters, tiny, vector
from sequential import head_by_hand
from torch import Tensor

from sensprobe.checkpoints.identity import described
from sensprobe.errors import SensprobeError, UnsupportedError, UsageError
from sensprobe.models.apply import Applier
from sensprobe.models.discretize import discretize
from sensprobe.models.family import config_document
from sensprobe.models.s4d import S4DConfig, kernels, parameter_shapes, products, sites
from sensprobe.models.s4d_layers import S4D, deploy
from sensprobe.numerics.taps import EXACT
from sensprobe.plans.scheme import parse
from sensprobe.testing.family import FamilyContract, Seen

pytestmark = pytest.mark.usefixtures("reference_scan")

EPSILON = 2.0**-24


@pytest.fixture(params=CONFIGS)
def model(request) -> S4D:
    return tiny(CONFIGS[request.param])


@pytest.fixture
def x(model) -> Tensor:
    return inputs(model.config)


class TestContract(FamilyContract):
    pass


# -- discretisation -------------------------------------------------------------------------------


def test_zero_order_hold_solves_the_equation_for_constant_input():
    """h' = A h + B u from h = 0 with u = 1: after dt the state is B_bar, by fine Euler steps."""
    A, B, dt = torch.tensor([[-0.5 + 3j, -1.0]]).cdouble(), torch.tensor([[1.0, 2j]]).cdouble(), 0.1
    A_bar, B_bar = discretize(A, B, torch.tensor([dt], dtype=torch.float64), "zoh")
    steps = 200_000
    free, driven = torch.ones_like(A), torch.zeros_like(A)
    for _ in range(4):  # four quarters by powers of one Euler step's affine map
        a = 1 + dt / steps * A
        power = a ** (steps // 4)
        free = free * power
        driven = driven * power + dt / steps * B * (power - 1) / (a - 1)
    assert (A_bar - free).abs().max() < 1e-5
    assert (B_bar - driven).abs().max() < 1e-6


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_discretisation_is_its_formula_in_float64(method):
    A = torch.complex(-vector(2, 3).exp(), 5 * vector(2, 3, seed=1))
    B, dt = torch.view_as_complex(vector(2, 3, 2, seed=2)), vector(2, seed=3).exp() / 20
    A_bar, B_bar = discretize(A, B, dt, method)
    for h in range(2):
        for n in range(3):
            a, b, d = complex(A[h, n]), complex(B[h, n]), float(dt[h])
            if method == "zoh":
                want = cmath.exp(a * d), (cmath.exp(a * d) - 1) / a * b
            else:
                want = (1 + a * d / 2) / (1 - a * d / 2), d * b / (1 - a * d / 2)
            assert abs(complex(A_bar[h, n]) - want[0]) < 1e-15
            assert abs(complex(B_bar[h, n]) - want[1]) < 1e-15


def test_both_methods_agree_to_second_order():
    A = torch.complex(-vector(2, 3).exp(), vector(2, 3, seed=1))
    B = torch.ones_like(A)
    for method_dt, bound in ((1e-2, 1e-5), (1e-3, 1e-8)):
        dt = torch.full((2,), method_dt, dtype=torch.float64)
        zoh, bilinear = (discretize(A, B, dt, m)[0] for m in ("zoh", "bilinear"))
        assert (zoh - bilinear).abs().max() < 20 * bound


def test_deployed_models_are_stable_before_rounding():
    for config in CONFIGS.values():
        assert tiny(config).spectral_radius() < 1


def test_the_radius_is_that_of_the_stored_A():
    model = tiny()
    plan = {"layers.0.A": parse("int3/head")}
    tap = Applier(model).tap(plan)
    want = tap.weights["layers.0.A"].abs().max().item()
    assert model.spectral_radius(tap) == pytest.approx(want, rel=1e-7)
    assert model.spectral_radius() == pytest.approx(
        model.weights["layers.0.A"].abs().max().item(), rel=1e-7
    )


# -- kernels that were pruned ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernels", "says"),
    [
        (3, "kernels is 3, not str."),
        ("0 1", "kernels lists the heads of 1 layer(s), and the model has 2."),
        ("all,0 1", "lists the heads of 1 layer(s)"),
        ("all, all", 'kernels must be "all" where every layer has all of them.'),
        *((f"all, {heads}", "kernels of layer 1 must be") for heads in (
            "", "4", "1 0", "1 1", "-1", "01", "0  1", "0 1 ", "0 1 2 3", "٣", "1.0", "0-3",
            "99999999999999999999", "some",
        )),
    ],
)  # fmt: skip
def test_kernels_that_cannot_be_are_refused(kernels, says):
    with pytest.raises(UsageError) as error:
        replace(PLAIN, layers=2, kernels=kernels)
    assert says in str(error.value)


def test_kernels_are_part_of_what_a_model_is_only_where_some_are_pruned():
    """So that names and files of others stay what they are."""
    pruned = replace(PLAIN, kernels="1 3")
    assert "kernels" not in config_document(PLAIN) | described(PLAIN)
    assert config_document(pruned)["kernels"] == described(pruned)["kernels"] == "1 3"
    assert S4DConfig(**config_document(pruned)) == pruned


def test_only_what_a_kernel_has_shrinks():
    """And its products, which are numbers of A, B and C a step."""
    for count, heads in ((4, "all"), (2, "1 3")):
        config = replace(PLAIN, kernels=heads)
        of = {name: site.shape for name, site in sites(config).items()}
        assert {of[f"layers.0.{name}"] for name in ("A", "B", "C", "state")} == {(count, 3)}
        assert {of[f"layers.0.{name}"] for name in "xyD"} == {(4,)}
        shapes = parameter_shapes(config)
        assert shapes["layers.0.log_dt"] == (count,)
        assert shapes["layers.0.D"] == (4,)
        times = {name.removeprefix("layers.0."): n for name, _, n in products(config)}
        assert [times[name] for name in "ABCD"] == [12 * count, 6 * count, 6 * count, 4]


# -- the forward against its equations ------------------------------------------------------------


def by_hand(model: S4D, x: Tensor) -> Tensor:
    """The forward in float64, one multiplication at a time as the module's docstring has it."""
    config, w = model.config, model.weights
    u = x.double() @ w["encoder"].T + w["encoder.bias"]
    for i in range(config.layers):
        at = f"layers.{i}."

        def norm(v: Tensor, at: str = at) -> Tensor:
            centred = v - v.mean(-1, keepdim=True)
            scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            return scaled * w[at + "norm"] + w[at + "norm.bias"]

        v = norm(u) if config.norm == "pre" else u
        heads = slice(None) if (found := kernels(config, i)) is None else list(found)
        h, y = torch.zeros(len(x), *w[at + "A"].shape, dtype=torch.complex128), []
        for t in range(x.shape[1]):
            h = w[at + "A"] * h + w[at + "B"] * v[:, t, heads, None]
            y.append(w[at + "D"] * v[:, t])
            y[-1][:, heads] += 2 * (w[at + "C"] * h).sum(-1).real
        y = torch.stack(y, dim=1)
        if config.activation == "gelu":
            y = y * (1 + torch.erf(y / 2**0.5)) / 2
        else:
            y = y * (y + 2).clamp(0, 1)
        a, b = (y @ w[at + "out_proj"].T + w[at + "out_proj.bias"]).chunk(2, dim=-1)
        v = a / (1 + torch.exp(-b))
        u = u + v if config.residual else v
        u = norm(u) if config.norm == "post" else u
    pooled = u.mean(1) if config.pooling == "mean" else u[:, -1]
    return head_by_hand(config, parameters(config), pooled)


@pytest.mark.parametrize("length", [1, 2, 31])
def test_the_forward_is_its_equations(model, length):
    x = inputs(model.config, length=length)
    want = by_hand(model, x)
    # Some ten roundings a value, each relative to sums no larger than these, times the layers.
    assert (model(x) - want).abs().max() <= 300 * EPSILON * want.abs().max().clamp(min=1)


def test_variants_are_different_functions():
    """Each choice in a config reaches the forward."""
    x = inputs(PLAIN)
    base = tiny(PLAIN)(x)
    for change in (
        {"residual": False},
        {"activation": "qgelu"},
        {"pooling": "last"},
        {"norm": "pre"},
        {"norm": "post"},
        {"discretization": "bilinear"},
    ):
        other = S4D(config := replace(PLAIN, **change), deploy_double(config))
        assert (other(x) - base).abs().max() > 1e-4, change


def deploy_double(config: S4DConfig) -> dict[str, Tensor]:
    params = parameters(PLAIN) | {
        "layers.0.norm.weight": torch.ones(4),
        "layers.0.norm.bias": torch.zeros(4),
    }
    if config.norm == "none":
        params = {k: v for k, v in params.items() if "norm" not in k}
    return deploy({k: v.double() for k, v in params.items()}, config)


# -- convolution and recurrence -------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fft", "traced"])
@pytest.mark.parametrize("length", [1, 2, 63, 100])
def test_the_convolution_is_the_recurrence(model, mode, length):
    """Both are float32 with errors of some roundings a step; compared through the whole model."""
    x = inputs(model.config, length=length)
    want, got = model(x), model(x, EXACT, mode)
    assert (got - want).abs().max() <= (100 + length) * EPSILON * want.abs().max().clamp(min=1)


def test_that_bound_catches_a_wrong_state_matrix():
    model, x = tiny(), inputs(PLAIN, length=100)
    wrong = dict(model.weights) | {"layers.0.A": model.weights["layers.0.A"] * (1 - 1e-3)}
    off = (S4D(PLAIN, wrong)(x, EXACT, "fft") - model(x)).abs().max()
    assert off > 200 * EPSILON * model(x).abs().max().clamp(min=1)


@pytest.mark.parametrize("mode", ["fft", "traced"])
def test_the_convolution_refuses_a_rounded_state(mode):
    model = tiny()
    tap = Applier(model).tap({"layers.0.state": parse("int8/dynamic")})
    with pytest.raises(UnsupportedError) as error:
        model(inputs(PLAIN), tap, mode)
    assert "keeps no state, and this plan rounds layers.0.state" in str(error.value)
    assert "mode='recurrent'" in str(error.value)


def test_the_convolution_takes_rounded_weights_and_activations():
    model, x = tiny(), inputs(PLAIN, length=30)
    tap = Applier(model).tap(
        {
            "layers.0.A": parse("int6/head/asym/parts"),
            "head": parse("int4/channel"),
            "layers.0.x": parse("e4m3/range4"),
        }
    )
    want = model(x, tap)
    assert (model(x, tap, "fft") - want).abs().max() <= 200 * EPSILON * want.abs().max().clamp(
        min=1
    )
    assert (model(x) - want).abs().max() > 1e-3


# -- configs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"norm": "sideways"}, "norm must be none, pre or post, not 'sideways'"),
        ({"activation": "relu"}, "activation must be gelu or qgelu, not 'relu'"),
        ({"pooling": "max"}, "pooling must be mean or last, not 'max'"),
        ({"discretization": "euler"}, "discretization must be zoh, bilinear or none, not 'euler'"),
        ({"d_model": 0}, "d_model must be at least 1, not 0"),
        ({"d_state": 1.5}, "d_state is 1.5, not int"),
        ({"layers": -1}, "layers must be at least 1, not -1"),
        ({"d_input": "one"}, "d_input is 'one', not int"),
        ({"d_output": True}, "d_output is True, not int"),
        ({"residual": "no"}, "residual is 'no', not bool"),
    ],
)
def test_a_config_that_means_nothing_is_refused(change, says):
    with pytest.raises(SensprobeError) as error:
        replace(PLAIN, **change)
    assert says in str(error.value)


def test_sites_of_norms_exist_where_there_is_a_norm():
    assert not [n for n in sites(PLAIN) if "norm" in n]
    pre, post = (list(sites(replace(PLAIN, norm=where))) for where in ("pre", "post"))
    assert set(pre) == set(post)
    assert pre.index("layers.0.norm") < pre.index("layers.0.x")
    assert post.index("layers.0.norm") > post.index("layers.0.out_proj_out")


def test_weights_are_tapped_where_they_are_used():
    """A weight named twice would be rounded twice."""
    counts: dict[str, int] = {}

    class Count(Seen):
        def __call__(self, site, x):
            counts[site.name] = counts.get(site.name, 0) + 1
            return super().__call__(site, x)

    tiny(CONFIGS["deep"])(inputs(CONFIGS["deep"]), Count())
    assert set(counts.values()) == {1}
