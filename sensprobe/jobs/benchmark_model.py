"""The benchmark of one model: steps and sequences under a plan against full precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensprobe.errors import UsageError
from sensprobe.jobs.benchmark import about_here, bench_of
from sensprobe.jobs.benchmark_ways import TORCH, Way, ways_of
from sensprobe.models import Model
from sensprobe.models.apply import Applier
from sensprobe.packed import DeviceStream, Stream, bench
from sensprobe.packed.bench_inside import inside, inside_on_gpu
from sensprobe.packed.bench_rounds import ROUNDS, Rounds, Subject, calls, told
from sensprobe.packed.bench_work import bytes_by_kind
from sensprobe.plans.plan import fingerprint
from sensprobe.plans.scheme import Scheme
from sensprobe.progress import SILENT, Progress
from sensprobe.runs import Run
from sensprobe.session.loaded import LoadedModel
from sensprobe.session.source import Source

LENGTH = 256
"""Steps of a sequence where none is asked for."""
STEP, SEQUENCE, COPY, OTHER = "step", "sequence", "copy", "other"


def bench_model(
    source: Source,
    plan: Mapping[str, Scheme],
    applier: Applier,
    *,
    plan_name: str = "",
    batches: Sequence[int] = (1,),
    length: int = LENGTH,
    device: str = "cpu",
    run: Run | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Steps and whole sequences of a model under a resolved plan, for which `applier` is
    calibrated, beside the same at full precision and PyTorch's.

    Returns where and how, and rows: a step, a sequence, and each kind of operation inside a step,
    of every way and batch. A run keeps each batch's rows when they are measured. A plan that no
    streaming kernel runs is timed as `load` runs it, and `why_not_packed` says why.
    """
    if length < 1:
        raise UsageError(f"--length {length}: a sequence has at least one step.")
    if wrong := [batch for batch in batches if batch < 1]:
        raise UsageError(f"--batch {wrong[0]}: at least one sequence must run.")
    how = bench_of(device)
    ways = ways_of(source, plan, applier, plan_name, torch.device(device))
    about = _about(source, plan, ways, list(dict.fromkeys(batches)), length, device)
    rows: list[dict[str, Any]] = []
    with nullcontext(lambda row: None) if run is None else run.benching(about) as keep:
        progress.begin(f"timing {source.name}", ROUNDS * len(about["batches"]))
        try:
            for batch in about["batches"]:
                x = _sequences(source.model, batch, length)
                found = _timed(ways, x, _copying(device, how.copied), progress)
                rows += _rows(source.name, ways, batch, length, found, keep)
        finally:
            progress.end()
    return about | {"rows": rows}


# -- what is timed --------------------------------------------------------------------------------


def _sequences(model: Model, batch: int, length: int) -> Tensor:
    """Random inputs; the work does not depend on their values."""
    generator, size = torch.Generator().manual_seed(0), model.config.d_input
    if model.reads_tokens:
        return torch.randint(0, size, (batch, length), generator=generator)
    return torch.randn(batch, length, size, generator=generator)


def _copying(device: str, copied: Callable[[], float]) -> Subject:
    """Seconds a byte of copying a large array, bytes read and written."""
    if device != "cpu":
        return lambda count: {COPY: 1 / copied()}
    copy = calls(COPY, bench.copying())
    return lambda count: {COPY: copy(1)[COPY] / bench.COPIED_BYTES}


def _timed(ways: Sequence[Way], x: Tensor, copy: Subject, progress: Progress) -> Rounds:
    """Rounds of the ways' steps, of what is inside them, of sequences, and of copying."""
    steps = [_steps(way, x[:, 0]) for way in ways]
    steps += [_inside(way, x[:, 0]) for way in ways if way.streams]
    cuda = ways[0].model.device.type == "cuda"
    whole = [calls(f"{way.name} {SEQUENCE}", _call(way.model, x), cuda=cuda) for way in ways]
    rounds = Rounds([steps, whole, [copy]])
    rounds.run(progress.advance)
    return rounds


def _call(model: LoadedModel, x: Tensor) -> Callable[[], Tensor]:
    return lambda: model(x)


def _steps(way: Way, x: Tensor) -> Subject:
    """Run consecutive steps as a server does: in place where the state is packed."""
    model = way.steps or way.model
    held = [model.start(len(x))]
    x = x.to(model.device)

    def run() -> None:
        _, held[0] = model.advance(x, held[0])

    return calls(f"{way.name} {STEP}", run, cuda=model.device.type == "cuda")


def _inside(way: Way, x: Tensor) -> Subject:
    stream = way.model.stream
    if isinstance(stream, Stream):
        return inside(way.name, stream, x)
    assert isinstance(stream, DeviceStream)
    assert way.weights is not None
    return inside_on_gpu(way.name, way.weights, stream.compiled(len(x)), x)


# -- what is told ---------------------------------------------------------------------------------


def _about(
    source: Source, plan: Mapping[str, Scheme], ways: Sequence[Way], batches: list[int],
    length: int, device: str,
) -> dict[str, Any]:  # fmt: skip
    first = ways[0].model
    return about_here(device) | {
        "model": source.name,
        "model_fingerprint": source.fingerprint,
        "plan_name": ways[0].name,
        "plan": {name: str(scheme) for name, scheme in plan.items()},
        "plan_fingerprint": fingerprint(plan),
        "batches": batches,
        "length": length,
        "threads": torch.get_num_threads(),
        "packed": ways[0].streams,
        "why_not_packed": first.why_not_packed,
        "weight_bytes": first.weight_bytes,
        "state_bytes": first.state_bytes(),
        "full_weight_bytes": ways[-2].model.weight_bytes,
        "full_state_bytes": ways[-2].model.state_bytes(),
    }


def _rows(
    name: str, ways: Sequence[Way], batch: int, length: int, found: Rounds,
    keep: Callable[[Mapping[str, Any]], None],
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of every way to run the model: a step, the kinds of operations inside it, what is left
    of it, and a sequence."""
    copy, rows = found.values(COPY), list[dict[str, Any]]()
    for way in ways:
        about = {"model": f"{name}, batch {batch}", "scheme": way.name, "batch": batch}
        step, whole = (found.values(f"{way.name} {what}") for what in (STEP, SEQUENCE))
        of_torch = [found.values(f"{TORCH} {what}") for what in (STEP, SEQUENCE)]
        moved = _moved(way, batch)
        timed: dict[str, np.ndarray] = {kind: found.values(f"{way.name} {kind}") for kind in moved}
        if moved:
            timed[OTHER] = step - sum(timed.values())
        copied = told(1 / copy)
        head = {"size": "1 step", "operation": STEP, "copy_bytes_per_second": copied.value}
        head["copy_stderr"] = copied.stderr
        row = _row(step, sum(moved.values()), copy) | _against(step, of_torch[0])
        rows.append(about | head | row)
        for kind, seconds in timed.items():
            row = _row(seconds, moved.get(kind, 0), copy) | _median("share", seconds / step)
            rows.append(about | {"size": "1 step", "operation": kind} | row)
        head = {"size": f"{length} steps", "operation": SEQUENCE}
        rows.append(about | head | _row(whole, 0, copy) | _against(whole, of_torch[1]))
    _compare(rows, ways, found)
    for row in rows:
        if row["seconds"] > 0:  # what is left of a step, by difference, may be below its error
            keep(row)
    return rows


def _moved(way: Way, batch: int) -> dict[str, int]:
    """Bytes that a step moves, by kind of operation; empty where memory is not packed."""
    stream = way.model.stream
    if stream is None or way.weights is None:
        return {}
    if isinstance(stream, Stream):
        return bytes_by_kind(stream.program(batch), way.weights)
    return bytes_by_kind(stream.compiled(batch), way.weights, code_bytes=1)


def _median(name: str, values: np.ndarray) -> dict[str, Any]:
    """The median of some values, and its standard error."""
    found = told(values)
    return {name: found.value, f"{name}_stderr": found.stderr}


def _times(prefix: str, seconds: np.ndarray) -> dict[str, Any]:
    """A time: its median, the error of that, and the quartiles."""
    found = told(seconds)
    return {
        f"{prefix}seconds": found.value,
        f"{prefix}stderr": found.stderr,
        f"{prefix}quartiles": list(found.quartiles),
    }


def _row(seconds: np.ndarray, moved: int, copy: np.ndarray) -> dict[str, Any]:
    """The row of a time, with its bandwidth where bytes are known; `copy` is in seconds a byte."""
    found, copying = told(seconds), told(copy)
    row = _times("", seconds) | {"rounds": found.rounds, "bytes": moved or None}
    if moved and found.value > 0:
        share = moved * copying.value / found.value
        error = np.hypot(copying.stderr / copying.value, found.stderr / found.value)
        row |= {
            "bytes_per_second": moved / found.value,
            "bytes_per_second_stderr": moved * found.stderr / found.value**2,
            "of_copy": share,
            "of_copy_stderr": float(share * error),
        }
    return row


def _against(mine: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """PyTorch's time, and the ratio to it, round by round."""
    return _times("reference_", theirs) | _median("ratio", theirs / mine)


def _compare(rows: list[dict[str, Any]], ways: Sequence[Way], found: Rounds) -> None:
    """Adds how many times as fast as at full precision, where both have an operation."""
    first, full = ways[0].name, ways[-2].name
    for row in rows:
        name = row["operation"]
        if first == full or row["scheme"] != first or name == OTHER:
            continue
        with suppress(KeyError):
            theirs = found.values(f"{full} {name}")
            row |= _median("times", theirs / found.values(f"{first} {name}"))
