"""Mamba-2: the contract of every model, and its forward against the paper's equations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from selective import MAMBA2S, inputs, parameters, tiny
from sequential import head_by_hand
from torch import Tensor

from sensprobe.errors import SensprobeError, UnsupportedError
from sensprobe.models.apply import Applier
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.models.mamba2_layers import Mamba2, deploy
from sensprobe.numerics.taps import EXACT
from sensprobe.plans.scheme import parse
from sensprobe.testing.family import FamilyContract

EPSILON = 2.0**-24


@pytest.fixture(params=MAMBA2S)
def model(request) -> Mamba2:
    return tiny(MAMBA2S[request.param])


@pytest.fixture
def x(model) -> Tensor:
    return inputs(model.config)


class TestContract(FamilyContract):
    pass


# -- the forward against its equations ------------------------------------------------------------


def silu(v: Tensor) -> Tensor:
    return v / (1 + torch.exp(-v))


def norm(v: Tensor, p: dict[str, Tensor], at: str, config: Mamba2Config) -> Tensor:
    if config.norm_kind == "layer":
        v = v - v.mean(-1, keepdim=True)
    v = v / (v.square().mean(-1, keepdim=True) + config.norm_eps).sqrt()
    return v * p[at + "norm.weight"] + p.get(at + "norm.bias", 0)


def by_hand(config: Mamba2Config, p: dict[str, Tensor], x: Tensor) -> Tensor:
    """The forward from checkpoint parameters in float64: a step, a head, a channel at a time."""
    p = {name: value.double() for name, value in p.items()}
    if config.encoder == "linear":
        u = x.double() @ p["encoder.weight"].T + p["encoder.bias"]
    else:
        u = p["embedding.weight"][x]
    for i in range(config.layers):
        at = f"layers.{i}."
        v = norm(u, p, at, config) if config.norm == "pre" else u
        v = mixer(config, {k.removeprefix(at): t for k, t in p.items() if k.startswith(at)}, v)
        u = u + v if config.residual else v
        u = norm(u, p, at, config) if config.norm == "post" else u
    u = norm(u, p, "final.", config) if config.final_norm else u
    u = {"mean": lambda: u.mean(1), "last": lambda: u[:, -1], "none": lambda: u}[config.pooling]()
    return head_by_hand(config, p, u)


def mixer(config: Mamba2Config, p: dict[str, Tensor], u: Tensor) -> Tensor:
    d, h, n, g, k = config.d_inner, config.heads, config.d_state, config.groups, config.d_conv
    width = d // h
    zxBCdt = u @ p["in_proj.weight"].T + p.get("in_proj.bias", 0)
    past = torch.zeros(len(u), k, d + 2 * g * n).double()
    state, out = torch.zeros(len(u), d, n).double(), []
    for t in range(u.shape[1]):
        z, xBC, dt = zxBCdt[:, t].split([d, d + 2 * g * n, h], dim=-1)
        past = torch.cat([past[:, 1:], xBC[:, None]], dim=1)
        x, B, C = silu((past * p["conv.weight"][:, 0].T).sum(1) + p.get("conv.bias", 0)).split(
            [d, g * n, g * n], dim=-1
        )
        dt = torch.log1p(torch.exp(dt + p["dt_bias"])).clamp(config.dt_min, config.dt_max)
        new, y = torch.zeros_like(state), torch.zeros_like(x)
        for j in range(d):
            head = j // width
            group = head // (h // g)
            place = slice(group * n, (group + 1) * n)
            a = torch.exp(-dt[:, head] * p["A_log"][head].exp())[:, None]
            drive = (dt[:, head] * x[:, j])[:, None] * B[:, place]
            new[:, j] = a * state[:, j] + drive
            D = p["D"][j if config.D_per_channel else head]
            y[:, j] = (new[:, j] * C[:, place]).sum(-1) + D * x[:, j]
        state, y = new, y * silu(z)
        if config.gated_norm:
            for group in range(g):
                part = y[:, group * (d // g) : (group + 1) * (d // g)]
                part /= (part.square().mean(-1, keepdim=True) + config.norm_eps).sqrt()
            y = y * p["gated_norm.weight"]
        out.append(y @ p["out_proj.weight"].T + p.get("out_proj.bias", 0))
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("length", [1, 2, 17])
@pytest.mark.parametrize("name", MAMBA2S)
def test_the_forward_is_its_equations(name, length):
    config = MAMBA2S[name]
    x = inputs(config, length=length)
    want = by_hand(config, parameters(config), x)
    # Some ten roundings a value, each relative to sums no larger than these, times the layers.
    error = (tiny(config)(x) - want).abs().max()
    assert error <= 300 * EPSILON * want.abs().max().clamp(min=1)


@pytest.mark.parametrize(
    ("name", "shift"), [("in_proj.weight", 8), ("in_proj.weight", 1), ("conv.weight", 2)]
)
def test_that_bound_catches_rows_in_another_order(name, shift):
    config = MAMBA2S["groups"]
    params = parameters(config)
    swapped = params | {f"layers.0.{name}": params[f"layers.0.{name}"].roll(shift, dims=0)}
    got = Mamba2(config, deploy(swapped, config))(inputs(config))
    assert (got - tiny(config)(inputs(config))).abs().max() > 1e-3


def test_variants_are_different_functions():
    base = Mamba2Config(d_input=2, d_output=3, d_model=4, d_state=2, d_head=2, groups=2)
    x = inputs(base)
    truth = tiny(base)(x)
    for change in (
        {"residual": False},
        {"norm": "post"},
        {"final_norm": False},
        {"pooling": "last"},
        {"gated_norm": False},
        {"dt_min": 0.6},
        {"dt_max": 0.2},
    ):
        config = replace(base, **change)
        params = {k: v for k, v in parameters(base).items() if k in parameters(config)}
        assert (Mamba2(config, deploy(params, config))(x) - truth).abs().max() > 1e-4, change


def test_convolving_modes_are_refused():
    with pytest.raises(UnsupportedError, match="have no convolution in place"):
        tiny(MAMBA2S["bare"])(inputs(MAMBA2S["bare"]), EXACT, "fft")


# -- sites and plans ------------------------------------------------------------------------------


def test_a_plan_on_every_site_runs_and_costs():
    """Weights, windows, states, decays and all activations rounded at once."""
    config = MAMBA2S["groups"]
    model = tiny(config)
    texts = {"weight": "int8", "state": "int8/dynamic", "activation": "int8/dynamic"}
    plan = {name: parse(texts[site.kind]) for name, site in model.sites.items()}
    x = inputs(config)
    got, want = model(x, Applier(model).tap(plan)), model(x)
    assert 0 < (got - want).abs().max() < 0.5


def test_a_state_may_be_flushed_where_chunks_end():
    """`everyK` leaves it in full between: a sequence shorter than a chunk is exact."""
    config = MAMBA2S["bare"]
    model, x = tiny(config), inputs(config)
    exact = model(x)
    for every, same in ((8, True), (7, False)):
        tap = Applier(model).tap({"layers.0.state": parse(f"int3/dynamic/every{every}")})
        assert torch.equal(model(x, tap), exact) is same


def test_the_radius_is_that_of_the_stored_A_at_rest():
    model = tiny(MAMBA2S["channels"])
    dt = torch.log1p(model.weights["layers.0.dt.bias"].double().exp()).clamp(0.02, 0.5)
    want = torch.exp(dt * model.weights["layers.0.A"].float().double()).max().item()
    assert model.spectral_radius() == pytest.approx(want, rel=1e-12)
    grown = dict(model.weights) | {"layers.0.A": model.weights["layers.0.A"].abs()}
    assert Mamba2(model.config, grown).spectral_radius() > 1


# -- configs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"d_head": 3}, "d_head 3 does not divide expand · d_model = 8"),
        ({"groups": 3}, "groups 3 does not divide the 4 heads"),
        ({"dt_min": 1.0, "dt_max": 0.5}, "dt_min 1.0 must lie below dt_max 0.5"),
        ({"dt_max": float("inf")}, "dt_max must be a number from 0 upward, not inf"),
        ({"d_conv": 1}, "d_conv must be at least 2, not 1"),
        ({"gated_norm": 1}, "gated_norm is 1, not bool"),
        ({"layers": 0}, "layers must be at least 1, not 0"),
    ],
)
def test_a_config_that_means_nothing_is_refused(change, says):
    with pytest.raises(SensprobeError) as error:
        replace(MAMBA2S["bare"], **change)
    assert says in str(error.value)
