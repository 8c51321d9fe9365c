"""How the recurrence of a model is parametrized in training, and the guard that keeps it stable.

Of a time-invariant family (S4D, S5) deployment holds the discretised A and B. `continuous` trains
the parameters they are computed from (A, dt, B); `discrete` trains them as they are, and the
checkpoint holds them so (`discretization = "none"`); `frozen` leaves A and dt as they are. These
are the three of Zhao et al. 2025 (arXiv 2506.12480). Selective families have no discretised A: it
is made anew in every step from A, dt and the input, and so they take `continuous` and `frozen`.

Rounding may move |A_bar| above 1, where a recurrence grows without bound. The guard moves the
parameters of such an A inward until its code is inside: what is evaluated needs no guard. Gaussian
noise on A moves it above 1 too, and so training under it keeps SPREAD standard deviations free.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sensprobe.errors import UsageError
from sensprobe.models import Model, family_of
from sensprobe.models.apply import Applier
from sensprobe.numerics.arithmetic import magnitude
from sensprobe.plans.noise import Gaussian, Noise
from sensprobe.plans.plan import Resolved
from sensprobe.plans.scheme import EXACT

TRAINED = ("all", "vectors")
"""What may be trained: all parameters, or norms, biases and D alone."""
PARAMETRIZATIONS = ("continuous", "discrete", "frozen")
DECAYS = ("log_dt", "log_A_real", "A_real", "A_imag", "A_log", "dt_proj", "dt_bias", "A")
"""Ends of the names of parameters that decays and step sizes are made of."""
_PULLS = [2.0**-k for k in range(14, 1, -1)] + [0.25] * 20
"""Shares of |A_bar| that the guard takes away, one after the other, until its code is inside."""
_STEADY = [2.0**-10] * 400
"""Shares that it takes away before those where A has noise to leave room for."""
SPREAD = 3.0
"""Standard deviations of noise on A that the guard leaves between |A_bar| as stored and 1."""
Params = Mapping[str, Tensor]


def own_name(parameter: str) -> str:
    """layers.0.dt_proj.bias -> dt_proj"""
    return parameter.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]


def slow(names: Iterable[str], config: Any) -> set[str]:
    """The parameters that `ssm_lr` trains: those of decays and step sizes, and a discretised B."""
    ends = (*DECAYS, "B") if _is_discrete(config) else DECAYS
    return {name for name in names if own_name(name) in ends}


def fixed(params: Params, parametrization: str, train: str) -> set[str]:
    """The parameters that are not trained; `train` is one of TRAINED."""
    decays = {n for n in params if parametrization == "frozen" and own_name(n) in DECAYS}
    return decays | {n for n, p in params.items() if train == "vectors" and not _is_vector(n, p)}


def _is_vector(name: str, p: Tensor) -> bool:
    """True if a parameter has at most one axis and no state matrix is made of it: norms, biases
    and D, and the ranges that are learned."""
    return p.ndim <= 1 and own_name(name) not in ("A_log", "A_real", "A_imag", "log_dt")


def parametrized(params: Params, config: Any, parametrization: str) -> tuple[Params, Any]:
    """Parameters and config of the same model in a parametrization ("": the one they have);
    UsageError where its family, or the checkpoint it comes from, has none."""
    if parametrization in ("", "frozen"):
        return params, config
    if parametrization == "discrete":
        if (discretized := family_of(config).discretized) is None:
            raise UsageError(
                f"--parametrization discrete: a {family_of(config).name} model has no discretised "
                "A, it is made anew in every step from A, dt and the input. Take continuous or "
                "frozen."
            )
        return (params, config) if _is_discrete(config) else discretized(params, config)
    if _is_discrete(config):
        raise UsageError(
            "--parametrization continuous: this checkpoint holds discretised A and B, of which no "
            "A and dt are known. Take discrete or frozen."
        )
    return params, config


def with_weights(params: Params, config: Any, weights: Params) -> dict[str, Tensor]:
    """The parameters with which the projections that are named have these weights.

    A projection is some rows of a parameter, so that its gradient says where they lie.
    """
    leaves = {n: p.double().clone().requires_grad_() for n, p in params.items()}
    sites = family_of(config).deploy(leaves, config)
    moved = [((w.double() - sites[n].detach()) * sites[n]).sum() for n, w in weights.items()]
    by = torch.autograd.grad(torch.stack(moved).sum(), [*leaves.values()], allow_unused=True)
    return {
        name: p if change is None else (p.double() + change).to(p.dtype)
        for (name, p), change in zip(params.items(), by, strict=True)
    }


def _is_discrete(config: Any) -> bool:
    return getattr(config, "discretization", "") == "none"


# -- stability -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stability:
    """How many discretised A there are, how many are above 1 as stored, and the largest."""

    values: int
    above: int
    largest: float


def is_invariant(config: Any) -> bool:
    """True if a model's A is the same in every step, so that |A_bar| is a number of its weights."""
    return family_of(config).discretized is not None


def stability(applier: Applier, plan: Resolved) -> Stability:
    """The stability of a time-invariant model under a resolved plan."""
    sizes = torch.cat([_size(x).flatten() for x in _stored(applier, plan).values()])
    return Stability(len(sizes), int((sizes > 1).sum()), sizes.max().item())


def _stored(applier: Applier, plan: Resolved) -> dict[str, Tensor]:
    """A_bar of every layer as the plan stores it, by site."""
    model = applier.model
    names = [f"layers.{i}.A" for i in range(model.config.layers)]
    weights = applier.partial_tap({name: plan.get(name, EXACT) for name in names}).weights
    return {name: weights[name] for name in names}


def _size(A: Tensor) -> Tensor:
    return magnitude(A.to(torch.complex128))


def _limit(A: Tensor, noise: Noise | None) -> float:
    """The largest |A_bar| that the guard leaves of a layer's A, as stored."""
    if not isinstance(noise, Gaussian):
        return 1.0
    limit = 1 - SPREAD * noise.amount * torch.view_as_real(A).abs().max().item()
    if limit <= 0:
        raise UsageError(
            f"--stable leaves {SPREAD:g} standard deviations of the noise between |A| and 1, and "
            f"noise of {noise.amount:g} has no room for them: lower it, or leave --stable out."
        )
    return limit


@torch.no_grad()
def stabilised(
    params: Params, config: Any, plan: Resolved, noises: Mapping[str, Noise] | None = None
) -> dict[str, Tensor]:
    """The parameters of a time-invariant model, with every A that the plan stores above 1 moved
    inward, its phase kept, by about as little as it takes. `noises`, by site, are left room for."""
    found, noises = dict(params), noises or {}
    noisy = any(f"layers.{i}.A" in noises for i in range(config.layers))
    for share in (*_STEADY, *_PULLS) if noisy else _PULLS:
        stored = _stored(Applier(deployed(found, config)), plan)
        above = {name: _size(A) > _limit(A, noises.get(name)) for name, A in stored.items()}
        if not any(mask.any() for mask in above.values()):
            return found
        for name, mask in above.items():
            found |= _pulled(found, name.removesuffix("A"), mask, share)
    raise UsageError(
        "--stable found no A inside the unit circle that the plan rounds to one inside: give A "
        "more bits, or a polar format."
    )


def deployed(params: Params, config: Any) -> Model:
    """The model of parameters in training, in its family's precision."""
    family = family_of(config)
    dtype = getattr(torch, family.precision)
    weights = family.deploy({name: p.to(dtype) for name, p in params.items()}, config)
    model: Model = family.model(config, weights)
    return model


def _pulled(params: Params, at: str, mask: Tensor, share: float) -> dict[str, Tensor]:
    """The parameters of A of one layer, with |A_bar| smaller by a share where the mask says so."""
    if at + "A" in params:
        A = params[at + "A"]
        return {at + "A": torch.where(mask.view(A.shape[:-1])[..., None], A * (1 - share), A)}
    if at + "A_real" in params:
        old = params[at + "A_real"]
        pull = math.log(1 - share) / params[at + "log_dt"].double().exp()  # |A_bar| = e^(dt a)
        return {at + "A_real": torch.where(mask.flatten(), (old + pull).to(old.dtype), old)}
    old, dt = params[at + "log_A_real"], params[at + "log_dt"].double().exp()[:, None]
    decay = old.double().exp() - torch.tensor(1 - share).double().log() / dt  # |A_bar| = e^-(dt a)
    return {at + "log_A_real": torch.where(mask, decay.log().to(old.dtype), old)}
