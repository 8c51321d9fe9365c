"""Small models with odd sizes, so that no tensor fills its last byte, and plans for them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from math import log, pi
from pathlib import Path

import selective
import torch
from torch import Tensor

from sensprobe.checkpoints.own import build, parameter_shapes
from sensprobe.errors import SchemeError
from sensprobe.models import Model
from sensprobe.models.apply import Applier, inputs_of, observe
from sensprobe.models.s4d import S4DConfig
from sensprobe.numerics.calibrate import ROTATED, Wanted
from sensprobe.plans.fitting import why_not
from sensprobe.plans.formats import FORMATS, Format, LogPolar, Polar
from sensprobe.plans.scheme import Rounding, Scales, Scheme, parse
from sensprobe.plans.sites import Site

CONFIGS = {
    "one layer": S4DConfig(d_input=2, d_output=3, d_model=3, d_state=5),
    "two, post-norm": S4DConfig(1, 3, 4, 3, layers=2, norm="post"),
    "pre-norm": S4DConfig(1, 2, 2, 7, norm="pre"),
    "mamba": selective.MAMBAS["post"],
    "mamba, tied": selective.MAMBAS["tied"],
    "mamba2": selective.MAMBA2S["channels"],
    "mamba2, tokens": selective.MAMBA2S["tokens"],
}
NAMES = list(CONFIGS)
INVARIANT = [name for name, config in CONFIGS.items() if isinstance(config, S4DConfig)]
SELECTIVE = [name for name in NAMES if name not in INVARIANT]


@cache
def tiny(name: str) -> Model:
    """A stable model with drawn weights."""
    config = CONFIGS[name]
    if not isinstance(config, S4DConfig):
        return selective.tiny(config)
    g = torch.Generator().manual_seed(NAMES.index(name))
    params = {k: torch.randn(s, generator=g) * 0.5 for k, s in parameter_shapes(config).items()}
    for i in range(config.layers):
        at, shape = f"layers.{i}.", (config.d_model, config.d_state)
        dt = torch.rand(config.d_model, generator=g)
        params[at + "log_dt"] = log(0.01) + dt * log(20)
        params[at + "log_A_real"] = torch.full(shape, log(0.5))
        params[at + "A_imag"] = (pi * torch.arange(config.d_state)).expand(shape)
    return build(params, config, Path("drawn"))


def inputs(model: Model, count: int = 5, length: int = 11, seed: int = 7) -> Tensor:
    if model.family != "s4d":
        return selective.inputs(model.config, count, length, seed)
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, length, model.config.d_input, generator=g)


@cache
def applier(name: str) -> Applier:
    """A calibrated applier, for plans with static states and activations, rotated or not."""
    model = tiny(name)
    turned = {n for n, s in model.sites.items() if s.kind == "activation" and not _odd(s)}
    counted = [*model.sites, *(n + ROTATED for n in turned)]
    wanted = Wanted(
        channels=frozenset(counted),
        rotated=frozenset(turned),
        moments=frozenset(inputs_of(model).values()),
    )
    return Applier(model, observe(model, inputs(model, seed=8), wanted))


def _odd(site: Site) -> bool:
    return why_not(Scheme(FORMATS["int8"], hadamard=True), site) is not None


@cache
def schemes() -> list[Scheme]:
    """Every way to store a tensor that this package tells apart, about; most fit some site."""
    polar: list[Format] = [Polar(3, 5), Polar(16, 1), LogPolar(1, 11), LogPolar(7, 8)]
    formats = [*FORMATS.values(), *polar]
    spans = [("tensor", 0), ("channel", 0), ("head", 0), ("group", 2), ("group", 4)]
    found: list[Scheme] = []
    for format, (granularity, group), asym, parts, dynamic, scales in product(
        formats, spans, (False, True), (False, True), (False, True), Scales
    ):
        try:
            scheme = Scheme(format, granularity, group, asym, parts=parts, scales=scales)
            found.append(replace(scheme, dynamic=dynamic))
        except SchemeError:
            continue
    found += [parse(f"int5/{word}") for word in ("p99", "mse", "range2", "asym/range-1:2/s32")]
    found += [
        Scheme(FORMATS["int5"], rounding=r, seed=3 if r is Rounding.STOCHASTIC else 0, dynamic=True)
        for r in Rounding
    ]
    found += [Scheme(FORMATS["int6"], clip=1.5), Scheme(FORMATS["e4m3"], every=3, dynamic=True)]
    found += [Scheme(FORMATS["e5m2"], rounding=Rounding.STOCHASTIC, seed=1)]
    found += [parse(f"int4/{w}/gptq") for w in ("channel", "group2/asym", "hadamard", "mse/pow2")]
    found += [parse(f"{f}/gptq") for f in ("bf16", "e2m1/channel", "log4/hadamard/group2")]
    found += [parse(f"{f}/hadamard") for f in ("bf16", "int8", "int4/group2", "int5/asym/mse")]
    found += [parse(f"{f}/decoupled") for f in ("int4", "e4m3/feedback", "int8/clip2/s32")]
    found += [parse(f"{f}/hadamard") for f in ("int6/p99", "int8/dynamic", "int4/stochastic")]
    return [*found, Scheme(FORMATS["fp32"], clip=0.5), Scheme(FORMATS["bf16"], every=2)]


def fitting(site: Site) -> list[Scheme]:
    return [scheme for scheme in schemes() if why_not(scheme, site) is None]
