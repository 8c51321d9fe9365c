"""A model, its data and a run folder, opened together: what every step of the main job works on.

Calibrates once, freezes the full-precision baseline, and answers `measure(plan)` from the ledger
where the plan was evaluated before, by any process, in this run or one that is reused. Where
several processes ask for the same plan at once, one measures it and the others wait for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sensprobe.data import (
    Dataset,
    Reordered,
    Split,
    beginning,
    check_fits,
    check_limit,
    is_ordered,
    missing_classes,
    reordered,
)
from sensprobe.errors import DataError, UnsupportedError, UsageError
from sensprobe.evaluate import (
    ADDITIVE,
    BATCH,
    NAMES,
    PRIMARY,
    Evaluator,
    Metric,
    TextEvaluator,
    told_apart,
)
from sensprobe.models import is_language_model, per_step
from sensprobe.models.apply import Applier, needs_calibration, observe, wanted_by
from sensprobe.numerics import SEMANTICS
from sensprobe.numerics.calibrate import Wanted
from sensprobe.plans.plan import Resolved, fingerprint
from sensprobe.plans.scheme import Rounding, Scheme
from sensprobe.progress import SILENT, Progress
from sensprobe.runs import Evaluation, EvaluationKey, Manifest, Run, open_run
from sensprobe.scores.classes import POOLED
from sensprobe.scores.metrics import (
    AGREEMENT,
    ARRAYS,
    BALANCED_ACCURACY,
    DIVERGENCE,
    F1,
    INFO,
    LABEL,
    PREDICTED,
    MetricInfo,
    declared,
)
from sensprobe.session.loading import Source

CALIBRATION_SAMPLES = 256
"""Sequences watched for static ranges; the calibration split's first, or where these lack classes
that the split has, the first of its seeded order."""
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
    built_in: str = ""  # a headline of `metrics.BUILT_IN` in place of the task's own
    metric_mark: str = ""  # identifies the metric's code: evaluations of other code are not reused
    data_seed: int = 0  # of the order that a part of a split is the beginning of
    divergence: bool = True  # whether measuring also runs full precision, for KL
    predictions: bool = False  # whether evaluations keep the class that is named
    applier: Applier = field(init=False)
    _evaluators: dict[str, Evaluator | TextEvaluator] = field(default_factory=dict)
    _views: dict[str, Reordered] = field(default_factory=dict)
    _used: dict[str, Reordered] = field(default_factory=dict)  # in place of the split as it lies
    _calibration: Split | None = None
    _info: MetricInfo | None = None
    _expected: Wanted = field(default_factory=Wanted)
    _watched: Wanted | None = None  # None before calibration
    _waited: bool = False

    def __post_init__(self) -> None:
        _require_same_kind(self.source, self.dataset)
        check_fits(
            self.dataset,
            d_input=self.source.model.config.d_input,
            outputs=self.source.model.config.d_output,
        )
        _require_scorable(self.built_in, self.dataset)
        self.applier = Applier(self.source.model)
        if self.source.artefact is not None:
            self.applier.adopt(self.source.artefact.tap)

    # -- what is scored ---------------------------------------------------------------------------

    @property
    def primary(self) -> str:
        """The per-sample array behind the headline metric."""
        if self.metric:
            return "custom"
        if self.built_in == DIVERGENCE:
            return self.additive
        return ARRAYS[self.built_in] if self.built_in else PRIMARY[self.dataset.task]

    @property
    def metric_label(self) -> str:
        return self.metric_name or NAMES[self.primary]

    @property
    def info(self) -> MetricInfo:
        """What the headline metric measures: its name, unit and direction."""
        if self._info is None:
            self._info = self._declared() if self.metric else INFO[self.primary]
        return self._info

    def _declared(self) -> MetricInfo:
        """What the user's metric says of itself, as an attribute or beside its values."""
        assert self.metric is not None
        info, complete = declared(self.metric, self.metric_name)
        if not complete:
            split = next(s for s in ("search", "confirmation", *self.dataset.splits))
            few = min(TIMED_SAMPLES, self.dataset.splits.count(split))
            outputs = self._quiet(lambda evaluator: evaluator.outputs({}, 0, few), split)
            _, said = told_apart(self.metric(outputs, self.dataset.splits[split].y[:few]))
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

    @property
    def scores_divergence(self) -> bool:
        """Whether the headline needs full-precision outputs to compare with."""
        return self.primary in (self.additive, "agrees")

    @property
    def chance(self) -> float | None:
        """What guessing scores, where that is known."""
        counts = self.primary in ("correct", *POOLED) and self.dataset.classes
        return 1 / self.dataset.classes if counts and self.dataset.classes else None

    @property
    def robust(self) -> bool:
        """Whether differences have tails that a mean's error does not describe: of regression."""
        return self.dataset.task == "regression"

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
            self._evaluators[split] = self._new_evaluator(self.samples(split))
        evaluator = self._evaluators[split]
        evaluator.more = self._more
        return evaluator

    @property
    def _more(self) -> frozenset[str]:
        """Arrays that evaluations keep beyond the usual ones."""
        predicted = self.predictions or self.primary in POOLED
        wanted = [PREDICTED] if predicted and self.dataset.task == "classification" else []
        return frozenset(wanted + ["agrees"] * (self.primary == "agrees"))

    def _new_evaluator(self, split: Split) -> Evaluator | TextEvaluator:
        model, task, tick = self.source.model, self.dataset.task, self.progress.advance
        if task == "language":
            return TextEvaluator(model, self.applier, split, self.metric, tick, self.divergence)
        return Evaluator(model, self.applier, split, task, self.metric, tick, self.divergence)

    def size(self, split: str, limit: int | None = None, *, raced: bool = False) -> int:
        """Choose which samples of a split are used from now on; returns how many.

        All of them as they lie, or under a limit the beginning of a seeded order, a stratified
        sample of whole groups. Where plans are raced over parts of the split (from `BATCH` samples
        on), a split that lies by class is taken in that order as well. Notes what a user should
        know.
        """
        count = self.dataset.splits.count(split)
        if limit is not None:
            check_limit(split, count, limit)
        part = limit is not None and limit < count
        self._use(split, part or (raced and is_ordered(self.dataset.splits[split], BATCH)))
        stop = beginning(self.samples(split), limit) if part and limit is not None else count
        for note in self._notes(split, stop, limit):
            self.progress.note(note)
        return stop

    def _use(self, split: str, in_order: bool) -> None:
        """Take a split in the seeded order from now on, or as it lies."""
        if in_order == (split in self._used):
            return
        self._evaluators.pop(split, None)
        if not in_order:
            del self._used[split]
        else:
            if split not in self._views:
                self._views[split] = reordered(self.dataset.splits[split], self.data_seed)
            self._used[split] = self._views[split]

    def _notes(self, split: str, stop: int, limit: int | None) -> Iterator[str]:
        count = self.dataset.splits.count(split)
        if limit is not None and limit > count:
            yield f"--limit {limit:,} is beyond the end: {split} has {count:,} samples, all used"
        if stop == count and split in self._used:
            yield f"{split} lies in an order: plans are raced over it shuffled, by class"
        if missing := missing_classes(self.samples(split), stop):
            few = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
            yield (
                f"the {stop:,} {split} samples used here hold nothing of {len(missing)} of its "
                f"classes ({few}): raise --limit"
            )
        groups = self.groups(split, stop)
        if groups is not None and (found := len(np.unique(groups))) < FEW_GROUPS:
            samples = f"the {stop:,} {split} samples"
            if found == 1:
                more = self._two_groups(split)
                yield f"{samples} are all of one group, which tells no error{more}"
            else:
                yield f"{samples} form only {found} groups: errors are rough"

    def _two_groups(self, split: str) -> str:
        """What takes two whole groups of a split whose beginning is all of one."""
        group = self.groups(split, len(self.samples(split)))
        ends = [] if group is None else [*(np.flatnonzero(np.diff(group)) + 1), len(group)]
        if len(ends) < 2:
            return f", and {split} has no other"
        return f" and allows no search: --limit {ends[1]:,} takes two"

    def samples(self, split: str) -> Split:
        """The split in the order in which it is used."""
        return self._used[split].split if split in self._used else self.dataset.splits[split]

    def sampled(self, split: str, stop: int) -> dict[str, Any]:
        """Which samples were used, as documents of a run record it."""
        groups = self.groups(split, stop)
        return {
            "order": "stratified" if split in self._used else "as it lies",
            "seed": self.data_seed,
            "n": stop,
            "of": self.dataset.splits.count(split),
            "groups": None if groups is None else len(np.unique(groups)),
            "missing_classes": missing_classes(self.samples(split), stop),
        }

    def groups(self, split: str, stop: int) -> np.ndarray | None:
        group = self.samples(split).group
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
        if self._calibration is None:
            split = self.dataset.splits["calibration"]
            if missing_classes(split, self.calibration_samples):
                split = reordered(split, self.data_seed).split
            self._calibration = split
        return self._calibration

    def key(self, plan: Mapping[str, Scheme], split: str, start: int, stop: int) -> EvaluationKey:
        """The identity of an evaluation. A calibrated plan depends on what it was calibrated on."""
        calibration = ""
        if needs_calibration(plan, self.source.model.sites):
            mark = self._calibration_split().fingerprint
            calibration = f"{mark[:16]}:{self.calibration_samples}"
        plan_mark = fingerprint(plan) + (
            f"+{self.metric_name}:{self.metric_mark}" if self.metric else ""
        )
        if self._more:  # evaluations without these arrays are of no use here
            plan_mark += f"+{','.join(sorted(self._more))}"
        view = self._used.get(split)
        return EvaluationKey(
            self.model_name,
            view.split.fingerprint if view else self.dataset.splits.fingerprint(split),
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
        """Per-sample arrays of a resolved plan on [start, stop), from the ledger if there.

        Those of balanced accuracy and F1 are of these samples together, and of no part of them.
        """
        arrays = self._from_ledger(plan, split, start, stop, label)
        if (pooled := POOLED.get(self.primary)) is None:
            return arrays
        return {**arrays, self.primary: pooled(arrays[LABEL], arrays[PREDICTED])}

    def _from_ledger(
        self, plan: Resolved, split: str, start: int, stop: int, label: str
    ) -> Mapping[str, np.ndarray]:
        run, key = self.run, self.key(plan, split, start, stop)
        if run is None:
            return self._measured(plan, split, start, stop)
        known = self._known(run, key, plan, label) if run.holds(key) else None
        if known is None:
            with run.leased(key, self._waiting):
                known = self._known(run, key, plan, label)
                if known is None:
                    began = time.perf_counter()
                    arrays = self._measured(plan, split, start, stop)
                    meta = {
                        "label": label,
                        "plan": [[name, str(scheme)] for name, scheme in plan.items()],
                        "seconds": time.perf_counter() - began,
                        "radius": self.evaluator(split).spectral_radius(plan),
                    }
                    run.append(Evaluation(key, arrays, meta))
                    return arrays
        self.progress.advance(stop - start)
        return known.arrays

    def _known(self, run: Run, key: EvaluationKey, plan: Resolved, label: str) -> Evaluation | None:
        """What the ledger has, if it says what is scored."""
        known = run.gather(key) or self._from_whole(key, plan, label)
        if known is None or not (self.primary in POOLED or self.primary in known.arrays):
            return None
        return known

    def _measured(
        self, plan: Resolved, split: str, start: int, stop: int
    ) -> Mapping[str, np.ndarray]:
        self.ready(plan)
        return self.evaluator(split).evaluate(plan, start, stop)

    def _waiting(self) -> None:
        """Said once: where two processes do the same work, they meet at every plan."""
        if not self._waited:
            self.progress.note(
                "another process measures a plan of this run that is asked for here: waiting for "
                "it, so that nothing is measured twice"
            )
        self._waited = True

    def _from_whole(self, key: EvaluationKey, plan: Resolved, label: str) -> Evaluation | None:
        """An evaluation in the seeded order out of one of the whole split as it lies, kept under
        its own key. None where there is none, or where rounding draws by a sample's position."""
        view = self._used.get(key.split)
        if self.run is None or view is None or any(map(_draws, plan.values())):
            return None
        mark = self.dataset.splits.fingerprint(key.split)
        known = self.run.gather(replace(key.over(0, len(view.order)), data=mark))
        if known is None:
            return None
        here = view.order[key.start : key.stop]
        arrays = {name: np.asarray(values)[here] for name, values in known.arrays.items()}
        found = Evaluation(key, arrays, {**known.meta, "label": label})
        self.run.append(found)
        return found

    def _quiet(self, run: Callable[[Any], Any], split: str) -> Any:
        """What `run` gives of the split's evaluator, without telling progress."""
        evaluator = self.evaluator(split)
        quiet, evaluator.tick = evaluator.tick, lambda units: None
        try:
            return run(evaluator)
        finally:
            evaluator.tick = quiet

    def seconds_a_sample(self, split: str, stop: int) -> float:
        """Measured at full precision on some samples, warm: what estimates are made of."""
        evaluator = self.evaluator(split)
        some = evaluator.batch if isinstance(evaluator, TextEvaluator) else TIMED_SAMPLES
        count = min(TIMED_SAMPLES, stop, some)
        self._quiet(lambda it: it.outputs({}, 0, 1), split)
        began = time.perf_counter()
        self._quiet(lambda it: it.outputs({}, 0, count), split)
        return (time.perf_counter() - began) / count


def _draws(scheme: Scheme) -> bool:
    return scheme.rounding is Rounding.STOCHASTIC


def _require_scorable(built_in: str, dataset: Dataset) -> None:
    """UsageError for a built-in metric that the data has no answer to."""
    needs: dict[str, tuple[str, ...]] = {
        AGREEMENT: ("classification", "unlabelled", "language"),
        BALANCED_ACCURACY: ("classification",),
        F1: ("classification",),
    }
    if built_in in needs and dataset.task not in needs[built_in]:
        what = {"regression": "targets", "language": "text", "unlabelled": "no labels"}
        raise UsageError(
            f"--metric {built_in} is for {', '.join(needs[built_in])}, and {dataset.name} has "
            f"{what.get(dataset.task, dataset.task)}. Leave it out, or take divergence."
        )


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
    built_in: str = "",
    data_seed: int = 0,
    reuse: Sequence[str | Path] = (),
) -> Workbench:
    """Open model, data and (where given) the run folder; RunError if the run is of other inputs.

    Evaluations of the runs in `reuse` are used where they have them, and copied.
    """
    opened = None
    if run is not None:
        opened = open_run(
            run,
            manifest_of(source, dataset, settings or {}),
            earlier=source.earlier,
            reuse=reuse,
        )
        if "sites" not in opened.results():
            opened.write_result("sites", [site.to_json() for site in source.model.sites.values()])
    return Workbench(
        source, dataset, opened, progress, metric, metric_name, built_in, metric_mark, data_seed
    )
