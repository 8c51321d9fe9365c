"""One function a command: call the public function, print what it returned."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sensprobe import api
from sensprobe.cli import interrupt, show, show_scores, show_targets, show_tasks
from sensprobe.cli.bar import Bar
from sensprobe.cli.console import PlainConsole
from sensprobe.cli.training import TrainingBar
from sensprobe.errors import UsageError
from sensprobe.plans.plan import Plan, parse_setting
from sensprobe.runs import open_run

if TYPE_CHECKING:
    from sensprobe.session.plans import OnePlan

stdout = PlainConsole()
stderr = PlainConsole(stderr=True)


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
    rows = api.list_sites(
        arguments.model, norm=arguments.norm, data=arguments.data, data_seed=arguments.data_seed
    )
    if arguments.json:
        print_json(rows)
    else:
        stdout.print(show.sites(arguments.model, rows))


def presets(arguments: Namespace) -> None:
    rows = api.list_presets(arguments.model, batch=arguments.batch)
    if arguments.json:
        print_json(rows)
    else:
        stdout.print(show.presets(rows))


def profile(arguments: Namespace) -> None:
    document = api.profile(
        arguments.model,
        arguments.data,
        arguments.run,
        arguments.scheme,
        by=arguments.by,
        method=arguments.method,
        noise=arguments.noise,
        draws=arguments.draws,
        noise_seed=arguments.noise_seed,
        limit=arguments.limit,
        norm=arguments.norm,
        metric=arguments.metric,
        data_seed=arguments.data_seed,
        reuse=arguments.reuse,
        workers=arguments.workers,
        progress=Bar(stderr),
    )
    _warn(document)
    if arguments.json:
        print_json(document)
    else:
        stdout.print(show.sensitivity(document))
        if not arguments.noise:  # a search reads what schemes lose
            stderr.print(show.next_after_profile(arguments.run, document), style="dim")


def search(arguments: Namespace) -> None:
    document = api.search(
        arguments.run,
        arguments.budget or (),
        weight_budget=arguments.weight_budget,
        state_budget=arguments.state_budget,
        max_loss=arguments.max_loss,
        schemes=arguments.scheme,
        freeze=arguments.freeze,
        tie=arguments.tie,
        target=arguments.target,
        count_states=arguments.count_states,
        batch=arguments.batch,
        method=arguments.method,
        evaluations=arguments.evaluations,
        seed=arguments.seed,
        limit=arguments.limit,
        also=arguments.also,
        confirm=not arguments.no_confirm,
        tune=arguments.tune,
        prune=arguments.prune,
        noise=arguments.noise,
        draws=arguments.draws,
        noise_seed=arguments.noise_seed,
        restart=arguments.restart,
        reuse=arguments.reuse,
        workers=arguments.workers,
        allow_code=arguments.allow_code,
        progress=Bar(stderr),
        trained=TrainingBar(stderr),
    )
    if arguments.json:
        print_json(document)
        return
    for part in show.search(document["search"], document["confirmation"]):
        stdout.print(part)
    if document["turns"]:
        for part in show_scores.turns(document["turns"]):
            stdout.print(part)
    stderr.print(show.next_after_search(arguments.run, document["search"]), style="dim")


def evaluate(arguments: Namespace) -> None:
    if arguments.task:
        return _evaluate_tasks(arguments)
    _require_data(arguments)
    document = api.evaluate(
        arguments.model,
        arguments.data,
        _plan(arguments),
        split=arguments.split or "confirmation",
        limit=arguments.limit,
        batch=arguments.batch,
        compare=arguments.compare,
        dead_band=arguments.dead_band,
        per_class=arguments.per_class,
        noise=arguments.noise,
        draws=arguments.draws,
        noise_seed=arguments.noise_seed,
        crossbar=arguments.crossbar,
        run=arguments.run,
        norm=arguments.norm,
        metric=arguments.metric,
        data_seed=arguments.data_seed,
        reuse=arguments.reuse,
        workers=arguments.workers,
        allow_code=arguments.allow_code,
        progress=Bar(stderr),
    )
    _warn(document)
    if arguments.json:
        print_json(document)
    else:
        stdout.print(show_scores.evaluation(document, classes=arguments.per_class))
    return None


def _evaluate_tasks(arguments: Namespace) -> None:
    if arguments.model is None:
        raise UsageError("--task scores a model: name it.")
    for option in (
        *("metric", "split", "dead_band", "per_class"),
        *("noise", "draws", "crossbar", "run", "reuse"),
    ):
        if getattr(arguments, option):
            raise UsageError(
                f"--{option.replace('_', '-')} is for --data; tasks have metrics and documents of "
                "their own, and are not kept in a run. Leave it out, or --task."
            )
    document = api.evaluate_tasks(
        arguments.model,
        arguments.task,
        _plan(arguments),
        data=arguments.data,
        include=arguments.include,
        limit=arguments.limit,
        num_fewshot=arguments.num_fewshot,
        batch_size=arguments.batch_size,
        batch=arguments.batch,
        compare=arguments.compare,
        norm=arguments.norm,
        data_seed=arguments.data_seed,
        progress=Bar(stderr),
    )
    _warn(document)
    if arguments.json:
        print_json(document)
    else:
        wide = stdout if stdout.is_terminal else PlainConsole(width=show_tasks.WIDTH)
        wide.print(show_tasks.tasks(document))


def _require_data(arguments: Namespace) -> None:
    if arguments.data is None and (arguments.model is not None or arguments.run is None):
        raise UsageError(
            "eval scores a model on data or on tasks: give --data DATA (digits, text:FILE, …), or "
            "--task TASK (blimp, …), or no MODEL and --run DIR for those of a run."
        )
    for option in ("include", "num_fewshot", "batch_size"):
        if getattr(arguments, option) is not None:
            raise UsageError(
                f"--{option.replace('_', '-')} is for --task. Leave it out, or --data."
            )


def cost(arguments: Namespace) -> None:
    document = api.cost(
        arguments.model, _plan(arguments), batch=arguments.batch, norm=arguments.norm
    )
    if arguments.json:
        print_json(document)
    else:
        stdout.print(show.cost(arguments.model, document))


def program(arguments: Namespace) -> None:
    text = api.program(
        arguments.model, _plan(arguments), batch=arguments.batch, norm=arguments.norm
    )
    stdout.print(text, end="", markup=False, highlight=False, soft_wrap=True)


def export(arguments: Namespace) -> None:
    plan = _plan(arguments)
    if plan is None or (arguments.run is not None and arguments.set):
        raise UsageError(
            "export writes one plan: of a run by its name alone (--plan 12KiB), of a MODEL as "
            "--plan, --set or both say."
        )
    document = api.export(
        arguments.run,
        plan if arguments.run is None else arguments.plan,
        arguments.out,
        model=arguments.model,
        data=arguments.data,
        norm=arguments.norm,
        data_seed=arguments.data_seed,
        target=arguments.target,
        crossbar=arguments.crossbar,
        overwrite=arguments.overwrite,
        allow_code=arguments.allow_code,
        progress=Bar(stderr),
    )
    _warn(document)
    if arguments.json:
        print_json(document)
    elif arguments.target is not None:
        shown = show_targets.on_crossbar if "placed" in document else show_targets.exported_for
        for part in shown(document):
            stdout.print(part, soft_wrap=isinstance(part, str))
    else:
        stdout.print(show.exported(document))
        stderr.print(show.next_after_export(document), style="dim")


def report(arguments: Namespace) -> None:
    files = api.report(arguments.run, arguments.out)
    if arguments.json:
        print_json(files)
        return
    for part in show.run_tables(open_run(arguments.run)):
        stdout.print(part)
    stdout.print(show.report_files(files))


def train(arguments: Namespace) -> None:
    document = api.train(
        arguments.study,
        arguments.data,
        arguments.out,
        restart=arguments.restart,
        allow_code=arguments.allow_code,
        progress=TrainingBar(stderr),
    )
    if arguments.json:
        print_json(document)
    else:
        stdout.print(show.trained(document))


def tune(arguments: Namespace) -> None:
    plan: Any = _plan(arguments)
    if arguments.model is None and arguments.plan and not arguments.set:
        plan = arguments.plan  # a name of the run's search
    document = api.tune(
        arguments.model,
        arguments.data,
        plan,
        arguments.out,
        run=arguments.run,
        epochs=arguments.epochs,
        max_steps=arguments.max_steps,
        lr=arguments.lr,
        ssm_lr=arguments.ssm_lr,
        batch=arguments.batch,
        average=arguments.average,
        warmup=arguments.warmup,
        clip=arguments.clip,
        parametrization=arguments.parametrization,
        stable=arguments.stable,
        ranges=arguments.ranges,
        progressive=arguments.progressive,
        teacher=arguments.teacher,
        seed=arguments.seed,
        budget=arguments.budget,
        trials=arguments.trials,
        prune=arguments.prune,
        train=arguments.train,
        noise=arguments.noise,
        limit=arguments.limit,
        norm=arguments.norm,
        metric=arguments.metric,
        data_seed=arguments.data_seed,
        restart=arguments.restart,
        allow_code=arguments.allow_code,
        progress=Bar(stderr),
        trained=TrainingBar(stderr),
    )
    _warn(document)
    if arguments.json:
        print_json(document)
        return
    for part in (*show_scores.trials(document), *show_scores.tuned(document)):
        stdout.print(part)
    stderr.print(show.next_after_tune(document, arguments.metric), style="dim", soft_wrap=True)


def prune(arguments: Namespace) -> None:
    document = api.prune(
        arguments.model,
        arguments.data,
        arguments.states,
        arguments.out,
        kernels=arguments.kernels,
        plan=_plan(arguments),
        limit=arguments.limit,
        norm=arguments.norm,
        metric=arguments.metric,
        data_seed=arguments.data_seed,
        allow_code=arguments.allow_code,
        progress=Bar(stderr),
    )
    if arguments.json:
        print_json(document)
        return
    for part in show_scores.pruned(document):
        stdout.print(part)
    plan = ["--plan", arguments.plan] if arguments.plan else []
    plan += [word for text in arguments.set for word in ("--set", text)]
    stderr.print(
        show.next_after_prune(document, plan, arguments.metric), style="dim", soft_wrap=True
    )


def demo(arguments: Namespace) -> None:
    from sensprobe.cli.demo import run_demo

    run_demo(arguments.run, stdout, stderr)


def doctor(arguments: Namespace) -> None:
    found = api.doctor()
    if arguments.json:
        print_json(found)
    else:
        stdout.print(show.doctor(found))


def generate(arguments: Namespace) -> None:
    def write(piece: str) -> None:
        interrupt.check()
        if not arguments.json:
            print(piece, end="", flush=True)

    document = api.generate(
        arguments.model,
        arguments.prompt,
        _plan(arguments),
        data=arguments.data,
        data_seed=arguments.data_seed,
        tokens=arguments.tokens,
        temperature=arguments.temperature,
        seed=arguments.seed,
        device=arguments.device,
        write=write,
        progress=Bar(stderr),
    )
    if arguments.json:
        print_json(document)
        return
    print()
    stderr.print(show.generation(document), style="dim")


def bench(arguments: Namespace) -> None:
    document = _bench_shapes(arguments) if arguments.model is None else _bench_model(arguments)
    if arguments.json:
        print_json(document)
        return
    for part in show.bench(document):
        stdout.print(part)
    if arguments.run:
        stderr.print(show.next_after_bench(arguments.run), style="dim")


def _bench_shapes(arguments: Namespace) -> dict[str, Any]:
    for option in ("plan", "set", "data", "length", "norm"):
        if getattr(arguments, option):
            raise UsageError(
                f"--{option} is of a model: sensprobe bench MODEL --{option} …. Name one, or leave "
                "it out to time operations at the shapes of published models."
            )
    if len(arguments.batch) > 1:
        raise UsageError(
            "--batch takes several numbers with a MODEL; the shapes of published models are timed "
            "at one: give one number, or name a model."
        )
    return api.bench(
        arguments.shapes or ("130m",),
        batch=arguments.batch[0],
        device=arguments.device,
        run=arguments.run,
        progress=Bar(stderr),
    )


def _bench_model(arguments: Namespace) -> dict[str, Any]:
    if arguments.shapes:
        raise UsageError(
            "--shapes are of published models, and a MODEL has its own: leave one of them out."
        )
    return api.bench_model(
        arguments.model,
        _plan(arguments),
        data=arguments.data,
        batches=arguments.batch,
        length=arguments.length,
        device=arguments.device,
        norm=arguments.norm,
        run=arguments.run,
        progress=Bar(stderr),
    )


def status(arguments: Namespace) -> None:
    document = api.status(arguments.run)
    if arguments.json:
        print_json(document)
    else:
        stdout.print(show.status(document))


def _plan(arguments: Namespace) -> list[OnePlan] | None:
    """The plan of --plan and --set (later ones override); None where neither is given."""
    if not (arguments.plan or arguments.set):
        return None
    base: list[OnePlan] = [arguments.plan] if arguments.plan else []
    return [*base, Plan(tuple(parse_setting(text) for text in arguments.set))]


def _warn(document: dict[str, Any]) -> None:
    for warning in document.get("warnings", ()):
        stderr.print(warning, style="yellow")


COMMANDS: dict[str, Callable[[Namespace], int | None]] = {
    "sites": sites,
    "presets": presets,
    "profile": profile,
    "search": search,
    "eval": evaluate,
    "cost": cost,
    "program": program,
    "export": export,
    "generate": generate,
    "bench": bench,
    "report": report,
    "status": status,
    "train": train,
    "tune": tune,
    "prune": prune,
    "demo": demo,
    "doctor": doctor,
}
