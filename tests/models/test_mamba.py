"""Mamba: the contract of every model, and its forward against the paper's equations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from selective import MAMBAS, inputs, parameters, tiny
from sequential import head_by_hand
from torch import Tensor

from sensprobe.errors import SensprobeError, UnsupportedError
from sensprobe.models.apply import Applier
from sensprobe.models.mamba import MambaConfig, sites
from sensprobe.models.mamba_layers import Mamba, deploy
from sensprobe.numerics.taps import EXACT
from sensprobe.plans.scheme import parse
from sensprobe.testing.family import FamilyContract

EPSILON = 2.0**-24


@pytest.fixture(params=MAMBAS)
def model(request) -> Mamba:
    return tiny(MAMBAS[request.param])


@pytest.fixture
def x(model) -> Tensor:
    return inputs(model.config)


class TestContract(FamilyContract):
    pass


# -- the forward against its equations ------------------------------------------------------------


def silu(v: Tensor) -> Tensor:
    return v / (1 + torch.exp(-v))


def rms(v: Tensor, eps: float) -> Tensor:
    return v / (v.square().mean(-1, keepdim=True) + eps).sqrt()


def by_hand(config: MambaConfig, p: dict[str, Tensor], x: Tensor) -> Tensor:
    """The forward from checkpoint parameters in float64, a step at a time."""
    p = {name: value.double() for name, value in p.items()}

    def norm(v: Tensor, at: str) -> Tensor:
        if config.norm_kind == "rms":
            return rms(v, config.norm_eps) * p[at + "weight"]
        centred = v - v.mean(-1, keepdim=True)
        return rms(centred, config.norm_eps) * p[at + "weight"] + p[at + "bias"]

    if config.encoder == "linear":
        u = x.double() @ p["encoder.weight"].T + p["encoder.bias"]
    else:
        u = p["embedding.weight"][x]
    for i in range(config.layers):
        at = f"layers.{i}."
        v = norm(u, at + "norm.") if config.norm == "pre" else u
        v = mixer(config, {k.removeprefix(at): t for k, t in p.items() if k.startswith(at)}, v)
        u = u + v if config.residual else v
        u = norm(u, at + "norm.") if config.norm == "post" else u
    u = norm(u, "final.norm.") if config.final_norm else u
    u = {"mean": lambda: u.mean(1), "last": lambda: u[:, -1], "none": lambda: u}[config.pooling]()
    return head_by_hand(config, p, u)


def mixer(config: MambaConfig, p: dict[str, Tensor], u: Tensor) -> Tensor:
    d, n, r, k = config.d_inner, config.d_state, config.dt_rank, config.d_conv
    xz = u @ p["in_proj.weight"].T + p.get("in_proj.bias", 0)
    past, state, out = torch.zeros(len(u), k, d).double(), torch.zeros(len(u), d, n).double(), []
    for t in range(u.shape[1]):
        past = torch.cat([past[:, 1:], xz[:, t : t + 1, :d]], dim=1)
        x = silu((past * p["conv.weight"][:, 0].T).sum(1) + p.get("conv.bias", 0))
        dtBC = x @ p["x_proj.weight"].T
        parts = dtBC[:, :r], dtBC[:, r : r + n], dtBC[:, r + n :]
        if config.inner_norm:
            parts = tuple(rms(part, config.inner_norm_eps) for part in parts)
        low, B, C = parts
        dt = torch.log1p(torch.exp(low @ p["dt_proj.weight"].T + p["dt_proj.bias"]))[:, :, None]
        state = torch.exp(-dt * p["A_log"].exp()) * state + dt * B[:, None] * x[:, :, None]
        y = (state * C[:, None]).sum(-1) + p["D"] * x
        out.append((y * silu(xz[:, t, d:])) @ p["out_proj.weight"].T + p.get("out_proj.bias", 0))
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("length", [1, 2, 31])
@pytest.mark.parametrize("name", MAMBAS)
def test_the_forward_is_its_equations(name, length):
    config = MAMBAS[name]
    x = inputs(config, length=length)
    want = by_hand(config, parameters(config), x)
    # Some ten roundings a value, each relative to sums no larger than these, times the layers.
    error = (tiny(config)(x) - want).abs().max()
    assert error <= 300 * EPSILON * want.abs().max().clamp(min=1)


def test_that_bound_catches_rows_of_the_projections_swapped():
    config = MAMBAS["bare"]
    params = parameters(config)
    for name, rows in (("in_proj.weight", 8), ("x_proj.weight", 3)):
        swapped = params | {f"layers.0.{name}": params[f"layers.0.{name}"].roll(rows, dims=0)}
        got = Mamba(config, deploy(swapped, config))(inputs(config))
        assert (got - tiny(config)(inputs(config))).abs().max() > 1e-3, name


def test_variants_are_different_functions():
    base = MambaConfig(d_input=2, d_output=3, d_model=4, dt_rank=1, d_state=2)
    x = inputs(base)
    truth = tiny(base)(x)
    for change in (
        {"residual": False},
        {"norm": "none"},
        {"norm": "post"},
        {"norm_eps": 0.1},
        {"final_norm": False},
        {"pooling": "last"},
        {"inner_norm": True},
    ):
        config = replace(base, **change)
        params = {k: v for k, v in parameters(base).items() if k in shapes_of(config)}
        assert (Mamba(config, deploy(params, config))(x) - truth).abs().max() > 1e-4, change


def shapes_of(config: MambaConfig) -> set[str]:
    return set(parameters(config))


def test_without_pooling_every_step_is_an_output_as_if_the_sequence_ended_there():
    config = MAMBAS["tokens"]
    model, x = tiny(config), inputs(config)
    whole = model(x)
    assert whole.shape == (3, 7, config.d_output)
    torch.testing.assert_close(model(x[:, :4]), whole[:, :4], rtol=0, atol=1e-6)


def test_convolving_modes_are_refused():
    for mode in ("fft", "traced"):
        with pytest.raises(UnsupportedError, match="have no convolution in place"):
            tiny(MAMBAS["bare"])(inputs(MAMBAS["bare"]), EXACT, mode)


# -- sites and plans ------------------------------------------------------------------------------


def test_a_plan_on_every_site_runs_and_costs():
    """Weights, windows, states, decays and all activations rounded at once."""
    config = MAMBAS["deep"]
    model = tiny(config)
    texts = {"weight": "int8", "state": "int8/dynamic", "activation": "int8/dynamic"}
    plan = {name: parse(texts[site.kind]) for name, site in model.sites.items()}
    x = inputs(config)
    got, want = model(x, Applier(model).tap(plan)), model(x)
    assert 0 < (got - want).abs().max() < 0.5


def test_a_tied_head_is_stored_once():
    tied, untied = sites(MAMBAS["tied"]), sites(replace(MAMBAS["tied"], tied_head=False))
    assert set(untied) - set(tied) == {"head"}


def test_the_radius_is_that_of_the_stored_A_at_rest():
    model = tiny(MAMBAS["deep"])
    dt = torch.stack([model.weights[f"layers.{i}.dt_proj.bias"] for i in range(2)]).double()
    dt = torch.log1p(dt.exp())
    A = torch.stack([model.weights[f"layers.{i}.A"] for i in range(2)]).float().double()
    want = torch.exp(dt[:, :, None] * A).max().item()
    assert model.spectral_radius() == pytest.approx(want, rel=1e-12)
    assert model.spectral_radius() < 1
    grown = dict(model.weights) | {"layers.1.A": model.weights["layers.1.A"].clone()}
    grown["layers.1.A"][2, 1] = 0.01
    assert Mamba(model.config, grown).spectral_radius() > 1


# -- configs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"norm": "sideways"}, "norm must be none, pre or post, not 'sideways'"),
        ({"norm_kind": "batch"}, "norm_kind must be rms, layer, affine or layer-product, not"),
        ({"pooling": "max"}, "pooling must be mean, last or none, not 'max'"),
        ({"encoder": "conv"}, "encoder must be linear or embedding, not 'conv'"),
        ({"dt_rank": 0}, "dt_rank must be at least 1, not 0"),
        ({"d_state": 1.5}, "d_state is 1.5, not int"),
        ({"d_conv": 1}, "d_conv must be at least 2, not 1"),
        ({"norm_eps": 1}, "norm_eps is 1, not float"),
        ({"norm_eps": -1.0}, "norm_eps must be a number from 0 upward, not -1.0"),
        ({"norm_eps": float("nan")}, "norm_eps must be a number from 0 upward, not nan"),
        ({"bias": 1}, "bias is 1, not bool"),
        ({"tied_head": True}, "tied_head needs an embedding of as many rows as there are outputs"),
    ],
)
def test_a_config_that_means_nothing_is_refused(change, says):
    with pytest.raises(SensprobeError) as error:
        replace(MAMBAS["bare"], **change)
    assert says in str(error.value)
