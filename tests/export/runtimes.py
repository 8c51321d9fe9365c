"""Small language models that transformers has classes for, and plans that use every layout."""

from __future__ import annotations

from functools import cache
from typing import Any

import selective
import torch

from sensprobe.models.apply import Applier, observe, wanted_by
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.plans.plan import Resolved
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.plans.sites import matching

CONFIGS = {
    "mamba": MambaConfig(**selective.WIDE, dt_rank=2, d_state=4),
    "mamba, biases": MambaConfig(
        **selective.WIDE, dt_rank=32, d_state=4, bias=True, tied_head=True
    ),
    "falcon": MambaConfig(**selective.WIDE, dt_rank=2, d_state=4, inner_norm=True, tied_head=True),
    "mamba2": Mamba2Config(**selective.WIDE, d_state=8, d_head=8, groups=2),
    "mamba2, tied": Mamba2Config(
        **selective.WIDE, d_state=8, d_head=8, tied_head=True, bias=True, dt_min=0.01, dt_max=0.5
    ),
}
NAMES = list(CONFIGS)


@cache
def model(name: str) -> Any:
    return selective.tiny(CONFIGS[name], seed=3)


def tokens(count: int = 2, length: int = 9) -> torch.Tensor:
    return selective.inputs(CONFIGS["mamba"], count, length, seed=4)


def plan_of(name: str, schemes: dict[str, str]) -> Resolved:
    """A resolved plan from patterns; those that match nothing in this model are left out."""
    sites = model(name).sites.values()
    chosen: dict[str, Scheme] = {}
    for pattern, scheme in schemes.items():
        chosen |= {site.name: parse(scheme) for site in matching(pattern, sites)}
    return {s.name: chosen[s.name] for s in sites if s.name in chosen and not chosen[s.name].exact}


def applier(name: str, plan: Resolved) -> Applier:
    """One that is calibrated for a plan."""
    return Applier(model(name), observe(model(name), tokens(), wanted_by(plan, model(name))))
