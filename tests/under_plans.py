"""Models at the start of a training, and plans for them."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import CONFIGS

from sensprobe.models import family_of
from sensprobe.plans.plan import Plan, Resolved, parse_setting


def plan_of(words: str, model: Any) -> Resolved:
    return Plan(tuple(map(parse_setting, words.split()))).resolve(model.sites.values())


def start_of(name: str) -> tuple[dict[str, torch.Tensor], Any]:
    config = CONFIGS[name]
    return family_of(config).initial(config, (0.01, 0.1), 3), config


def inputs_of(config: Any) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    if config.encoder == "embedding":
        return torch.randint(config.d_input, (6, 20), generator=g)
    return torch.randn(6, 20, config.d_input, generator=g)
