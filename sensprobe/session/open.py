"""From what a user names to a session: `open_session`, and `open_calibrated` without data to score.

A run remembers what it was opened with (paths made absolute), so that later jobs need only its
folder. Code among that is run where the user names it, or named or allowed it before as it is now
(`sensprobe.usercode.trust`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sensprobe import zoo
from sensprobe.checkpoints import hub
from sensprobe.data import (
    BYTES,
    Dataset,
    check_limit,
    load_data,
    load_function,
    reads_text,
    split_options,
)
from sensprobe.documents.files import named_path
from sensprobe.errors import RunError, UsageError
from sensprobe.models.apply import Applier
from sensprobe.plans.plan import Resolved
from sensprobe.progress import SILENT, Progress
from sensprobe.runs import Followed, Run, open_run
from sensprobe.scores.metrics import BUILT_IN
from sensprobe.session.calibration import Calibration
from sensprobe.session.headline import Headline
from sensprobe.session.plans import PlanLike, schemes_of
from sensprobe.session.session import Opening, Session, manifest_of
from sensprobe.session.source import Source, open_model, text_tokenizer
from sensprobe.usercode.code import PREFIX, Code, parsed
from sensprobe.usercode.trust import Gate, Named, Remembered, check_settings


def open_session(
    model: str | Path | None = None,
    data: str | None = None,
    run: str | Path | None = None,
    *,
    norm: str | None = None,
    metric: str | None = None,
    data_seed: int = 0,
    limits: Mapping[str, int | None] = MappingProxyType({}),
    reuse: Sequence[str | Path] = (),
    allow_code: bool = False,
    progress: Progress = SILENT,
) -> Session:
    """The session of a model on data; with a run alone, of the inputs that the run remembers.

    `limits` are samples of splits that will be asked for: a limit that cannot be met leaves no
    folder behind. Evaluations of the runs in `reuse` are used too. `progress` is told what a user
    should know.

    Raises CodeError, before anything is loaded, where a run names code that this user did not allow
    before as it is now, unless `allow_code`; RunError where the run is of other inputs.
    """
    opening = Opening(model, data, run, norm, metric, data_seed, tuple(reuse))
    if model is not None and data is not None:
        settings = settings_of(model, data, norm=norm, metric=metric, data_seed=data_seed)
        gate: Gate = Named(remember=run is not None, progress=progress)
    else:
        if run is None or (model, data, norm, metric) != (None,) * 4 or data_seed:
            raise UsageError(
                "name a model and data, or give a run alone (--run DIR) for those that it "
                "remembers, with their norm, metric and seed."
            )
        settings, gate = _remembered(run, allow_code, progress)
    source = open_model(settings["model"], settings.get("norm"))
    spec, seed = settings["data"], settings.get("data_seed", 0)
    tokenizer = text_tokenizer(source) if reads_text(spec) else BYTES
    dataset = load_data(spec, seed=seed, tokenizer=tokenizer, gate=gate)
    for note in dataset.notes:
        progress.note(note)
    for split, limit in limits.items():
        if limit is not None:
            check_limit(split, dataset.splits.count(split), limit)
    name = settings.get("metric")
    headline, code = _headline(name, dataset, gate, progress)
    if gate.ran_files:
        settings = {**settings, "code": gate.ran_files}
    opened = None if run is None else run_for(run, source, dataset, settings, reuse)
    if opened is not None:
        progress = Followed(progress, opened)
    session = Session(source, dataset, opened, progress, headline, seed, opening=opening)
    if opened is not None:
        _check_metric(opened, name)
        if code is not None:
            _tell_changed_metric(opened, code, progress)
    for folder in reuse:
        progress.note(f"evaluations are taken from {folder} where it has them")
    for notice in opened.notices if opened is not None else ():
        progress.note(notice)
    return session


def open_calibrated(
    model: str | Path,
    plan: PlanLike | None,
    data: str | None,
    *,
    norm: str | None = None,
    data_seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[Source, Resolved, Applier]:
    """A model, a plan resolved for it, and an applier that is calibrated for the plan.

    `data` is only calibrated on, by its calibration split; SchemeError where a plan with something
    to calibrate comes without.
    """
    if data is None:
        source = open_model(model, norm)
        calibration = Calibration(source, progress=progress)
    else:
        session = open_session(model, data, norm=norm, data_seed=data_seed, progress=progress)
        source, calibration = session.source, session.calibration
    schemes = schemes_of(plan, source.outline)
    return source, schemes, calibration.ready(schemes)


def run_for(
    path: str | Path,
    source: Source,
    dataset: Dataset,
    settings: Mapping[str, object] = MappingProxyType({}),
    reuse: Sequence[str | Path] = (),
) -> Run:
    """The run at `path`, created where there is none; RunError if it is of other inputs.

    `settings` is what a new run remembers of its inputs.
    """
    manifest = manifest_of(source, dataset, settings)
    run = open_run(path, manifest, earlier=source.earlier, reuse=reuse)
    if "sites" not in run.results():
        run.write_result("sites", [site.to_json() for site in source.model.sites.values()])
    return run


def settings_of(
    model: str | Path,
    data: str,
    *,
    norm: str | None = None,
    metric: str | None = None,
    data_seed: int = 0,
) -> dict[str, Any]:
    """The inputs as a run remembers them, with absolute paths and pinned revisions."""
    return {
        "model": _absolute(model),
        "norm": norm,
        "data": _absolute_spec(data),
        "data_seed": data_seed,
        "metric": None if metric is None else _absolute_spec(metric),
    }


def _remembered(
    run: str | Path, allow_code: bool, progress: Progress
) -> tuple[dict[str, Any], Gate]:
    """The settings that a run remembers, and the gate that lets its code run."""
    settings = dict(open_run(run).manifest.settings)
    texts = [settings.get(key) for key in ("model", "data", "metric")]
    if not all(isinstance(text, str) for text in (*texts[:2], texts[2] or "")):
        raise RunError(f"{run} does not remember its model and data; profile into a new folder.")
    gate = Remembered(str(run), allow_code, progress)
    check_settings(settings, gate)
    if hub.on_hub(settings["model"]):
        progress.note(f"{run} is of {settings['model']}, read from the hub's cache or downloaded")
    return settings, gate


def _headline(
    metric: str | None, dataset: Dataset, gate: Gate, progress: Progress
) -> tuple[Headline, Code | None]:
    """The headline that a METRIC names, and the code of a user's own."""
    if not metric or metric in BUILT_IN:
        return Headline(dataset, metric or "", progress=progress), None
    if not metric.startswith(PREFIX):
        raise UsageError(
            f"no metric is called {metric!r}; name one of {', '.join(BUILT_IN)}, or a function of "
            "yours, python:FILE.py:FUNCTION. Without --metric classification is scored by "
            "accuracy, regression by mean squared error, text by bits per byte."
        )
    own = load_function(metric, gate)
    own.code.seal()
    gate.ran(own.code, own.function_name)
    name, mark = own.function_name, own.code.mark
    return Headline(dataset, "", own, name, mark, progress=progress), own.code


def _check_metric(run: Run, metric: str | None) -> None:
    """RunError where a run's evaluations were scored by another metric than is asked for."""
    before = run.manifest.settings.get("metric")
    if before != metric:
        named = [f"metric {m}" if m else "the task's own metric" for m in (before, metric)]
        raise RunError(
            f"{run.path} was made with {named[0]}, asked for {named[1]}. Give --run another "
            "folder, or the metric this one was made with."
        )


def _tell_changed_metric(run: Run, code: Code, progress: Progress) -> None:
    """Notes where a metric, or what it imports, is no longer what the run was made with."""
    recorded = run.manifest.settings.get("code")
    before = recorded.get(str(code.path)) if isinstance(recorded, Mapping) else None
    if isinstance(before, Mapping) and dict(before) != code.files:
        changed = [n for n in sorted({*before, *code.files}) if before.get(n) != code.files.get(n)]
        progress.note(
            f"the metric has changed since {run.path} was made ({', '.join(changed)}): none of its "
            "earlier evaluations is used, and a profile of it is of the metric as it was"
        )


def _absolute(model: str | Path) -> str:
    path = named_path(model)
    if isinstance(model, str) and model in zoo.shipped():
        return model
    if not path.exists() and hub.on_hub(model):
        return hub.pinned(str(model))
    return str(path.resolve()) if path.exists() else str(model)


def _absolute_spec(spec: str) -> str:
    kind, colon, rest = spec.partition(":")
    if not colon or not rest:
        return spec
    if kind == "python":
        file, function = parsed(spec)
        return f"python:{file}:{function}"
    path, options = split_options(rest)
    return f"{kind}:{named_path(path).resolve()}{options}"
