"""A model, its data and a run folder, opened together: what every step of the main job works on.

Calibrates once, freezes the full-precision baseline, and answers `measure(plan)` from the ledger
where the plan was evaluated before, by any process, in this run or a sibling.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sensprobe.apply import Applier, needs_calibration, observe, wanted_by
from sensprobe.calibrate import Wanted
from sensprobe.data import Dataset, Split, check_fits, take
from sensprobe.errors import DataError, UnsupportedError
from sensprobe.evaluate import (
    ADDITIVE,
    LOWER_IS_BETTER,
    NAMES,
    PRIMARY,
    SEMANTICS,
    Evaluator,
    Metric,
    TextEvaluator,
)
from sensprobe.loading import Source
from sensprobe.models import is_language_model, per_step
from sensprobe.plan import Resolved, fingerprint
from sensprobe.progress import SILENT, Progress
from sensprobe.runs import Evaluation, EvaluationKey, Manifest, Run, open_run
from sensprobe.scheme import Scheme

CALIBRATION_SAMPLES = 256
"""Sequences watched for static ranges; the calibration split's first."""
CALIBRATION_WINDOWS = 64
"""The same of text, where each is hundreds of tokens."""


FEW_GROUPS = 30
"""Below this many groups an error estimated from them is itself uncertain."""
TIMED_SAMPLES = 32
"""Sequences run to see how long the rest will take."""


def manifest_of(source: Source, dataset: Dataset, settings: Mapping[str, object]) -> Manifest:
    """What binds a run folder to its inputs."""
    return Manifest(
        model=source.name,
        model_fingerprint=source.fingerprint,
        data=dataset.name,
        data_fingerprint=dataset.fingerprint,
        semantics=SEMANTICS,
        sites={name: site.shape for name, site in source.model.sites.items()},
        splits={
            name: {
                "count": dataset.splits.count(name),
                "fingerprint": dataset.splits.fingerprint(name),
            }
            for name in dataset.splits
        },
        settings=dict(settings),
    )


@dataclass(slots=True)
class Workbench:
    """One open run. Build with `open_workbench`."""

    source: Source
    dataset: Dataset
    run: Run | None
    progress: Progress = SILENT
    metric: Metric | None = None
    metric_name: str = ""
    by_divergence: bool = False  # the headline is how far outputs are from full precision
    metric_mark: str = ""  # identifies the metric's code: evaluations of other code are not reused
    divergence: bool = True  # whether measuring also runs full precision, for KL
    applier: Applier = field(init=False)
    _evaluators: dict[str, Evaluator | TextEvaluator] = field(default_factory=dict)
    _expected: Wanted = field(default_factory=Wanted)
    _watched: Wanted | None = None  # None before calibration

    def __post_init__(self) -> None:
        _require_same_kind(self.source, self.dataset)
        check_fits(
            self.dataset,
            d_input=self.source.model.config.d_input,
            outputs=self.source.model.config.d_output,
        )
        self.applier = Applier(self.source.model)
        if self.source.artefact is not None:
            self.applier.adopt(self.source.artefact.tap)

    # -- what is scored ---------------------------------------------------------------------------

    @property
    def primary(self) -> str:
        """The per-sample array behind the headline metric."""
        if self.metric:
            return "custom"
        return self.additive if self.by_divergence else PRIMARY[self.dataset.task]

    @property
    def metric_label(self) -> str:
        return self.metric_name or NAMES[self.primary]

    @property
    def sign(self) -> int:
        """+1 where more of the headline metric is better, -1 where less is."""
        return -1 if self.primary in LOWER_IS_BETTER else 1

    @property
    def scores_divergence(self) -> bool:
        """Whether the headline needs full-precision outputs to compare with."""
        return self.primary == self.additive

    @property
    def additive(self) -> str:
        return ADDITIVE[self.dataset.task]

    @property
    def model_name(self) -> str:
        """The model's fingerprint in the keys of evaluations: the one that the run knows it by."""
        return self.source.fingerprint if self.run is None else self.run.model_name

    # -- running ----------------------------------------------------------------------------------

    def evaluator(self, split: str) -> Evaluator | TextEvaluator:
        if split not in self._evaluators:
            self._evaluators[split] = self._new_evaluator(self.dataset.splits[split])
        return self._evaluators[split]

    def _new_evaluator(self, split: Split) -> Evaluator | TextEvaluator:
        model, task, tick = self.source.model, self.dataset.task, self.progress.advance
        if task == "language":
            return TextEvaluator(model, self.applier, split, self.metric, tick, self.divergence)
        return Evaluator(model, self.applier, split, task, self.metric, tick, self.divergence)

    def size(self, split: str, limit: int | None = None) -> int:
        """How many samples of a split are used under a limit; notes what a user should know."""
        if limit is None:
            stop = self.dataset.splits.count(split)
        else:
            taken = take(self.dataset.splits[split], limit)
            if taken.note:
                self.progress.note(taken.note)
            stop = len(taken.split)
        groups = self.groups(split, stop)
        if groups is not None and (count := len(np.unique(groups))) < FEW_GROUPS:
            self.progress.note(
                f"the {stop:,} {split} samples form only {count} groups: errors are rough"
            )
        return stop

    def groups(self, split: str, stop: int) -> np.ndarray | None:
        group = self.dataset.splits[split].group
        return None if group is None else group[:stop].numpy()

    def expect(self, plans: Iterable[Mapping[str, Scheme]]) -> None:
        """Say which plans are to come: one calibration, when it is first needed, does for all."""
        for plan in plans:
            self._expected = self._expected.joined(wanted_by(plan, self.source.model))

    def ready(self, plan: Mapping[str, Scheme]) -> None:
        """Calibrate if the plan needs it and what it needs was not watched yet."""
        if not needs_calibration(plan, self.source.model.sites):
            return
        if self.source.artefact is not None and self.applier.calibrated(plan):
            return
        known = Wanted() if self._watched is None else self._watched
        wanted = known.joined(wanted_by(plan, self.source.model))
        if self._watched is not None and wanted == known:
            return
        split = self._calibration_split()
        x = split.x[: self.calibration_samples]
        self.progress.note(f"calibrating on {len(x)} sequences of the {split.name} split")
        wanted = wanted.joined(self._expected)
        self.applier.statistics = observe(self.source.model, x, wanted)
        self.applier.forget_scales()
        self._watched = wanted

    @property
    def calibration_samples(self) -> int:
        """Sequences that static ranges are calibrated on, at most."""
        if is_language_model(self.source.model):
            return CALIBRATION_WINDOWS
        return CALIBRATION_SAMPLES

    def _calibration_split(self) -> Split:
        if "calibration" not in self.dataset.splits:
            raise DataError(
                f"{self.dataset.name} has no calibration split, which static ranges of activations "
                "and states need, and gptq. Use dynamic or a given range (range50) in the scheme."
            )
        return self.dataset.splits["calibration"]

    def key(self, plan: Mapping[str, Scheme], split: str, start: int, stop: int) -> EvaluationKey:
        """The identity of an evaluation. A calibrated plan depends on what it was calibrated on."""
        calibration = ""
        if needs_calibration(plan, self.source.model.sites):
            mark = self.dataset.splits.fingerprint("calibration")
            calibration = f"{mark[:16]}:{self.calibration_samples}"
        plan_mark = fingerprint(plan) + (
            f"+{self.metric_name}:{self.metric_mark}" if self.metric else ""
        )
        return EvaluationKey(
            self.model_name,
            self.dataset.splits.fingerprint(split),
            split,
            start,
            stop,
            plan_mark,
            calibration,
            SEMANTICS,
        )

    def measure(
        self, plan: Resolved, split: str, start: int, stop: int, label: str = ""
    ) -> Mapping[str, np.ndarray]:
        """Per-sample arrays of a resolved plan on [start, stop), from the ledger if there."""
        key = self.key(plan, split, start, stop)
        if self.run is not None and (known := self.run.gather(key)) is not None:
            self.progress.advance(stop - start)
            return known.arrays
        self.ready(plan)
        began = time.perf_counter()
        arrays = self.evaluator(split).evaluate(plan, start, stop)
        if self.run is not None:
            meta = {
                "label": label,
                "plan": [[name, str(scheme)] for name, scheme in plan.items()],
                "seconds": time.perf_counter() - began,
                "radius": self.evaluator(split).spectral_radius(plan),
            }
            self.run.append(Evaluation(key, arrays, meta))
        return arrays

    def seconds_a_sample(self, split: str, stop: int) -> float:
        """Measured at full precision on some samples, warm: what estimates are made of."""
        evaluator = self.evaluator(split)
        some = evaluator.batch if isinstance(evaluator, TextEvaluator) else TIMED_SAMPLES
        count = min(TIMED_SAMPLES, stop, some)
        quiet, evaluator.tick = evaluator.tick, lambda units: None
        evaluator.outputs({}, 0, 1)
        began = time.perf_counter()
        evaluator.outputs({}, 0, count)
        evaluator.tick = quiet
        return (time.perf_counter() - began) / count


def _require_same_kind(source: Source, dataset: Dataset) -> None:
    """UnsupportedError where a model's outputs and the data's targets are not of one kind."""
    model = source.model
    if is_language_model(model) == (dataset.task == "language"):
        if is_language_model(model) or not (model.reads_tokens or per_step(model)):
            return
        what = "reads tokens" if model.reads_tokens else "gives an output at every step"
        raise UnsupportedError(
            f"{source.name} {what}, and data here is numbers with one target a sequence: it cannot "
            "be scored. sensprobe.load runs it from Python; `sites` and `cost` need no data."
        )
    if is_language_model(model):
        raise UnsupportedError(
            f"{source.name} predicts the next token of text, and {dataset.name} is none: give "
            "--data text:FILE, or pydoc."
        )
    raise UnsupportedError(
        f"{dataset.name} is text, and {source.name} does not predict its next token: name a "
        "language model."
    )


def open_workbench(
    source: Source,
    dataset: Dataset,
    run: Path | None = None,
    *,
    settings: Mapping[str, object] | None = None,
    progress: Progress = SILENT,
    metric: Metric | None = None,
    metric_name: str = "",
    metric_mark: str = "",
    by_divergence: bool = False,
) -> Workbench:
    """Open model, data and (where given) the run folder; RunError if the run is of other inputs."""
    opened = None
    if run is not None:
        opened = open_run(
            run,
            manifest_of(source, dataset, settings or {}),
            earlier=source.earlier,
            reuse_siblings=True,
        )
        if "sites" not in opened.results():
            opened.write_result("sites", [site.to_json() for site in source.model.sites.values()])
    return Workbench(
        source, dataset, opened, progress, metric, metric_name, by_divergence, metric_mark
    )
