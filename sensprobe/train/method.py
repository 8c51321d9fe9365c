"""The choices of a training under a plan that are not numbers of its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sensprobe.errors import UsageError
from sensprobe.models import family_of
from sensprobe.plans.plan import Resolved
from sensprobe.train.parametrization import PARAMETRIZATIONS, TRAINED, is_invariant
from sensprobe.train.ranges import RANGES, learnable, widened


@dataclass(frozen=True, slots=True)
class Method:
    """How parameters are trained under a plan, beside the recipe's numbers.

    `parametrization` is one of `PARAMETRIZATIONS`, "" for the one that the checkpoint has; `stable`
    keeps every discretised A inside the unit circle as it is stored, with room for three
    standard deviations of Gaussian noise on A. `ranges` says whether static ranges are watched or
    learned, `progressive` whether integers start with more bits (see `ranges`). `clip` is the
    largest norm of all gradients together, 0 for any. `train` is one of `TRAINED`.
    """

    parametrization: str = ""
    stable: bool = False
    ranges: str = "watched"
    progressive: bool = False
    clip: float = 1.0
    train: str = "all"

    def __post_init__(self) -> None:
        rules = {
            f"--parametrization is one of {', '.join(PARAMETRIZATIONS)}, not "
            f"{self.parametrization!r}": self.parametrization in ("", *PARAMETRIZATIONS),
            "--stable moves A, which --parametrization frozen and --train vectors keep: leave it, "
            "or them, out": not (
                self.stable and (self.parametrization == "frozen" or self.train == "vectors")
            ),
            f"--ranges is one of {', '.join(RANGES)}, not {self.ranges!r}": self.ranges in RANGES,
            f"--train is one of {', '.join(TRAINED)}, not {self.train!r}": self.train in TRAINED,
            f"--clip must not be negative, not {self.clip}": self.clip >= 0,
        }
        if broken := [rule for rule, holds in rules.items() if not holds]:
            raise UsageError(f"{'; '.join(broken)}.")

    def require_use(self, plan: Resolved, config: Any) -> None:
        """UsageError for a choice that a plan or a model gives no use."""
        if self.stable and not is_invariant(config):
            raise UsageError(
                "--stable is for models whose A is the same in every step (S4D, S5); the decays of "
                f"a {family_of(config).name} model are exp(dt A), at most 1 while A is negative."
            )
        if self.ranges == "learned" and not any(map(learnable, plan.values())):
            raise UsageError(
                "--ranges learned: the plan has no static range of a whole tensor. Ranges a head, "
                "channel or group, dynamic ones and those of polar formats are not learned."
            )
        if self.progressive and widened(plan, 1) == plan:
            raise UsageError("--progressive: the plan has no integers of fewer than 8 bits.")
