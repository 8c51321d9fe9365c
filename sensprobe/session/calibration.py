"""The one place that asks for data to calibrate on, and says that there is none.

Static ranges of activations and states, and rounding by `gptq`, depend on what the model holds at
full precision. That is watched once, when a plan first needs it, for all plans that are expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from sensprobe.data import Dataset, Split, missing_classes, reordered
from sensprobe.errors import DataError, SchemeError, UsageError
from sensprobe.models import Model, is_language_model
from sensprobe.models.apply import Applier, needs_calibration, observe, wanted_by
from sensprobe.models.crossbar import find_ranges, mapped, needs_ranges
from sensprobe.models.noisy import ranged
from sensprobe.numerics.calibrate import Wanted
from sensprobe.plans.noise import Draw
from sensprobe.plans.scheme import Scheme
from sensprobe.progress import SILENT, Progress
from sensprobe.session.source import Source

CALIBRATION_SAMPLES = 256
"""Sequences watched for static ranges: the first of the calibration split, or of its seeded order
where the first ones lack classes that the split has."""
CALIBRATION_WINDOWS = 64
"""The same for text, where each sequence is hundreds of tokens."""

NAME_DATA = (
    "Name data, of which the calibration split is used: --data text:FILE, pydoc, digits, …; or use "
    "dynamic schemes."
)
GIVE_SEQUENCES = (
    "Give calibration=x (sequences the model will not be judged on); or, for static ranges, a "
    "range in the scheme (range50) or dynamic; or leave out gptq."
)


@dataclass(slots=True)
class Calibration:
    """Calibrates plans of one model on the calibration split of a data set.

    `ready` returns an `Applier` that makes the taps of a plan. An exported model brings the scales
    of its own plan. Without a data set, a plan that needs calibration is an error.
    """

    source: Source
    dataset: Dataset | None = None
    data_seed: int = 0  # of the order in which samples are taken where the split lies by class
    progress: Progress = SILENT
    applier: Applier = field(init=False)
    _split: Split | None = None
    expected: Wanted = field(default_factory=Wanted)  # by the plans that are to come
    _watched: Wanted | None = None  # None before the first calibration

    def __post_init__(self) -> None:
        self.applier = Applier(self.source.model)
        if self.source.artefact is not None:
            self.applier.adopt(self.source.artefact.tap)

    def expect(self, plans: Iterable[Mapping[str, Scheme]]) -> None:
        """Say which plans are to come, so that the first calibration serves all of them."""
        for plan in plans:
            self.expected = self.expected.joined(wanted_by(plan, self.source.model))

    def ready(self, plan: Mapping[str, Scheme], draw: Draw | None = None) -> Applier:
        """The applier, calibrated for a resolved plan and, where one is given, a draw of noise; on
        a crossbar with the ranges of its converters.

        Raises SchemeError if they need calibration and there is no data to do it on.
        """
        applier = self._watched_for(plan, draw)
        if needs_ranges(applier, plan):
            find_ranges(applier, plan, self.sequences(plan, draw))
        return applier

    def _watched_for(self, plan: Mapping[str, Scheme], draw: Draw | None) -> Applier:
        """The applier with the statistics that a plan and a draw need."""
        model = self.source.model
        if not self._needed(plan, draw):
            return self.applier
        if self.source.artefact is not None and self._ranged(draw):
            raise UsageError(
                f"{self.source.name} is an exported model: how large activations and states are at "
                "full precision is not known here. Give noise to weights alone, or evaluate the "
                f"model it was made from: --plan {self.source.path}/plan.json."
            )
        if self.source.artefact is not None and self.applier.calibrated(plan):
            return self.applier
        known = Wanted() if self._watched is None else self._watched
        wanted = known.joined(wanted_by(plan, model))
        if self._watched is not None and wanted == known:
            return self.applier
        x = self.sequences(plan, draw)
        self.progress.note(f"calibrating on {len(x)} sequences of the calibration split")
        wanted = wanted.joined(self.expected)
        self.applier.statistics = observe(model, x, wanted)
        self.applier.forget_scales()
        self._watched = wanted
        return self.applier

    def sequences(self, plan: Mapping[str, Scheme], draw: Draw | None = None) -> Tensor:
        """What a resolved plan and a draw of noise are calibrated on; SchemeError where there is
        nothing."""
        return self._calibration_split(plan, draw).x[: self.samples]

    def fingerprint(self, plan: Mapping[str, Scheme], draw: Draw | None = None) -> str:
        """Identifies the samples a resolved plan and a draw of noise are calibrated on; "" if they
        need none."""
        if not self._needed(plan, draw):
            return ""
        return f"{self._calibration_split(plan, draw).fingerprint[:16]}:{self.samples}"

    def _needed(self, plan: Mapping[str, Scheme], draw: Draw | None) -> bool:
        return (
            bool(self._ranged(draw))
            or bool(mapped(self.applier, plan))
            or needs_calibration(plan, self.source.model.sites)
        )

    def _ranged(self, draw: Draw | None) -> list[str]:
        return ranged(draw.noises, self.source.model.sites) if draw else []

    @property
    def samples(self) -> int:
        """The most sequences that are watched."""
        return CALIBRATION_WINDOWS if is_language_model(self.source.model) else CALIBRATION_SAMPLES

    def _calibration_split(self, plan: Mapping[str, Scheme], draw: Draw | None = None) -> Split:
        noisy = self._ranged(draw)
        if noisy and (self.dataset is None or "calibration" not in self.dataset.splits):
            raise UsageError(
                f"noise on {noisy[0]} is a share of how large it is on the calibration split, and "
                "there is none: give data that has one, or noise to weights alone."
            )
        if mapped(self.applier, plan) and (
            self.dataset is None or "calibration" not in self.dataset.splits
        ):
            raise UsageError(
                "the ranges of a crossbar's converters are read from the calibration split, and "
                "there is none: give data that has one."
            )
        if self.dataset is None:
            raise _nothing_to_calibrate_on(plan, self.source.model, NAME_DATA)
        if "calibration" not in self.dataset.splits:
            raise _nothing_to_calibrate_on(
                plan,
                self.source.model,
                f"{self.dataset.name} has no calibration split: use dynamic or a given range "
                "(range50) in the scheme, and leave out gptq.",
            )
        if self._split is None:
            split = self.dataset.splits["calibration"]
            if missing_classes(split, self.samples):
                split = reordered(split, self.data_seed).split
            self._split = split
        return self._split


def calibrated_on(x: Tensor | None, plan: Mapping[str, Scheme], model: Model) -> Applier:
    """An applier that is calibrated for a resolved plan on sequences a caller gives.

    x: what the model reads, (n, length, channels) or tokens (n, length). Raises SchemeError if the
    plan needs calibration and `x` is None, DataError for sequences that say nothing.
    """
    if not needs_calibration(plan, model.sites):
        return Applier(model)
    if x is None:
        raise _nothing_to_calibrate_on(plan, model, GIVE_SEQUENCES)
    if len(x) == 0:
        raise DataError("calibration holds no sequence: give at least one.")
    if not x.isfinite().all():
        raise DataError("calibration holds NaN or infinite values: no range can be read from it.")
    return Applier(model, observe(model, x, wanted_by(plan, model)))


def _nothing_to_calibrate_on(plan: Mapping[str, Scheme], model: Model, remedy: str) -> SchemeError:
    named = [name for name, s in plan.items() if needs_calibration({name: s}, model.sites)]
    return SchemeError(
        f"the plan has something to calibrate ({named[0]} in {plan[named[0]]}, of {len(named)}) "
        f"and no data to do it on. {remedy}"
    )
