"""The headline metric: what a session scores, in which unit, and which direction is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sensprobe.data import Dataset
from sensprobe.errors import UsageError
from sensprobe.evaluate import ADDITIVE, NAMES, PRIMARY, Metric, told_apart
from sensprobe.progress import SILENT, Progress
from sensprobe.scores.classes import POOLED
from sensprobe.scores.metrics import (
    AGREEMENT,
    ARRAYS,
    BALANCED_ACCURACY,
    DIVERGENCE,
    F1,
    INFO,
    NRMSE,
    PREDICTED,
    MetricInfo,
    declared,
)


@dataclass(slots=True)
class Headline:
    """The score of a data set: a user's `metric`, one of `metrics.BUILT_IN`, or the task's own.

    `mark` identifies the code of a user's metric: evaluations of other code are not reused.
    """

    dataset: Dataset
    built_in: str = ""
    metric: Metric | None = None
    metric_name: str = ""
    mark: str = ""
    progress: Progress = SILENT
    examples: Callable[[], tuple[Tensor, Tensor]] | None = None  # outputs, targets of few samples
    _info: MetricInfo | None = None

    def __post_init__(self) -> None:
        needs: dict[str, tuple[str, ...]] = {
            AGREEMENT: ("classification", "unlabelled", "language"),
            BALANCED_ACCURACY: ("classification",),
            F1: ("classification",),
        }
        task = self.dataset.task
        if self.built_in in needs and task not in needs[self.built_in]:
            has = {"regression": "targets", "language": "text", "unlabelled": "no labels"}
            raise UsageError(
                f"--metric {self.built_in} is for {', '.join(needs[self.built_in])}, and "
                f"{self.dataset.name} has {has.get(task, task)}. Leave it out, or take divergence."
            )

    @property
    def primary(self) -> str:
        """The name of the per-sample array behind the headline."""
        if self.metric:
            return "custom"
        if self.built_in == DIVERGENCE:
            return self.additive
        if self.built_in:
            return ARRAYS[self.built_in]
        follows = self.dataset.per_step and self.dataset.task == "regression"
        return NRMSE if follows else PRIMARY[self.dataset.task]

    @property
    def label(self) -> str:
        """The metric's name for people."""
        return self.metric_name or NAMES[self.primary]

    @property
    def additive(self) -> str:
        """The name of the array whose losses add up over sites, to first order."""
        return ADDITIVE[self.dataset.task]

    @property
    def scores_divergence(self) -> bool:
        """True if the headline needs full-precision outputs to compare with."""
        return self.primary in (self.additive, "agrees")

    @property
    def chance(self) -> float | None:
        """The score of guessing; None where it is not known."""
        counts = self.primary in ("correct", *POOLED) and self.dataset.classes
        return 1 / self.dataset.classes if counts and self.dataset.classes else None

    @property
    def robust(self) -> bool:
        """True if differences have tails that a mean's error does not describe (regression)."""
        return self.dataset.task == "regression"

    @property
    def info(self) -> MetricInfo:
        """The metric's name, unit and direction."""
        if self._info is None:
            self._info = self._declared() if self.metric else INFO[self.primary]
        return self._info

    def _declared(self) -> MetricInfo:
        """The info that a user's metric declares, as attributes or beside its values."""
        assert self.metric is not None
        info, complete = declared(self.metric, self.metric_name)
        if not complete and self.examples is not None:
            _, said = told_apart(self.metric(*self.examples()))
            info, complete = declared(self.metric, self.metric_name, said)
        if not complete:
            better = "more" if info.higher_is_better else "less"
            self.progress.note(
                f"the metric {info.name} declares no unit: its numbers are shown as they are, "
                f"{better} is better, and --max-loss counts in them. Say {self.metric_name}.unit = "
                "'fraction', 'percent' or a name in its file to change that"
            )
        return info

    @property
    def sign(self) -> int:
        """+1 where more of the headline metric is better, -1 where less is."""
        return self.info.sign

    def arrays(self, *, predictions: bool) -> frozenset[str]:
        """The names of the arrays that evaluations keep beyond the usual ones."""
        predicted = predictions or self.primary in POOLED
        wanted = [PREDICTED] if predicted and self.dataset.task == "classification" else []
        return frozenset(wanted + [self.primary] * (self.primary in ("agrees", NRMSE)))
