"""From what a user names to open models, data and runs.

A run remembers what it was opened with (paths made absolute), so that later steps need only its
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
from sensprobe.data import BYTES, check_limit, load_data, load_function, reads_text, split_options
from sensprobe.documents.files import named_path
from sensprobe.errors import RunError, UsageError
from sensprobe.models.apply import Applier, needs_calibration
from sensprobe.plans.plan import Plan, Resolved
from sensprobe.progress import SILENT, Progress
from sensprobe.runs import Run, open_run
from sensprobe.scores.metrics import BUILT_IN
from sensprobe.session.loading import PlanLike, Source, as_plan, load_model, resolve, text_tokenizer
from sensprobe.session.workbench import Workbench, open_workbench
from sensprobe.usercode.code import PREFIX, Code, parsed
from sensprobe.usercode.trust import Gate, Named, Remembered, check_settings


def settings_of(
    model: str | Path,
    data: str,
    *,
    norm: str | None = None,
    metric: str | None = None,
    data_seed: int = 0,
) -> dict[str, Any]:
    """What a run remembers of its inputs."""
    return {
        "model": _absolute(model),
        "norm": norm,
        "data": _absolute_spec(data),
        "data_seed": data_seed,
        "metric": None if metric is None else _absolute_spec(metric),
    }


def open_bench(
    settings: Mapping[str, Any],
    run: str | Path | None = None,
    progress: Progress = SILENT,
    limits: Mapping[str, int | None] = MappingProxyType({}),
    *,
    reuse: Sequence[str | Path] = (),
    gate: Gate | None = None,
) -> Workbench:
    """The workbench of a model, data and metric; `progress` is told what a user should know.

    `limits` are samples of splits that will be asked for: what cannot be met leaves no folder.
    Evaluations of the runs in `reuse` are used too. Without a `gate` the caller names what code
    the settings name, which may then run later where `run` names it.
    """
    gate = Named(remember=run is not None, progress=progress) if gate is None else gate
    source = load_model(settings["model"], settings.get("norm"))
    spec, seed = settings["data"], settings.get("data_seed", 0)
    tokenizer = text_tokenizer(source) if reads_text(spec) else BYTES
    dataset = load_data(spec, seed=seed, tokenizer=tokenizer, gate=gate)
    for note in dataset.notes:
        progress.note(note)
    for split, limit in limits.items():
        if limit is not None:
            check_limit(split, dataset.splits.count(split), limit)
    metric = settings.get("metric")
    if metric and metric not in BUILT_IN and not metric.startswith(PREFIX):
        raise UsageError(
            f"no metric is called {metric!r}; name one of {', '.join(BUILT_IN)}, or a function of "
            "yours, python:FILE.py:FUNCTION. Without --metric classification is scored by "
            "accuracy, regression by mean squared error, text by bits per byte."
        )
    own = load_function(metric, gate) if metric and metric not in BUILT_IN else None
    if own is not None:
        own.code.seal()
        gate.ran(own.code, own.function_name)
    bench = open_workbench(
        source,
        dataset,
        None if run is None else Path(run),
        settings={**settings, "code": gate.ran_files} if gate.ran_files else settings,
        progress=progress,
        metric=own,
        metric_name=own.function_name if own else "",
        metric_mark=own.code.mark if own else "",
        built_in=metric if metric in BUILT_IN else "",
        data_seed=seed,
        reuse=reuse,
    )
    if bench.run is not None:
        _check_metric(bench.run, metric)
        if own is not None:
            _tell_changed_metric(bench.run, own.code, progress)
    for folder in reuse:
        progress.note(f"evaluations are taken from {folder} where it has them")
    for notice in bench.run.notices if bench.run is not None else ():
        progress.note(notice)
    return bench


def reopen(
    run: str | Path,
    progress: Progress = SILENT,
    *,
    reuse: Sequence[str | Path] = (),
    allow_code: bool = False,
) -> Workbench:
    """The workbench of an existing run, from what its manifest remembers.

    CodeError where that is code which this user did not allow before as it is now; `allow_code`
    allows it. Nothing is loaded before that is known.
    """
    settings = dict(open_run(run).manifest.settings)
    texts = [settings.get(key) for key in ("model", "data", "metric")]
    if not all(isinstance(text, str) for text in (*texts[:2], texts[2] or "")):
        raise RunError(f"{run} does not remember its model and data; profile into a new folder.")
    gate = Remembered(str(run), allow_code, progress)
    check_settings(settings, gate)
    if hub.on_hub(settings["model"]):
        progress.note(f"{run} is of {settings['model']}, read from the hub's cache or downloaded")
    return open_bench(settings, run, progress, reuse=reuse, gate=gate)


def resolved(source: Source, plan: PlanLike | None) -> Resolved:
    """Site -> scheme. An exported model runs its own plan and takes no other."""
    if source.artefact is not None:
        if plan is not None:
            raise UsageError(
                f"{source.name} is an exported model and runs its own plan; give a plan with the "
                "full-precision model it was made from."
            )
        return dict(source.artefact.plan)
    chosen = Plan() if plan is None else as_plan(plan, source.model)
    return resolve(chosen, source.model)


def open_applier(
    model: str | Path,
    plan: PlanLike | None,
    data: str | None,
    *,
    norm: str | None = None,
    data_seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[Source, Resolved, Applier]:
    """A model, a plan for it, and what makes taps of the plan, without data to score on.

    `data` is what a plan with something to calibrate is calibrated on, its calibration split;
    UsageError where such a plan comes without.
    """
    if data is not None:
        bench = open_bench(settings_of(model, data, norm=norm, data_seed=data_seed), None, progress)
        schemes = resolved(bench.source, plan)
        bench.ready(schemes)
        return bench.source, schemes, bench.applier
    source = load_model(model, norm)
    schemes = resolved(source, plan)
    applier = Applier(source.model)
    if source.artefact is not None:
        applier.adopt(source.artefact.tap)
    elif needs_calibration(schemes, source.model.sites):
        named = [n for n, s in schemes.items() if needs_calibration({n: s}, source.model.sites)]
        raise UsageError(
            f"the plan has something to calibrate ({named[0]} in {schemes[named[0]]}, of "
            f"{len(named)}) and no data to do it on. Name data, of which the calibration split is "
            "used: --data text:FILE, pydoc, digits, …; or use dynamic schemes."
        )
    return source, schemes, applier


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
    path, options = split_options(rest) if reads_text(spec) else (rest, "")
    return f"{kind}:{named_path(path).resolve()}{options}"
