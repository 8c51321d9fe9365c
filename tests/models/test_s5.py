"""S5: the contract of every model, its forward against its equations, its initial values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders import vector
from mimo import CONFIGS, PLAIN, inputs, parameters, tiny
from sequential import head_by_hand
from torch import Tensor

from sensprobe.errors import UnsupportedError, UsageError
from sensprobe.models.apply import Applier
from sensprobe.models.forward import At, _norm
from sensprobe.models.s5 import S5Config, parameter_shapes
from sensprobe.models.s5_layers import S5, deploy, discretized, hippo, initial
from sensprobe.numerics.taps import EXACT
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis
from sensprobe.testing.family import FamilyContract, Seen

PRODUCT = CONFIGS["product"]


@pytest.fixture(params=CONFIGS)
def model(request) -> S5:
    return tiny(CONFIGS[request.param])


@pytest.fixture
def x(model) -> Tensor:
    return inputs(model.config)


class TestContract(FamilyContract):
    pass


# -- the forward against its equations ------------------------------------------------------------


def by_hand(config: S5Config, p: dict[str, Tensor], x: Tensor) -> Tensor:
    """The forward from checkpoint parameters in float64, a mode and a step at a time."""
    p = {name: value.double() for name, value in p.items()}
    if config.encoder == "linear":
        u = x.double() @ p["encoder.weight"].T + p["encoder.bias"]
    else:
        u = p["embedding.weight"][x]
    for i in range(config.layers):
        own = {k.removeprefix(f"layers.{i}."): v for k, v in p.items()}
        v = norm(config, own, u) if config.norm == "pre" else u
        v = mixer(config, own, v)
        u = u + v if config.residual else v
        u = norm(config, own, u) if config.norm == "post" else u
    u = {"mean": lambda: u.mean(1), "last": lambda: u[:, -1], "none": lambda: u}[config.pooling]()
    return head_by_hand(config, p, u)


def norm(config: S5Config, p: dict[str, Tensor], u: Tensor) -> Tensor:
    if config.norm_kind != "affine":
        u = u - u.mean(-1, keepdim=True)
        u = u / (u.square().mean(-1, keepdim=True) + config.norm_eps).sqrt()
    return u * p["norm.weight"] + p["norm.bias"]


def mixer(config: S5Config, p: dict[str, Tensor], u: Tensor) -> Tensor:
    B, C = torch.view_as_complex(p["B"]), torch.view_as_complex(p["C"])
    if config.discretization == "none":
        A_bar, B_bar = torch.view_as_complex(p["A"]), B
    else:
        A, dt = torch.complex(p["A_real"], p["A_imag"]), p["log_dt"].exp()
        if config.discretization == "zoh":
            A_bar = torch.exp(A * dt)
            B_bar = ((A_bar - 1) / A)[:, None] * B
        else:
            A_bar = (1 + dt * A / 2) / (1 - dt * A / 2)
            B_bar = (dt / (1 - dt * A / 2))[:, None] * B
    states = [run(A_bar, B_bar, u)]
    if config.bidirectional:
        states.append(run(A_bar, B_bar, u.flip(1)).flip(1))
    y = (torch.cat(states, -1) @ C.T).real * (2 if config.conjugate else 1) + p["D"] * u
    if config.activation == "gelu":
        g = y * (1 + torch.erf(y / 2**0.5)) / 2
    elif config.activation == "qgelu4":
        g = y * (y + 2).clamp(0, 4) / 4
    elif config.activation == "gelu-tanh":
        g = y * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (y + 0.044715 * y**3))) / 2
    else:
        g = y * (y + 2).clamp(0, 1)
    if config.gate == "none":
        return g
    b = g @ p["out_proj.weight"].T + p["out_proj.bias"]
    if config.gate == "full":
        return b[..., : config.d_model] * gate(config, b[..., config.d_model :])
    return (g if config.gate == "half1" else y) * gate(config, b)


def gate(config: S5Config, b: Tensor) -> Tensor:
    if config.sigmoid == "hard":
        return (b / 6 + 0.5).clamp(0, 1)
    return 1 / (1 + torch.exp(-b))


def run(A_bar: Tensor, B_bar: Tensor, u: Tensor) -> Tensor:
    state, out = torch.zeros(len(u), len(A_bar), dtype=torch.complex128), []
    for t in range(u.shape[1]):
        state = A_bar * state + u[:, t].cdouble() @ B_bar.T
        out.append(state)
    return torch.stack(out, 1)


BOTH = {**CONFIGS, "both ways": replace(PLAIN, bidirectional=True)}


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("length", [1, 2, 33])
def test_the_forward_is_its_equations(name: str, length: int) -> None:
    config = BOTH[name]
    x = inputs(config, length=length)
    want = by_hand(config, parameters(config), x)
    error = (tiny(config)(x).double() - want).abs().max() / want.abs().max()
    assert error < 8 * (length * config.d_model) ** 0.5 * torch.finfo(torch.float32).eps


def test_both_factors_of_a_norm_are_rounded_and_its_product_is_not() -> None:
    """(u - mean) · (scale / deviation) + bias: the definition, each factor in 3 bits of its own
    largest value of a step; scales are kept in float16, which moves each by up to 2^-11."""
    model, u = tiny(PRODUCT), vector(2, 4, 5, dtype=torch.float32)
    plan = {f"layers.0.{name}": parse("int3/dynamic") for name in ("norm_in", "norm_factor")}
    tap = Applier(model).tap(plan)
    got = _norm(At(model, tap, "layers.0."), u, PRODUCT)

    def rounded(x: Tensor) -> Tensor:
        scale = x.abs().amax(-1, keepdim=True) / 3
        return (x / scale).round() * scale

    weight, bias = (model.weights[f"layers.0.{n}"].float() for n in ("norm", "norm.bias"))
    deviation = (u.var(-1, unbiased=False, keepdim=True) + PRODUCT.norm_eps).sqrt()
    want = rounded(u - u.mean(-1, keepdim=True)) * rounded(weight / deviation) + bias
    assert torch.allclose(got, want, rtol=2**-10, atol=1e-3)
    assert not torch.allclose(_norm(At(model, EXACT, "layers.0."), u, PRODUCT), want, atol=1e-2)


def test_a_norm_of_two_factors_has_the_parameters_of_a_layer_norm() -> None:
    layer = replace(PRODUCT, norm_kind="layer")
    assert parameter_shapes(PRODUCT) == parameter_shapes(layer)
    x = inputs(layer)
    assert torch.allclose(tiny(PRODUCT)(x), tiny(layer)(x), atol=1e-5)
    assert not any("norm_" in name for name in tiny(layer).sites)


def test_variants_are_different_functions() -> None:
    x = inputs(PLAIN)
    changes = [
        {"sigmoid": "hard"}, {"gate": "half1"}, {"gate": "half2"}, {"gate": "none"},
        {"activation": "qgelu"}, {"activation": "gelu-tanh"}, {"activation": "qgelu4"},
        {"discretization": "bilinear"}, {"conjugate": False}, {"norm_kind": "affine"},
    ]  # fmt: skip
    found = [tiny(replace(PLAIN, **change))(x) for change in ({}, *changes)]
    assert all(not torch.allclose(found[0], other) for other in found[1:])


def test_an_associative_scan_is_the_recurrence(model: S5, x: Tensor) -> None:
    want, got = model(x), model(x, mode="associative")
    assert (got - want).abs().max() < 64 * torch.finfo(torch.float32).eps * want.abs().max()


def test_an_associative_scan_refuses_a_rounded_state() -> None:
    model, x = tiny(PLAIN), inputs(PLAIN)
    tap = Applier(model).tap({"layers.1.state": parse("int8/head/dynamic")})
    with pytest.raises(UnsupportedError, match=r"rounds layers\.1\.state"):
        model(x, tap, mode="associative")


def test_both_ways_has_two_states_and_no_step() -> None:
    model = tiny(BOTH["both ways"])
    seen, x = Seen(), inputs(PLAIN)
    model(x, seen)
    assert seen.asked == [f"layers.{i}.{name}" for i in (0, 1) for name in ("state", "state_back")]
    with pytest.raises(UnsupportedError, match="whole sequences"):
        model.step(x[:, 0], model.start(len(x)))


def test_a_rounded_state_runs_from_the_end_too() -> None:
    model, x = tiny(BOTH["both ways"]), inputs(PLAIN)
    tap = Applier(model).tap({"layers.0.state_back": parse("int3/head/dynamic")})
    assert not torch.equal(model(x, tap), model(x))


# -- initial values and parameters ----------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 8, 33])
def test_hippo_has_the_eigenvectors_of_its_matrix(size: int) -> None:
    n = torch.arange(size, dtype=torch.float64)
    legs = -torch.tril(torch.sqrt(1 + 2 * n)[:, None] * torch.sqrt(1 + 2 * n)) + torch.diag(n)
    normal = legs + torch.sqrt(n + 0.5)[:, None] * torch.sqrt(n + 0.5)
    A, V = hippo(size, size)
    torch.testing.assert_close(normal.cdouble() @ V, V * A)
    torch.testing.assert_close(V.mH @ V, torch.eye(size).cdouble())
    assert V[0].imag.abs().max() < 1e-12
    assert (V[0].real > 0).all()


def test_half_of_the_modes_are_those_of_positive_frequency() -> None:
    A, _ = hippo(16, 8)
    assert (A.imag > 0).all()
    assert (A.imag.diff() < 0).all()


def test_a_model_that_training_starts_from_is_stable_and_has_outputs_of_order_one() -> None:
    config = replace(PLAIN, d_model=24, d_state=16, layers=3)
    params = initial(config, (0.001, 0.1), seed=3)
    model = S5(config, deploy({k: p.double() for k, p in params.items()}, config))
    assert model.spectral_radius() < 1
    y = model(inputs(config, 8, 100))
    assert 0.05 < y.std() < 5


@pytest.mark.parametrize("blocks", [1, 4])
def test_first_values_have_the_variance_that_is_said(blocks: int) -> None:
    config = replace(PLAIN, d_model=200, d_state=32, blocks=blocks, layers=1)
    params = initial(config, (0.001, 0.1), seed=1)
    for name, wanted in (("B", 1 / 64), ("C", 2 / 64)):
        found = params[f"layers.0.{name}"].square().sum(-1).mean().item()
        assert found == pytest.approx(wanted, rel=0.1), name


def test_clipped_modes_are_stable() -> None:
    config = replace(PLAIN, clip_eigs=True)
    params = {k: p.abs() if k.endswith("A_real") else p for k, p in parameters(config).items()}
    assert S5(config, deploy(params, config)).spectral_radius() < 1
    unclipped = replace(config, clip_eigs=False)
    assert S5(unclipped, deploy(params, unclipped)).spectral_radius() > 1


def test_a_discretised_model_is_the_model(model: S5, x: Tensor) -> None:
    params = parameters(model.config)
    found, config = discretized(params, model.config)
    assert config.discretization == "none"
    again = S5(config, deploy({k: p.double() for k, p in found.items()}, config))
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=2e-6 * model(x).abs().max().item())


def test_a_state_has_heads_and_B_rows_that_gptq_can_round() -> None:
    sites = tiny(PLAIN).sites
    assert sites["layers.0.state"].shape == (2, 3)
    assert sites["layers.0.B"].shape == (12, 5)
    assert sites["layers.0.B"].axes == (Axis.OUT, Axis.IN)
    assert sites["layers.0.C"].shape == (5, 12)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"blocks": 4}, "d_state 6 cannot be cut into 4 blocks"),
        ({"gate": "sigmoid"}, "gate must be full, half1, half2 or none"),
        ({"d_state": 0}, "d_state must be at least 1"),
        ({"bidirectional": True, "pooling": "none"}, "reads what follows"),
    ],
)
def test_a_config_that_means_nothing_is_refused(change: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        replace(PLAIN, **change)
