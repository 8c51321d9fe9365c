"""From what a user names to open models, data and runs.

A run remembers what it was opened with (paths made absolute), so that later steps need only its
folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sensprobe import zoo
from sensprobe.apply import Applier, needs_calibration
from sensprobe.checkpoints import hub
from sensprobe.data import BYTES, load_data, load_function, reads_text, split_options, take
from sensprobe.errors import RunError, UsageError
from sensprobe.evaluate import DIVERGENCE
from sensprobe.loading import PlanLike, Source, as_plan, load_model, resolve, text_tokenizer
from sensprobe.plan import Plan, Resolved
from sensprobe.progress import SILENT, Progress
from sensprobe.runs import Run, open_run
from sensprobe.workbench import Workbench, open_workbench


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
) -> Workbench:
    """The workbench of a model, data and metric; `progress` is told what a user should know.

    `limits` are samples of splits that will be asked for: what cannot be met leaves no folder.
    """
    source = load_model(settings["model"], settings.get("norm"))
    spec, seed = settings["data"], settings.get("data_seed", 0)
    tokenizer = text_tokenizer(source) if reads_text(spec) else BYTES
    dataset = load_data(spec, seed=seed, tokenizer=tokenizer)
    for note in dataset.notes:
        progress.note(note)
    for split, limit in limits.items():
        if limit is not None:
            take(dataset.splits[split], limit)
    metric = settings.get("metric")
    own = None if metric == DIVERGENCE else metric
    bench = open_workbench(
        source,
        dataset,
        None if run is None else Path(run),
        settings=settings,
        progress=progress,
        metric=load_function(own) if own else None,
        metric_name=own.rpartition(":")[2] if own else "",
        metric_mark=_mark(own) if own else "",
        by_divergence=metric == DIVERGENCE,
    )
    if bench.run is not None:
        _check_metric(bench.run, metric)
    for notice in bench.run.notices if bench.run is not None else ():
        progress.note(notice)
    return bench


def reopen(run: str | Path, progress: Progress = SILENT) -> Workbench:
    """The workbench of an existing run, from what its manifest remembers."""
    settings = dict(open_run(run).manifest.settings)
    if "model" not in settings or "data" not in settings:
        raise RunError(f"{run} does not remember its model and data; profile into a new folder.")
    return open_bench(settings, run, progress)


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
            f"{len(named)}), and tasks are not for that. Name text whose calibration split is: "
            "--data text:FILE, or pydoc; or use dynamic schemes."
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


def _mark(spec: str) -> str:
    """The text of the file a function comes from: an edited metric is another metric."""
    file = spec.partition(":")[2].rpartition(":")[0]
    return sha256(Path(file).read_bytes()).hexdigest()[:16]


def _absolute(model: str | Path) -> str:
    path = Path(model).expanduser()
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
        file, _, function = rest.rpartition(":")
        return f"python:{Path(file).expanduser().resolve()}:{function}"
    path, options = split_options(rest) if reads_text(spec) else (rest, "")
    return f"{kind}:{Path(path).expanduser().resolve()}{options}"
