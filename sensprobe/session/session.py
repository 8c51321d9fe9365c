"""A session: a model opened on data and, where evaluations are kept, a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from sensprobe.data import Dataset, Split, check_fits
from sensprobe.errors import UnsupportedError
from sensprobe.evaluate import Evaluator, TextEvaluator
from sensprobe.models import is_language_model, per_step
from sensprobe.models.apply import Applier
from sensprobe.models.crossbar import mapped
from sensprobe.numerics import SEMANTICS
from sensprobe.plans.noise import Draw
from sensprobe.plans.plan import Resolved, fingerprint
from sensprobe.plans.scheme import Scheme
from sensprobe.progress import SILENT, Progress
from sensprobe.runs import EvaluationKey, Manifest, Run
from sensprobe.runs.record import CROSSBAR, NOISE
from sensprobe.scores.classes import POOLED
from sensprobe.scores.draws import averaged
from sensprobe.scores.metrics import LABEL, PREDICTED
from sensprobe.session.calibration import Calibration
from sensprobe.session.executor import Arrays, Executor, Labelled, LocalExecutor, Piece
from sensprobe.session.headline import Headline
from sensprobe.session.samples import Samples
from sensprobe.session.source import Source

SUBMITTED_A_WORKER = 8
"""Plans submitted together for every one that is worked on at a time, where nothing is decided
between them."""
TIMED_SAMPLES = 32
"""Sequences run to see how long the others will take."""


def manifest_of(source: Source, dataset: Dataset, settings: Mapping[str, object]) -> Manifest:
    """The manifest that binds a run folder to its inputs."""
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


@dataclass(frozen=True, slots=True)
class Opening:
    """What a session was opened with, as `open_session` takes it: another process opens the same
    one with it."""

    model: str | Path | None
    data: str | None
    run: str | Path | None
    norm: str | None
    metric: str | None
    data_seed: int
    reuse: tuple[str | Path, ...]


@dataclass(slots=True)
class Session:
    """A model opened on data and a run, which every job works on. `open_session` makes one.

    Raises UnsupportedError or DataError where the model's outputs cannot be scored on the data.
    """

    source: Source
    dataset: Dataset
    run: Run | None = None
    progress: Progress = SILENT
    headline: Headline = None  # type: ignore[assignment]  # the task's own, where none is given
    data_seed: int = 0  # of the order that a part of a split is the beginning of
    divergence: bool = True  # whether evaluations also run full precision, for KL
    whole: Session | None = None  # of the model that this one was pruned of: full precision to it
    predictions: bool = False  # whether evaluations keep the class that is named
    draws: tuple[Draw, ...] = ()  # of noise: evaluations are averages over all of them
    opening: Opening | None = None  # how to open it again elsewhere; None where that cannot be
    samples: Samples = field(init=False)
    calibration: Calibration = field(init=False)
    local: LocalExecutor = field(init=False)
    executor: Executor = field(init=False)

    def __post_init__(self) -> None:
        _require_same_kind(self.source, self.dataset)
        config = self.source.model.config
        check_fits(self.dataset, d_input=config.d_input, outputs=config.d_output)
        if self.headline is None:
            self.headline = Headline(self.dataset, progress=self.progress)
        self.headline.examples = self._examples
        self.samples = Samples(self.dataset, self.data_seed, self.progress)
        self.calibration = Calibration(self.source, self.dataset, self.data_seed, self.progress)
        self.executor = self.local = LocalExecutor(self)

    @property
    def applier(self) -> Applier:
        """Makes the taps of plans that are calibrated: see `Calibration.ready`."""
        return self.calibration.applier

    @property
    def model_name(self) -> str:
        """The model's fingerprint in the keys of evaluations: the one that the run knows it by."""
        return self.source.fingerprint if self.run is None else self.run.model_name

    @property
    def more_arrays(self) -> frozenset[str]:
        """The names of the arrays that evaluations keep beyond the usual ones."""
        return self.headline.arrays(predictions=self.predictions)

    # -- evaluations ------------------------------------------------------------------------------

    def key(
        self, plan: Mapping[str, Scheme], piece: Piece, draw: Draw | None = None
    ) -> EvaluationKey:
        """The identity of an evaluation. A calibrated plan depends on what it was calibrated on, as
        does noise on activations and states."""
        head = self.headline
        mark = fingerprint(plan) + (f"+{head.metric_name}:{head.mark}" if head.metric else "")
        if more := self.more_arrays:  # evaluations without these arrays are of no use here
            mark += f"+{','.join(sorted(more))}"
        if mapped(self.applier, plan):
            mark += f"{CROSSBAR}{self.applier.crossbar}"
        if draw is not None:
            mark += NOISE + draw.fingerprint
        return EvaluationKey(
            self.model_name,
            self.samples.fingerprint(piece.split),
            piece.split,
            piece.start,
            piece.stop,
            mark,
            self.calibration.fingerprint(plan, draw),
            SEMANTICS,
        )

    def submit(self, plans: Sequence[Labelled], pieces: Sequence[Piece]) -> list[list[Arrays]]:
        """Per-sample arrays of plan i on piece k at [i][k], by way of the executor.

        With `draws` they are means over these, the same for every plan, of plans that name no draw
        of their own. Balanced accuracy and F1 are of the samples of a piece together, and of no
        part of them.
        """
        if not self.draws or any(one.draw is not None for one in plans):
            return self._submit(plans, pieces)
        count = len(self.draws)
        found = self._submit([one._replace(draw=d) for one in plans for d in self.draws], pieces)
        rows = [found[i : i + count] for i in range(0, len(found), count)]
        return [[averaged(of_piece) for of_piece in zip(*row, strict=True)] for row in rows]

    def _submit(self, plans: Sequence[Labelled], pieces: Sequence[Piece]) -> list[list[Arrays]]:
        primary = self.headline.primary
        found = self.executor.submit(plans, pieces)
        if (pooled := POOLED.get(primary)) is None:
            return found
        return [
            [{**arrays, primary: pooled(arrays[LABEL], arrays[PREDICTED])} for arrays in row]
            for row in found
        ]

    def measure(self, plan: Resolved, split: str, start: int, stop: int, label: str = "") -> Arrays:
        """Per-sample arrays of one resolved plan on samples [start, stop) of a split."""
        return self.submit([Labelled(plan, label)], [Piece(split, start, stop)])[0][0]

    def each(self, plans: Sequence[Labelled], piece: Piece) -> Iterator[Arrays]:
        """Per-sample arrays of every plan on one piece, as they come, in the order of the plans.

        As many plans are submitted at a time as the executor has room for; where it has room for
        several, more of them, so that none of its workers waits for the slowest.
        """
        room = max(self.executor.room, 1)
        together = room if room == 1 else SUBMITTED_A_WORKER * room
        for first in range(0, len(plans), together):
            for pieces in self.submit(plans[first : first + together], [piece]):
                yield pieces[0]

    def new_evaluator(self, split: Split) -> Evaluator | TextEvaluator:
        """Runs plans on a split in this process, and tells the progress."""
        model, task, tick = self.source.model, self.dataset.task, self.progress.advance
        metric = self.headline.metric
        if task == "language":
            return TextEvaluator(model, self.applier, split, metric, tick, self.divergence)
        return Evaluator(model, self.applier, split, task, metric, tick, self.divergence)

    def seconds_a_sample(self, split: str, stop: int) -> float:
        """Seconds at full precision, measured warm on some samples: estimates are made of it."""
        evaluator = self.local.evaluator(split)
        some = evaluator.batch if isinstance(evaluator, TextEvaluator) else TIMED_SAMPLES
        count = min(TIMED_SAMPLES, stop, some)
        self._quietly(lambda it: it.outputs({}, 0, 1), split)
        began = time.perf_counter()
        self._quietly(lambda it: it.outputs({}, 0, count), split)
        return (time.perf_counter() - began) / count

    def _examples(self) -> tuple[Tensor, Tensor]:
        """Full-precision outputs and targets of a few samples."""
        name = next(s for s in ("search", "confirmation", *self.dataset.splits))
        few = min(TIMED_SAMPLES, self.dataset.splits.count(name))
        outputs = self._quietly(lambda evaluator: evaluator.outputs({}, 0, few), name)
        return outputs, self.dataset.splits[name].y[:few]

    def _quietly(self, run: Callable[[Any], Any], split: str) -> Any:
        """`run` of the split's evaluator, without telling the progress."""
        evaluator = self.local.evaluator(split)
        tick, evaluator.tick = evaluator.tick, lambda units: None
        try:
            return run(evaluator)
        finally:
            evaluator.tick = tick


def _require_same_kind(source: Source, dataset: Dataset) -> None:
    """UnsupportedError where a model's outputs and the data's targets are not of one kind."""
    model = source.model
    ours = model.reads_tokens, per_step(model)
    if (dataset.tokens, dataset.per_step) == ours:
        return
    if dataset.task == "language":
        raise UnsupportedError(
            f"{dataset.name} is text, and {source.name} does not predict its next token: name a "
            "language model."
        )
    if is_language_model(model):
        raise UnsupportedError(
            f"{source.name} predicts the next token of text, and {dataset.name} is none: give "
            "--data text:FILE, or pydoc."
        )
    reads, gives = (
        "tokens" if ours[0] else "numbers",
        "an output at every step" if ours[1] else "one output a sequence",
    )
    has, asks = (
        "tokens" if dataset.tokens else "numbers",
        "a target at every step" if dataset.per_step else "one target a sequence",
    )
    raise UnsupportedError(
        f"{source.name} reads {reads} and gives {gives}, and {dataset.name} is {has} with {asks}: "
        "name data of the model's kind. sensprobe.load runs a model from Python; `sites` and "
        "`cost` need no data."
    )
