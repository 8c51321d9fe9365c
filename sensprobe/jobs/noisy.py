"""Evaluations under draws of noise: several devices, each with its own weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sensprobe.errors import UsageError
from sensprobe.plans.noise import Draw, Entries, resolve
from sensprobe.plans.plan import Resolved
from sensprobe.scores.draws import spread
from sensprobe.session.executor import Arrays, Labelled, Piece
from sensprobe.session.session import Session

DRAWS = 10


def check_draws(draws: int, seed: int) -> None:
    """UsageError for a number of devices or a seed that there is not."""
    if draws < 1:
        raise UsageError(f"--draws must be at least 1, not {draws}.")
    if not 0 <= seed < 2**32:
        raise UsageError(f"--noise-seed {seed}: give a whole number from 0 to {2**32 - 1}.")


@dataclass(frozen=True, slots=True)
class Noisy:
    """What is perturbed, on how many devices, and the seed that they are drawn from."""

    entries: Entries
    draws: int = DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        check_draws(self.draws, self.seed)

    def of(self, session: Session, first: int = 0) -> tuple[Draw, ...]:
        """The draws for the model of a session, from device number `first` on."""
        noises = resolve(self.entries, session.source.model.sites.values())
        return tuple(Draw(noises, self.seed, first + k) for k in range(self.draws))

    def to_json(self) -> dict[str, Any]:
        """What was asked, as JSON values."""
        asked = [[pattern, str(noise)] for pattern, noise in self.entries]
        return {"noise": asked, "draws": self.draws, "seed": self.seed}


def drawn(
    session: Session, plan: Resolved, draws: Sequence[Draw], piece: Piece, label: str
) -> list[Arrays]:
    """Per-sample arrays of a plan on a piece of the data under every draw."""
    asked = [Labelled(plan, f"{label}, draw {d.index}", d) for d in draws]
    return list(session.each(asked, piece))


def told(noise: Noisy, draws: Sequence[Draw], values: Sequence[np.ndarray]) -> dict[str, Any]:
    """What a document says of noise: what was perturbed, and the score of every draw."""
    return {
        **noise.to_json(),
        "sites": {name: str(one) for name, one in draws[0].noises.items()},
        **spread([float(v.mean()) for v in values]).to_json(),
    }
