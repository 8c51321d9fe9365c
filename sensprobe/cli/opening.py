"""From parsed arguments to open models, data and runs."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

from rich.console import Console

from sensprobe.cli.bar import Bar
from sensprobe.cli.parser import byte_count
from sensprobe.data import load_data, load_function
from sensprobe.errors import RunError, UsageError
from sensprobe.loading import Source, load_model
from sensprobe.plan import Plan, parse_setting, read
from sensprobe.runs import open_run
from sensprobe.search import Budget
from sensprobe.workbench import Workbench, open_workbench

stderr = Console(stderr=True, highlight=False)


def settings_of(arguments: Namespace) -> dict[str, Any]:
    """What a run remembers, so that later steps need only its folder. Paths are made absolute."""
    return {
        "model": _absolute(arguments.model),
        "norm": arguments.norm,
        "data": _absolute_data(arguments.data),
        "data_seed": arguments.data_seed,
        "metric": _absolute_data(arguments.metric) if arguments.metric else None,
    }


def _absolute(model: str) -> str:
    path = Path(model).expanduser()
    return str(path.resolve()) if path.exists() else model


def _absolute_data(spec: str) -> str:
    kind, colon, rest = spec.partition(":")
    if not colon:
        return spec
    if kind == "python":
        file, _, function = rest.rpartition(":")
        return f"python:{Path(file).expanduser().resolve()}:{function}"
    return f"{kind}:{Path(rest).expanduser().resolve()}"


def open_bench(settings: dict[str, Any], run: Path | None) -> Workbench:
    """The workbench of a model, data and metric, with progress on stderr."""
    source = load_model(settings["model"], settings.get("norm"))
    dataset = load_data(settings["data"], seed=settings.get("data_seed", 0))
    bar = Bar(stderr)
    for note in dataset.notes:
        bar.note(note)
    metric = load_function(settings["metric"]) if settings.get("metric") else None
    bench = open_workbench(
        source,
        dataset,
        run,
        settings=settings,
        progress=bar,
        metric=metric,
        metric_name=settings["metric"].rpartition(":")[2] if metric else "",
    )
    if bench.run is not None:
        for notice in bench.run.notices:
            bar.note(notice)
    return bench


def reopen(run: Path) -> Workbench:
    """The workbench of an existing run, from what its manifest remembers."""
    settings = dict(open_run(run).manifest.settings)
    if "model" not in settings or "data" not in settings:
        raise RunError(f"{run} does not remember its model and data; profile into a new folder.")
    return open_bench(settings, run)


def plan_from(arguments: Namespace, source: Source) -> Plan | None:
    """The plan of --plan and --set (later ones override); None where neither is given."""
    if not (arguments.plan or arguments.set):
        return None
    if source.artefact is not None:
        raise UsageError(
            f"{source.name} is an exported model and runs its own plan; give --plan or --set with "
            "the full-precision model it was made from."
        )
    base = read(arguments.plan) if arguments.plan else Plan()
    return Plan(base.entries + tuple(parse_setting(text) for text in arguments.set), base.name)


def budgets_from(arguments: Namespace) -> tuple[Budget, ...]:
    """One budget for each --budget; weight and state limits go with every one of them."""
    weight, state = (_size(getattr(arguments, name)) for name in ("weight_budget", "state_budget"))
    out = [Budget(_size(text), weight, state, label=text) for text in arguments.budget or []]
    if not out and (weight is not None or state is not None):
        label = " ".join(
            f"{kind}<={text}"
            for kind, text in (
                ("weights", arguments.weight_budget),
                ("state", arguments.state_budget),
            )
            if text
        )
        out = [Budget(None, weight, state, label=label)]
    if arguments.max_loss is not None:
        if arguments.max_loss < 0:
            raise UsageError(f"--max-loss {arguments.max_loss}: points lost cannot be negative.")
        out.append(Budget(max_loss=arguments.max_loss, label=f"loss<={arguments.max_loss:g}"))
    return tuple(out)


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return byte_count(text)
    except ArgumentTypeError as error:
        raise UsageError(f"{error}.") from None
