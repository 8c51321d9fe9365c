"""One function a command: call the step, print what it returned."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from rich.console import Console

from sensprobe import steps
from sensprobe.cli import show
from sensprobe.cli.opening import budgets_from, open_bench, plan_from, reopen, settings_of, stderr
from sensprobe.cli.training import TrainingBar
from sensprobe.loading import load_model
from sensprobe.plan import Plan, parse_setting
from sensprobe.runs import open_run
from sensprobe.scheme import parse
from sensprobe.steps.searching import SearchSettings

stdout = Console(highlight=False)


def print_json(document: Any) -> None:
    """One JSON document on stdout; numbers that are not finite become null."""
    print(json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def sites(arguments: Namespace) -> None:
    source = load_model(arguments.model, arguments.norm)
    rows = steps.list_sites(source)
    if arguments.json:
        print_json(rows)
    else:
        stdout.print(show.sites(source, rows))


def profile(arguments: Namespace) -> None:
    bench = open_bench(settings_of(arguments), arguments.run)
    assert bench.run is not None
    with bench.run.working("profile"):
        document = steps.profile(
            bench,
            [parse(text) for text in arguments.scheme],
            by=arguments.by,
            method=arguments.method,
            limit=arguments.limit,
        )
    if arguments.json:
        print_json(document)
    else:
        stdout.print(show.sensitivity(document))
        stderr.print(show.next_after_profile(arguments.run, document), style="dim")


def search(arguments: Namespace) -> None:
    settings = SearchSettings(
        budgets=budgets_from(arguments),
        method=arguments.method,
        evaluations=arguments.evaluations,
        seed=arguments.seed,
        batch=arguments.batch,
        limit=arguments.limit,
        schemes=tuple(parse(text) for text in arguments.scheme),
        freeze=tuple(parse_setting(text) for text in arguments.freeze),
        tie=tuple(arguments.tie),
    )
    bench = reopen(arguments.run)
    assert bench.run is not None
    with bench.run.working("search"):
        document = steps.search(bench, settings)
        confirmed = None if arguments.no_confirm else steps.confirm(bench)
    if arguments.json:
        print_json({"search": document, "confirmation": confirmed})
        return
    for part in show.search(document, confirmed):
        stdout.print(part)
    stderr.print(show.next_after_search(arguments.run, document), style="dim")


def evaluate(arguments: Namespace) -> None:
    bench = open_bench(settings_of(arguments), arguments.run)
    source = bench.source
    plan = plan_from(arguments, source)
    if plan is None:
        chosen = dict(source.artefact.plan) if source.artefact else {}
    else:
        chosen = plan.resolve(source.model.sites.values())
    with bench.run.working("eval") if bench.run else nullcontext():
        document = steps.evaluate(
            bench,
            chosen,
            split=arguments.split,
            limit=arguments.limit,
            batch=arguments.batch,
            compare=arguments.compare,
        )
    if not chosen:
        for warning in steps.recorded_warnings(source, document, arguments.norm):
            stderr.print(warning, style="yellow")
    if arguments.json:
        print_json(document)
    else:
        stdout.print(show.evaluation(document))


def cost(arguments: Namespace) -> None:
    source = load_model(arguments.model, arguments.norm)
    plan = plan_from(arguments, source)
    resolved = dict(source.artefact.plan) if plan is None and source.artefact else (plan or Plan())
    document = steps.cost(source, resolved, arguments.batch)
    if arguments.json:
        print_json(document)
    else:
        stdout.print(show.cost(source, document))


def export(arguments: Namespace) -> None:
    bench = reopen(arguments.run)
    document = steps.export(bench, arguments.plan, arguments.out, overwrite=arguments.overwrite)
    if arguments.json:
        print_json(document)
    else:
        stdout.print(show.exported(document))
        stderr.print(show.next_after_export(bench.dataset.name, document), style="dim")


def report(arguments: Namespace) -> None:
    run = open_run(arguments.run)
    for part in show.run_tables(run):
        stdout.print(part)
    from sensprobe.report import write_report

    files = write_report(run, arguments.out)
    stdout.print(show.report_files(files))


def train(arguments: Namespace) -> None:
    steps.train(arguments.study, arguments.data, arguments.out, TrainingBar(stderr))


def demo(arguments: Namespace) -> None:
    from sensprobe.cli.demo import run_demo

    run_demo(arguments.run, stdout, stderr)


def doctor(arguments: Namespace) -> None:
    found = steps.doctor()
    if arguments.json:
        print_json(found)
    else:
        stdout.print(show.doctor(found))


COMMANDS: dict[str, Callable[[Namespace], int | None]] = {
    "sites": sites,
    "profile": profile,
    "search": search,
    "eval": evaluate,
    "cost": cost,
    "export": export,
    "report": report,
    "train": train,
    "demo": demo,
    "doctor": doctor,
}
