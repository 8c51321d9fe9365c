"""Every command as one function of plain values: names and paths in, JSON-like documents out.

    import sensprobe.api as sensprobe
    sensprobe.profile("s4d-digits", "digits", run="runs/a")
    sensprobe.search("runs/a", budgets=["1.5KiB"])
    sensprobe.export("runs/a", "1.5KiB", out="exported")

MODEL is a model that ships, a checkpoint file, an exported folder or a model.toml. DATA is a task
(`digits`, `mnist:FOLDER` …, see docs/models-and-data.md), `npz:FILE` or
`python:FILE.py:FUNCTION`, for language models `text:PATH` or `pydoc`; a metric is
`python:FILE.py:FUNCTION`, or `divergence` or `agreement` (with full precision),
`balanced-accuracy` or `f1`. A PLAN is a `Plan`, the name of a preset (see `list_presets`), the path
of a plan.json, {pattern: scheme}, or a list of such, where later ones override. Sizes are bytes, as
integers or text ("12KiB").

Every function raises a `SensprobeError` that says what was asked, what exists and what to do:
UsageError for what cannot be, CheckpointError, DataError, RunError for files. Those that take long
tell a `progress` how long, keep what they finished when interrupted (KeyboardInterrupt), and go on
from there when called again. The jobs themselves, over an open session, are in `sensprobe.jobs`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensprobe.errors import UsageError
from sensprobe.plans.plan import Plan, parse_setting
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.progress import SILENT, Progress

# A job and the room it needs are imported by the function that calls it: what needs no tensors
# waits for no torch, and a score for no search.
if TYPE_CHECKING:
    from sensprobe.jobs.noisy import Noisy
    from sensprobe.session.plans import OnePlan, PlanLike
    from sensprobe.session.session import Session
    from sensprobe.train import Progress as TrainingProgress

Document = dict[str, Any]
Pathlike = str | Path


def list_sites(
    model: Pathlike, *, norm: str | None = None, data: str | None = None, data_seed: int = 0
) -> list[Document]:
    """Every site of a model in the order its forward pass meets them.

    Each: site, part, kind, shape, complex, values (real numbers), full_bytes (in float32),
    stored_dtype and stored_bytes (as the model's file has it). With data also low, high, zeros and
    octaves: how large the values are on the calibration split (see `jobs.ranges`).
    """
    from sensprobe.jobs import cost as job
    from sensprobe.session.outline import outline_of

    if data is None:
        return job.list_sites(outline_of(model, norm))
    from sensprobe.jobs.ranges import ranges
    from sensprobe.session.open import open_session

    session = open_session(model, data, norm=norm, data_seed=data_seed)
    found = ranges(session)
    return [row | found.get(row["site"], {}) for row in job.list_sites(session.source.outline)]


def list_presets(
    model: Pathlike | None = None, *, batch: int = 1, norm: str | None = None
) -> list[Document]:
    """Presets that a PLAN may name: name, about, source, differs (from what was published),
    schemes ({family: [[pattern, scheme], …]}).

    With a model also its cost under each, as `cost` returns it, or why_not.
    """
    from sensprobe.jobs import cost as job

    if model is None:
        return job.list_presets()
    from sensprobe.session.outline import outline_of

    return job.list_presets(outline_of(model, norm), batch)


def cost(
    model: Pathlike, plan: PlanLike | None = None, *, batch: int = 1, norm: str | None = None
) -> Document:
    """The cost of a plan, from shapes alone: weight_bytes (scales and zero points with them),
    state_bytes (of `batch` sequences, as the plan packs them), total_bytes, effective_bits,
    bit_operations a step; held_state_bytes, which the streaming runtime holds between steps, and
    held_why, which says why they are more, "" where they are not; stored_weight_bytes and
    stored_dtype, the weights as the model's file has them, and full_weight_bytes, in float32.

    Without a plan: full precision; of an exported model its own plan.
    """
    from sensprobe.jobs import cost as job
    from sensprobe.session.outline import outline_of
    from sensprobe.session.plans import schemes_of

    outline = outline_of(model, norm)
    return job.cost_and_stored(outline, schemes_of(plan, outline), batch)


def program(
    model: Pathlike, plan: PlanLike | None = None, *, batch: int = 1, norm: str | None = None
) -> str:
    """The streaming program of a plan as text: tables of tensors, states, registers and constants,
    and a line for each operation. Without a plan: full precision; of an exported model its own.

    Raises UnsupportedError for a plan that no kernel streams.
    """
    from sensprobe.jobs import program as job
    from sensprobe.session.plans import schemes_of
    from sensprobe.session.source import open_model

    source = open_model(model, norm)
    return job.program(source, schemes_of(plan, source.outline), batch)


def evaluate(
    model: Pathlike | None,
    data: str | None,
    plan: PlanLike | None = None,
    *,
    split: str = "confirmation",
    limit: int | None = None,
    batch: int = 1,
    compare: bool = False,
    dead_band: bool = False,
    per_class: bool = False,
    noise: str | Sequence[str] = (),
    draws: int | None = None,
    noise_seed: int = 0,
    crossbar: str | None = None,
    run: Pathlike | None = None,
    norm: str | None = None,
    metric: str | None = None,
    data_seed: int = 0,
    reuse: Sequence[Pathlike] = (),
    workers: int | str = 1,
    allow_code: bool = False,
    progress: Progress = SILENT,
) -> Document:
    """The score of a plan: metric, value, stderr, n, cost, max_abs_A, plan_fingerprint and more.

    `limit` uses that many samples of the split, drawn with `data_seed`: groups whole, each class in
    its share (`sample` says which). `compare` adds the paired difference to full precision on the
    same samples; `dead_band` how often rounding keeps the state from moving. With `run` the
    evaluation is kept there; `per_class` then still has each class's precision and F1. Under
    `noise` ("weights=0.01", see docs/noise.md) it is the mean over `draws` devices (10), the same
    for a `noise_seed`, and the document's `noise` has every one's score. With a `crossbar`
    ("rows=256,cell_bits=2", or "") matrices are simulated on its tiles (docs/crossbar.md). Without
    `model` and `data` they are those of `run`, under its metric; `plan` may then be tuned/NAME, a
    model that was tuned there, whose evaluations are not kept. `warnings` says where the score is
    far from what the checkpoint records of itself, and which states leave the range of the float
    format they are kept in (`saturated` has the numbers). Evaluations of the runs in `reuse` count
    as this one's. `workers` processes share what is evaluated: a plan and full precision, every
    device. `allow_code`: see `search`.
    """
    from sensprobe.jobs import evaluate as job
    from sensprobe.jobs.saturation import saturation_warnings
    from sensprobe.jobs.tuned import as_tuned
    from sensprobe.plans.crossbar import parse as parse_crossbar
    from sensprobe.session.open import open_session
    from sensprobe.session.plans import schemes_of
    from sensprobe.workers import check_workers, working

    check_workers(workers)
    session = open_session(
        model,
        data,
        run,
        norm=norm,
        metric=metric,
        data_seed=data_seed,
        reuse=_listed(reuse),
        allow_code=allow_code,
        progress=progress,
    )
    perturbed = _noisy(noise, draws, noise_seed)
    laid = None if crossbar is None else parse_crossbar(crossbar)
    session, plan = as_tuned(session, plan)
    schemes = schemes_of(plan, session.source.outline)
    with session.run.working("eval") if session.run else nullcontext(), working(session, workers):
        document = job.evaluate(
            session,
            schemes,
            split=split,
            limit=limit,
            batch=batch,
            compare=compare,
            dead_band=dead_band,
            classes=per_class,
            noise=perturbed,
            crossbar=laid,
        )
    base = document if not (schemes or noise) else document.get("baseline")
    warnings = [*_recorded(session, base, norm), *saturation_warnings(document["saturated"])]
    return document | {"warnings": warnings}


def evaluate_tasks(
    model: Pathlike,
    tasks: Sequence[str],
    plan: PlanLike | None = None,
    *,
    data: str | None = None,
    files: Pathlike | None = None,
    include: Pathlike | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int | None = None,
    batch: int = 1,
    compare: bool = False,
    norm: str | None = None,
    data_seed: int = 0,
    progress: Progress = SILENT,
) -> Document:
    """The scores of a language model under a plan on tasks of lm-eval (extra `lm`).

    Returns tasks (rows of task, members, metric, filter, value, stderr, n, higher_is_better), cost,
    max_abs_A, plan_fingerprint and more. `compare` adds to each row the baseline at full precision
    and the difference paired by document. `data` is text whose calibration split fixes static
    ranges. `files` (SENSPROBE_DATA) is a folder whose lm_tasks has files of tasks that need no
    network; `include` one of more task YAML. `limit` uses the first documents of each task.
    """
    from sensprobe.evaluate.lm_harness import require
    from sensprobe.jobs import tasks as job
    from sensprobe.session.open import open_calibrated

    require()
    source, schemes, applier = open_calibrated(
        model, plan, data, norm=norm, data_seed=data_seed, progress=progress
    )
    folder = files or os.environ.get("SENSPROBE_DATA")
    settings = job.TaskSettings(
        _listed(tasks),
        data=None if folder is None else Path(folder).expanduser().resolve(),
        include=None if include is None else Path(include).expanduser().resolve(),
        limit=limit,
        num_fewshot=num_fewshot,
        batch=batch_size,
    )
    return job.evaluate_tasks(
        source, applier, schemes, settings, batch=batch, compare=compare, progress=progress
    )


def profile(
    model: Pathlike,
    data: str,
    run: Pathlike,
    schemes: Sequence[str | Scheme] = (),
    *,
    by: str = "part",
    method: str = "measured",
    noise: float | str | Sequence[float | str] = (),
    draws: int | None = None,
    noise_seed: int = 0,
    limit: int | None = None,
    norm: str | None = None,
    metric: str | None = None,
    data_seed: int = 0,
    reuse: Sequence[Pathlike] = (),
    workers: int | str = 1,
    progress: Progress = SILENT,
) -> Document:
    """Measure the loss of each part (in all layers together) or site in each scheme; kept in `run`.

    `measured` evaluates each alone, paired with full precision; `divergence` does too and keeps
    only how far outputs move, which needs no labels; `taylor` prices all of them from one forward
    and backward pass. Rows hold target, scheme, metric and kl, each with its stderr. With `noise`
    (0.01, or "pcm(t=3600)"; several) each is perturbed by that, on `draws` devices (10) of
    `noise_seed`, in place of schemes. Evaluations of the runs in `reuse`, which are of the same
    model and data, are not made again. So many `workers`, processes of this machine, evaluate at a
    time and share the threads that PyTorch would use; or they are on Ray ("ray", "ray:8",
    "ray://head:10001").
    """
    from sensprobe.jobs import profile as job
    from sensprobe.jobs.noisy import DRAWS
    from sensprobe.jobs.profile_noise import NoiseLevels
    from sensprobe.jobs.saturation import profiled_ranges
    from sensprobe.plans.noise import parse as parse_noise
    from sensprobe.session.open import open_session
    from sensprobe.workers import check_workers, working

    check_workers(workers)
    chosen = [_scheme(s) for s in _listed(schemes)]
    _need_noise(noise, draws, noise_seed)
    levels = None
    if noise:
        several = [noise] if isinstance(noise, float) else _listed(noise)
        parsed = [parse_noise(str(one)) for one in several]
        levels = NoiseLevels(parsed, DRAWS if draws is None else draws, noise_seed)
    job.check_profile(by, method, chosen, levels)
    session = open_session(
        model,
        data,
        run,
        norm=norm,
        metric=metric,
        data_seed=data_seed,
        limits={"search": limit},
        reuse=_listed(reuse),
        progress=progress,
    )
    assert session.run is not None
    with session.run.working("profile"), working(session, workers):
        document = job.profile(session, chosen, by=by, method=method, limit=limit, noise=levels)
    warnings = _recorded(session, document["baseline"]["metric"], norm)
    if levels is None:
        warnings += profiled_ranges(session, document["schemes"], document["n"])
    return document | {"warnings": warnings}


def search(
    run: Pathlike,
    budgets: Sequence[int | str] = (),
    *,
    weight_budget: int | str | None = None,
    state_budget: int | str | None = None,
    max_loss: float | None = None,
    schemes: Sequence[str | Scheme] = (),
    freeze: Sequence[str] = (),
    tie: Sequence[str] = (),
    batch: int = 1,
    method: str = "gains",
    evaluations: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    target: str | None = None,
    count_states: str | None = None,
    also: Sequence[OnePlan] = (),
    confirm: bool = True,
    tune: int = 0,
    prune: Sequence[int | str] = (),
    noise: str | Sequence[str] = (),
    draws: int | None = None,
    noise_seed: int = 0,
    restart: bool = False,
    reuse: Sequence[Pathlike] = (),
    workers: int | str = 1,
    allow_code: bool = False,
    progress: Progress = SILENT,
    trained: Callable[[TrainingProgress], None] = lambda progress: None,
) -> Document:
    """The best plan for each budget, and the chosen ones confirmed on unseen data.

    A budget limits weights and state together; `weight_budget` and `state_budget` go with every
    one. Each may be a part of full precision: "25%", or "8x" smaller. `max_loss` asks for the
    fewest bytes that lose no more: points where the metric is read in percent, else the metric's
    own unit. `freeze` entries are "PATTERN=SCHEME", `tie` entries patterns. `target` names a
    runtime (vllm, compressed-tensors, modelopt, torchao, llama.cpp) whose limits every plan keeps.
    `count_states` says what bytes of states are: those that steps hold here ("held"; schemes that
    steps hold in full are then not offered) or those a plan packs ("packed", and with a target).
    `also` are plans to measure for comparison: they take no part in the search. With `tune` epochs
    the plans found are tuned, and what is tuned is searched again (see `sensprobe.jobs.alternate`);
    `trained` is told the progress of training; `restart` trains afresh what was tuned before, with
    other epochs for example. Models pruned to each of `prune` (8 states, "kernels=48", or
    "8,kernels=48") are searched and tuned under the same budgets, and compete. Under `noise`
    ("weights=0.01") every plan, and full precision, is run on the same `draws` devices (10) of
    `noise_seed`, and confirmed on as many others. Returns {"search", "confirmation", "turns"},
    kept in `run`; `turns` is None without `tune`.

    Code (data or a metric as `python:…`) that only the run names is not run: CodeError, unless it
    is as it was when this user last named it for a run, or with `allow_code`, which remembers it.
    Evaluations of the runs in `reuse` are not made again. With several `workers` (see `profile`)
    so many plans are proposed at a time, before the scores of the others are known; what is tuned
    is trained and searched by this process.
    """
    from sensprobe.jobs import search as job
    from sensprobe.jobs.alternate import alternate
    from sensprobe.jobs.budgets import budgets_of
    from sensprobe.jobs.confirm import confirm as confirmed_on_unseen
    from sensprobe.jobs.cost import full_bytes
    from sensprobe.jobs.fewer import pruned_to
    from sensprobe.jobs.prune import require_prunable
    from sensprobe.jobs.saturation import chosen_ranges
    from sensprobe.jobs.train_under import TuneSettings
    from sensprobe.jobs.tune import require_tunable
    from sensprobe.session.open import open_session
    from sensprobe.session.plans import as_plan
    from sensprobe.workers import check_workers, working

    check_workers(workers)
    limits = _listed(budgets), weight_budget, state_budget, max_loss
    budgets_of(*limits)  # what cannot be is said before anything is opened
    perturbed = _noisy(noise, draws, noise_seed)
    if perturbed is not None and tune:
        raise UsageError("--noise and --tune: a search does one of them. Leave one out.")
    if prune and not tune:
        raise UsageError("--prune: a model that is pruned is trained; give --tune EPOCHS too.")
    pruned = tuple(map(pruned_to, _listed(prune)))
    tuning = TuneSettings(epochs=tune) if tune else None
    settings = job.SearchSettings(
        method=method,
        evaluations=evaluations,
        seed=seed,
        batch=batch,
        limit=limit,
        schemes=tuple(_scheme(s) for s in _listed(schemes)),
        freeze=tuple(parse_setting(text) for text in _listed(freeze)),
        tie=_listed(tie),
        target=target,
        count_states=count_states,
        noise=perturbed,
    )
    session = open_session(run=run, reuse=_listed(reuse), allow_code=allow_code, progress=progress)
    assert session.run is not None
    settings = replace(
        settings,
        budgets=budgets_of(*limits, full_bytes(session.source.outline, batch)),
        also=tuple(as_plan(plan, session.source.model) for plan in _listed(also)),
    )
    if tuning is not None:
        require_tunable(session)
    for kept in pruned:
        require_prunable(session, kept.states, kept.kernels)
    if pruned and any(budget.max_loss is not None for budget in settings.budgets):
        raise UsageError(
            "--prune and a budget of loss: what is pruned loses something before any plan does. "
            "Give a budget of bytes."
        )
    with session.run.working("search"), working(session, workers):
        found = job.search(session, settings)
        if perturbed is not None:  # devices that the search has not seen
            session.draws = perturbed.of(session, perturbed.draws)
        confirmed = confirmed_on_unseen(session) if confirm else None
        turns = None
        if tuning is not None:
            turns = alternate(
                session,
                found,
                settings,
                tuning,
                pruned=pruned,
                resume=not restart,
                progress=trained,
            )
    for warning in chosen_ranges(session, found):
        progress.note(warning)
    return {"search": found, "confirmation": confirmed, "turns": turns}


def export(
    run: Pathlike | None,
    plan: PlanLike,
    out: Pathlike,
    *,
    model: Pathlike | None = None,
    data: str | None = None,
    norm: str | None = None,
    data_seed: int = 0,
    target: str | None = None,
    crossbar: str | None = None,
    overwrite: bool = False,
    allow_code: bool = False,
    progress: Progress = SILENT,
) -> Document:
    """Write a model under a plan as a folder that loads anywhere.

    With a `run` the plan is one of its names: a candidate, a budget's label, a file of RUN/plans,
    or tuned/NAME, a model that was tuned under one. Without, it is any plan of a `model`, whose
    ranges are those of the calibration split of `data`.

    Returns path, weight_bytes, header_bytes, folder_bytes, cost and the confirmed numbers, which
    are None of a plan that no run confirmed. UsageError where inputs of both ways or of none are
    given, for an exported model, and where `out` exists and is not an earlier export to replace.
    With a `target` (vllm, compressed-tensors, modelopt, torchao, llama.cpp) the folder is for that
    runtime; the document then has dropped and narrowed (rows of what does not become what the plan
    says, and why), rounded_anew, use (how to load it), and bytes under the plan and as written.
    The target "crossbar" writes levels of cells and a mapping to tiles, of which `crossbar` says
    the sizes (docs/crossbar.md); the document then has placed, digital and what they take.
    `allow_code`: see `search`.
    """
    from sensprobe.errors import UsageError
    from sensprobe.plans.crossbar import NAME as CROSSBAR
    from sensprobe.plans.crossbar import parse as parse_crossbar
    from sensprobe.session.open import open_session

    of_model = (model, data, norm) != (None,) * 3 or data_seed != 0
    if None in (model, data) if run is None else of_model:
        raise UsageError(
            "export writes a plan of a run (--run DIR --plan NAME), or any plan of a model (MODEL "
            "--data DATA, and --plan PLAN or --set): give one of the two. A run knows its data."
        )
    if crossbar is not None and target != CROSSBAR:
        raise UsageError("the sizes of a crossbar are for --for crossbar: give both.")
    laid = parse_crossbar(crossbar or "")
    session = open_session(
        model, data, run, norm=norm, data_seed=data_seed, allow_code=allow_code, progress=progress
    )
    if target == CROSSBAR:
        from sensprobe.jobs.export_crossbar import export_crossbar

        return export_crossbar(session, plan, laid, Path(out), overwrite=overwrite)
    if target is not None:
        from sensprobe.jobs.export_runtime import export_for

        return export_for(session, plan, target, Path(out), overwrite=overwrite)
    from sensprobe.jobs import export as job

    return job.export(session, plan, Path(out), overwrite=overwrite)


def generate(
    model: Pathlike,
    prompt: str | bytes = "",
    plan: PlanLike | None = None,
    *,
    data: str | None = None,
    data_seed: int = 0,
    tokens: int = 200,
    temperature: float = 0.0,
    seed: int = 0,
    device: str = "cpu",
    write: Callable[[str], None] | None = None,
    progress: Progress = SILENT,
) -> Document:
    """Text that a language model goes on with after a prompt, from its streaming state.

    An exported model runs from packed memory (see `sensprobe.load`). `data` is text whose
    calibration split fixes static ranges, and what `gptq` rounds by. `write` is called with the
    prompt, then with pieces of text as they are known. Returns text, tokens, tokens_per_second,
    prompt_tokens, packed, weight_bytes, state_bytes and more.
    """
    from sensprobe.jobs import generate as job
    from sensprobe.session.load import device_named, loaded
    from sensprobe.session.open import open_calibrated
    from sensprobe.session.source import text_tokenizer

    place = device_named(device)
    source, _, applier = open_calibrated(model, plan, data, data_seed=data_seed, progress=progress)
    tokenizer = text_tokenizer(source)
    return job.generate(
        loaded(source, plan, place, applier=applier), tokenizer, prompt, tokens=tokens,
        temperature=temperature, seed=seed, write=write or (lambda piece: None),
    )  # fmt: skip


def bench(
    shapes: Sequence[str] = ("130m",),
    *,
    batch: int = 1,
    device: str = "cpu",
    run: Pathlike | None = None,
    progress: Progress = SILENT,
) -> Document:
    """Time operations on packed memory on this machine, at the shapes of published models (130m,
    370m, 790m, 1.4b, 2.8b).

    Returns created, machine, device, versions, copy_bytes_per_second, and rows: operation, model,
    size, scheme, seconds, quartiles, bytes that must move, bytes_per_second, of_copy, and the ratio
    to PyTorch's own (products in bfloat16, state updates in float32). With `run` every case is kept
    there as it is measured; one that is stopped keeps those it finished, and the next starts anew.
    """
    from sensprobe.jobs import benchmark as job
    from sensprobe.runs import open_run

    kept = None if run is None else open_run(run)
    return job.bench(_listed(shapes), batch=batch, device=device, run=kept, progress=progress)


def bench_model(
    model: Pathlike,
    plan: PlanLike | None = None,
    *,
    data: str | None = None,
    batches: Sequence[int] = (1,),
    length: int | None = None,
    device: str = "cpu",
    norm: str | None = None,
    data_seed: int = 0,
    run: Pathlike | None = None,
    progress: Progress = SILENT,
) -> Document:
    """Time a model on this machine under a plan (an exported one under its own): a step and a whole
    sequence of `length` (256), against full precision and PyTorch, for every batch.

    `data` is what a plan with something to calibrate is calibrated on. Returns created, machine,
    device, versions, threads, model, plan, batches, length, packed, why_not_packed, bytes of
    weights and of a state, and rows: operation (step, sequence, or a kind inside a step), scheme
    (the plan, full precision, PyTorch), batch, seconds with stderr and quartiles, bytes that must
    move, of_copy, share of the step, times as fast as full precision, ratio to PyTorch. With `run`
    every row is kept there.
    """
    from sensprobe.jobs import benchmark_model as job
    from sensprobe.runs import open_run
    from sensprobe.session.open import open_calibrated
    from sensprobe.session.plans import as_plan

    source, schemes, applier = open_calibrated(
        model, plan, data, norm=norm, data_seed=data_seed, progress=progress
    )
    named = "exported" if source.artefact is not None else ""
    if plan is not None:
        named = as_plan(plan, source.model).name
    return job.bench_model(
        source, schemes, applier, plan_name=named, batches=tuple(batches),
        length=job.LENGTH if length is None else length, device=device,
        run=None if run is None else open_run(run), progress=progress,
    )  # fmt: skip


def report(run: Pathlike, out: Pathlike | None = None) -> Document:
    """Write a run's tables (CSV), pictures (PNG) and page (HTML) to `out` (RUN/report).

    Returns folder, html, images, tables (paths) and missing: what the run does not hold yet.
    """
    from sensprobe.report.writing import write_report  # pandas, Plotly and Matplotlib
    from sensprobe.runs import open_run

    files = write_report(open_run(run), None if out is None else Path(out))
    return {
        "folder": str(files.folder),
        "html": str(files.html),
        "images": [str(path) for path in files.images],
        "tables": [str(path) for path in files.tables],
        "missing": list(files.missing),
    }


def status(run: Pathlike) -> Document:
    """Who works on a run now: state, evaluations, and processes, a row for every one that writes
    to it, with what it does, how fast, and the seconds left where it is known."""
    from sensprobe.jobs import status as job
    from sensprobe.runs import open_run  # no torch: it is said at once

    return job.status(open_run(run))


def train(
    study: Pathlike,
    data: str | None = None,
    out: Pathlike | None = None,
    *,
    restart: bool = False,
    allow_code: bool = False,
    progress: Callable[[TrainingProgress], None] = lambda progress: None,
) -> Document:
    """Train at full precision by a recipe that ships or a TOML file; then measure on unseen data.

    Returns weights (the checkpoint's path), parameters, n, value, stderr: the accuracy on the
    confirmation split, of a language model the bits per byte of held-out text, which the checkpoint
    records. Code (`python:…`) that only the recipe names as data is run with `allow_code`, or as
    it was when it was allowed before.
    """
    from sensprobe.jobs import train as job

    where = None if out is None else Path(out)
    return job.train(str(study), data, where, progress, restart=restart, allow_code=allow_code)


def tune(
    model: Pathlike | None,
    data: str | None,
    plan: PlanLike | None,
    out: Pathlike | None = None,
    *,
    run: Pathlike | None = None,
    epochs: int = 3,
    max_steps: int | None = None,
    lr: float | None = None,
    ssm_lr: float | None = None,
    batch: int = 64,
    average: float = 0.99,
    warmup: float = 0.05,
    clip: float = 1.0,
    parametrization: str = "",
    stable: bool = False,
    ranges: str = "watched",
    progressive: bool = False,
    teacher: str = "",
    seed: int = 0,
    train: str = "all",
    noise: str | Sequence[str] = (),
    limit: int | None = None,
    budget: int | str | None = None,
    trials: int = 0,
    prune: int | str | None = None,
    norm: str | None = None,
    metric: str | None = None,
    data_seed: int = 0,
    restart: bool = False,
    allow_code: bool = False,
    progress: Progress = SILENT,
    trained: Callable[[TrainingProgress], None] = lambda progress: None,
) -> Document:
    """Train a model under a plan, with the rounding inside the recurrence.

    `out` gets weights.safetensors, a checkpoint as any other, plan.json and tuned.json, which is
    returned: `splits` has the scores of the search and the confirmation split at full precision,
    under the plan before and after, and the paired differences `gained` (after - before) and `left`
    (after - full precision). With `run` the run's result `tuned` gets a row, and `out` is
    RUN/tuned/NAME unless it is given; without `model` the inputs are those of the run and `plan`
    may be a name of its search (see `export`). `teacher`: "none", "self" or a MODEL, whose outputs
    are learnt as well as the labels; of unlabelled data alone, and "self" by default.
    `parametrization` of S4D and S5: "continuous", "discrete" or "frozen"; `stable` keeps their
    |A| at most 1 as stored, and three standard deviations of Gaussian `noise` on A below
    that. `ranges`: "watched" or "learned". `average`, `warmup`, `clip` and
    `progressive`: see `sensprobe tune --help`. Training ends after `max_steps` where `epochs`
    are longer. `train`: "all" parameters, or "vectors": norms, biases and D. `noise`
    ("weights=0.02", several) is added in every step, with or without a plan; scores are
    without. `limit`: samples of each split that are scored. A plan of more bytes than `budget`
    is an error. With `trials` rates, and the teacher where none is named, are those of the best
    of so many short trainings. `prune` takes states away before, down to so many, or
    kernels, "kernels=48", or both, "8,kernels=48" (see `sensprobe.prune`). `trained` is told
    the progress of the training. `allow_code`: see `search`.
    """
    from sensprobe.jobs import tune as job
    from sensprobe.jobs.export import plan_of
    from sensprobe.jobs.fewer import pruned_to
    from sensprobe.jobs.train_under import TuneSettings
    from sensprobe.plans.noise import parse_entry
    from sensprobe.plans.plan import EXACT_PLAN
    from sensprobe.plans.presets import PRESETS
    from sensprobe.session.open import open_session
    from sensprobe.session.plans import as_plan
    from sensprobe.train.method import Method

    settings = TuneSettings(
        epochs=epochs, max_steps=max_steps, lr=lr, ssm_lr=ssm_lr, batch=batch, average=average,
        warmup=warmup, teacher=teacher, seed=seed,
        method=Method(parametrization, stable, ranges, progressive, clip, train),
        noise=tuple(map(parse_entry, _listed(noise))),
    )  # fmt: skip
    session = open_session(
        model, data, run, norm=norm, metric=metric, data_seed=data_seed, allow_code=allow_code,
        progress=progress,
    )  # fmt: skip
    text = str(plan) if isinstance(plan, str | Path) and plan not in PRESETS else ""
    file = text and Path(text).is_file()
    if session.run is not None and model is None and text and not file:
        asked, name = plan_of(session.run, text, session.source.model.sites)[0], text
    else:
        asked = as_plan(plan or EXACT_PLAN, session.source.outline)
        name = Path(text).stem if file else ""
    with session.run.working("tune") if session.run else nullcontext():
        return job.tune(
            session, asked, None if out is None else Path(out), settings,
            name=name, limit=limit, budget=budget, trials=trials, resume=not restart,
            pruned_to=None if prune is None else pruned_to(prune), progress=trained,
        )  # fmt: skip


def prune(
    model: Pathlike,
    data: str,
    states: int | None,
    out: Pathlike,
    *,
    kernels: int | None = None,
    plan: PlanLike | None = None,
    limit: int | None = None,
    norm: str | None = None,
    metric: str | None = None,
    data_seed: int = 0,
    allow_code: bool = False,
    progress: Progress = SILENT,
) -> Document:
    """Write a model with fewer state variables: those are taken away that the outputs miss least.

    `out` is a checkpoint (.safetensors) as any other. `states`: complex pairs of a head (S4D), or
    complex modes (S5). `kernels`: heads with a recurrence, in all layers together (S4D). None of
    either keeps all. The document has prices of what went and stayed, bytes and scores, under
    `plan` where there is one; see `jobs.prune`. `limit`: samples of each split that are scored.
    `allow_code`: see `search`.
    """
    from sensprobe.jobs import prune as job
    from sensprobe.plans.plan import EXACT_PLAN
    from sensprobe.session.open import open_session
    from sensprobe.session.plans import as_plan

    session = open_session(
        model, data, None, norm=norm, metric=metric, data_seed=data_seed, allow_code=allow_code,
        progress=progress,
    )  # fmt: skip
    asked = as_plan(plan or EXACT_PLAN, session.source.outline)
    return job.prune(session, states, Path(out), limit, kernels=kernels, plan=asked)


def doctor() -> Document:
    """Versions, fast paths, extras with how to get them, models that ship, where data lies."""
    from sensprobe.jobs import doctor as job

    return job.doctor()


# -- from plain values -----------------------------------------------------------------------------


def _listed(values: Any) -> tuple[Any, ...]:
    """Several values, or one that was meant so: text is not a sequence here."""
    return (values,) if isinstance(values, str | int | Scheme | Plan | Path) else tuple(values)


def _scheme(scheme: str | Scheme) -> Scheme:
    return scheme if isinstance(scheme, Scheme) else parse(scheme)


def _noisy(noise: str | Sequence[str], draws: int | None, seed: int) -> Noisy | None:
    """The noise that texts `PATTERN=AMOUNT` ask for; UsageError for draws of none."""
    from sensprobe.jobs.noisy import DRAWS, Noisy
    from sensprobe.plans.noise import parse_entry

    _need_noise(noise, draws, seed)
    entries = tuple(map(parse_entry, _listed(noise)))
    return Noisy(entries, DRAWS if draws is None else draws, seed) if entries else None


def _need_noise(noise: Any, draws: int | None, seed: int) -> None:
    """UsageError for draws of no noise."""
    if not noise and (draws is not None or seed):
        raise UsageError("--draws and --noise-seed are of --noise: give it too.")


def _recorded(session: Session, base: Mapping[str, Any] | None, norm: str | None) -> list[str]:
    """Warnings where an accuracy at full precision is far from what the checkpoint records."""
    from sensprobe.jobs.evaluate import recorded_warnings

    if base is None or session.headline.primary != "correct":
        return []
    return recorded_warnings(session.source, base, norm)
