"""The choices of a training under a plan that are not numbers of its recipe."""

from __future__ import annotations

from dataclasses import dataclass

from sensprobe.errors import UsageError
from sensprobe.train.parametrization import PARAMETRIZATIONS
from sensprobe.train.steps import STEPS


@dataclass(frozen=True, slots=True)
class Method:
    """How parameters are trained under a plan, beside the recipe's numbers.

    `parametrization` is one of `PARAMETRIZATIONS`, "" for the one that the checkpoint has; `stable`
    keeps every discretised A inside the unit circle as it is stored. `steps` says whether static
    ranges are watched or learned, `progressive` whether integers start with more bits (see
    `steps`). `clip` is the largest norm of
    all gradients together, 0 for any.
    """

    parametrization: str = ""
    stable: bool = False
    steps: str = "watched"
    progressive: bool = False
    clip: float = 1.0

    def __post_init__(self) -> None:
        rules = {
            f"--parametrization is one of {', '.join(PARAMETRIZATIONS)}, not "
            f"{self.parametrization!r}": self.parametrization in ("", *PARAMETRIZATIONS),
            "--stable moves A, which --parametrization frozen keeps: leave one of them out": not (
                self.stable and self.parametrization == "frozen"
            ),
            f"--steps is one of {', '.join(STEPS)}, not {self.steps!r}": self.steps in STEPS,
            f"--clip must not be negative, not {self.clip}": self.clip >= 0,
        }
        if broken := [rule for rule, holds in rules.items() if not holds]:
            raise UsageError(f"{'; '.join(broken)}.")
