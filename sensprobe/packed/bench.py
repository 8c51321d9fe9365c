"""Operations on packed memory, each timed alone at the shapes of published models.

    bytes      what must move: packed weights and scales, inputs and outputs; states in and out
    bandwidth  bytes over time, beside what copying a large array reaches in the same run
    reference  PyTorch's own at the same shape (see `bench_references`), on one thread or on all it
               has, whichever is faster
    mamba_ssm  on a GPU, where that package is installed: its kernel of the same update or scan

Every case is warmed, cases and references take turns, medians are told with their quartiles.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from sensprobe_kernels.packing.tensor import Packed
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.cpu.run import CpuProgram
from sensprobe_kernels.program.ir import Codes, Register
from sensprobe_kernels.program.program import Program

from sensprobe.export.tensors import layout, packed_fields
from sensprobe.numerics.rounding import encode
from sensprobe.packed import bench_models, describe
from sensprobe.packed import bench_references as references
from sensprobe.packed.bench_models import VOCABULARY, like_published, program_of
from sensprobe.packed.bench_references import Run
from sensprobe.packed.bench_scans import SCANS, TOKENS, Scan
from sensprobe.packed.bench_steps import STEPS, Step
from sensprobe.packed.weights import PackedWeights
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.plans.sites import Axis, Kind, Part, Site

WEIGHTS = ("int8/channel", "int4/group32", "int4/channel", "int3/channel", "int2/channel")
WHOLE = ("int8/channel", "int4/channel")
"""Weights that multiply codes of int8 inputs."""
COPIED_BYTES, LEAST_SECONDS, ROUNDS = 1 << 28, 0.02, 9


@dataclass(frozen=True)
class Case:
    """Something to time: `run` and its reference, and the bytes that `run` must move."""

    operation: str
    model: str
    size: str
    scheme: str
    bytes: int
    run: Run
    reference: Run | None
    kernel: Run | None = None  # that of mamba_ssm


def cases(shape: str, batch: int) -> list[Callable[[], Case]]:
    """Products with the in-projection, the other operations of a step of one layer, and scans, each
    made when it is its turn: those of a large shape take seconds and gigabytes."""
    width = bench_models.SHAPES[shape]
    products = [partial(_product, shape, 4 * width, width, parse(text), batch) for text in WEIGHTS]
    products += [
        partial(_product, shape, 4 * width, width, parse(text), batch, whole=True) for text in WHOLE
    ]
    scans = [partial(_scan, shape, scan, batch) for scan in SCANS]
    return [*products, *(partial(_step, shape, step, batch) for step in STEPS), *scans]


def measured(case: Case, copied: float) -> dict[str, Any]:
    """Times of one case; `copied` is the bytes a second that copying reaches."""
    mine, theirs = _in_turns(case)
    threads = min(theirs, key=lambda count: statistics.median(theirs[count]), default=None)
    return told(case, copied, mine, [] if threads is None else theirs[threads], threads=threads)


def told(
    case: Case,
    copied: float,
    mine: Sequence[float],
    theirs: Sequence[float],
    kernel: Sequence[float] = (),
    threads: int | None = None,
) -> dict[str, Any]:
    """The document's entry for a case, from the seconds of its runs, of the reference's and of
    mamba_ssm's kernel, where there are any."""
    seconds = statistics.median(mine)
    other = statistics.median(theirs) if theirs else None
    third = statistics.median(kernel) if kernel else None
    return {
        "operation": case.operation,
        "model": case.model,
        "size": case.size,
        "scheme": case.scheme,
        "seconds": seconds,
        "quartiles": _quartiles(mine),
        "bytes": case.bytes,
        "bytes_per_second": case.bytes / seconds,
        "of_copy": case.bytes / seconds / copied,
        "reference_seconds": other,
        "reference_quartiles": _quartiles(theirs) if theirs else None,
        "reference_threads": threads,
        "ratio": None if other is None else other / seconds,
        "mamba_ssm_seconds": third,
        "mamba_ssm_ratio": None if third is None else third / seconds,
    }


def _in_turns(case: Case) -> tuple[list[float], dict[int, list[float]]]:
    """Seconds of a case and, by its threads, of PyTorch: one, and as many as it would take. Where
    others want the processors too, threads that wait for each other can be slower than one."""
    most = torch.get_num_threads()
    mine: list[float] = []
    theirs: dict[int, list[float]] = {count: [] for count in {1, most} if case.reference}
    count = _repeats(case.run)
    try:
        for _ in range(ROUNDS):
            mine.append(_seconds(case.run, count))
            for threads, seconds in theirs.items():
                assert case.reference is not None
                torch.set_num_threads(threads)
                seconds.append(_seconds(case.reference, _repeats(case.reference)))
    finally:
        torch.set_num_threads(most)
    return mine, theirs


def _quartiles(seconds: Sequence[float]) -> list[float]:
    low, _, high = statistics.quantiles(seconds, n=4)
    return [low, high]


def copy_bandwidth() -> float:
    """Bytes read and written a second by copying an array larger than any cache, one thread."""
    copy = copying()
    return COPIED_BYTES / statistics.median(_seconds(copy, 1) for _ in range(5))


def copying() -> Run:
    """Copies an array larger than any cache: `COPIED_BYTES` are read and written."""
    source = np.ones(COPIED_BYTES // 2, np.uint8)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


def held_bytes(shape: str, batch: int) -> int:
    """What the largest case of a shape holds at least: a state of Mamba-2 as published, in float32,
    and the reference's."""
    return 2 * 4 * batch * 2 * bench_models.SHAPES[shape] * 128


def _seconds(run: Callable[[], Any], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - began) / count


def _repeats(run: Callable[[], Any]) -> int:
    """How many runs take long enough to time; compiles and warms."""
    run()
    return max(1, int(LEAST_SECONDS / max(_seconds(run, 1), 1e-7)))


class Matrix(NamedTuple):
    """Random numbers, packed, and as they were."""

    weights: PackedWeights
    packed: Packed
    exact: torch.Tensor


def matrix(rows: int, columns: int, scheme: Scheme) -> Matrix:
    site = Site("w", Part.HEAD, Kind.WEIGHT, (rows, columns), (Axis.OUT, Axis.IN))
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    sites, plan = {site.name: site}, {site.name: scheme}
    fields = encode(w, scheme, site)
    weights = PackedWeights.of(packed_fields(site, fields, layout(sites, plan)), sites, plan)
    return Matrix(weights, describe.packed(site, weights), w)


def _product(
    shape: str, rows: int, columns: int, scheme: Scheme, batch: int, *, whole: bool = False
) -> Case:
    """y = W x of random numbers; `whole`: of codes of x, a byte each, and a scale for all of it."""
    made = matrix(rows, columns, scheme)
    program = Program(made.weights.data, batch)
    y = program.register(rows)
    multiply(program, program.tensor(made.packed), columns, y, whole=whole)
    runs = CpuProgram(program)
    runs.work[:] = 1
    none, carry = np.zeros(0, np.float32), np.zeros((batch, 0), np.uint8)
    tokens, steps, slots = np.zeros(0, np.int64), np.zeros(batch, np.int64), np.arange(batch)
    given, half = torch.ones(batch, columns, dtype=torch.bfloat16), made.exact.to(torch.bfloat16)
    return Case(
        operation(whole=whole), shape, f"{rows}×{columns}", str(scheme),
        made.weights.bytes + batch * (input_bytes(columns, whole=whole) + 4 * rows),
        lambda: runs.run(carry, none, tokens, none, steps, slots),
        lambda: torch.nn.functional.linear(given, half),
    )  # fmt: skip


def operation(*, whole: bool) -> str:
    return "linear, int8 inputs" if whole else "linear"


def input_bytes(columns: int, *, whole: bool) -> int:
    """Bytes of one input vector: float32, or codes of a byte and their scale."""
    return columns + 4 if whole else 4 * columns


def multiply(program: Program, tensor: int, columns: int, y: Register, *, whole: bool) -> None:
    """Append the product with a tensor, into y."""
    if whole:
        codes = Codes(program.codes_register(columns), program.register(1), columns)
        program.add(ir.LinearCodes(tensor, codes, y))
    else:
        program.add(ir.Linear(tensor, program.register(columns), y))


def _step(shape: str, step: Step, batch: int) -> Case:
    """Operations of a layer, on packed weights and states."""
    model = step.model(bench_models.SHAPES[shape], 1)
    _, made = program_of(model, step.plan, batch)
    runs = CpuProgram(made.program.only(*step.kinds))
    carry = np.tile(made.fresh, (batch, 1))
    none, tokens = np.zeros(0, np.float32), np.arange(batch) * 7 % VOCABULARY
    steps, slots = np.zeros(batch, np.int64), np.arange(batch)
    runs.work[:] = 0.5
    size = step.shape(model)
    return Case(
        step.operation, shape, times(size), step.scheme, step.moved(model, step.plan, batch),
        lambda: runs.run(carry, none, tokens, none, steps, slots),
        step.reference(size, batch, "cpu"),
    )  # fmt: skip


def times(shape: tuple[int, ...]) -> str:
    return "×".join(str(n) for n in shape)


def _scan(shape: str, scan: Scan, batch: int) -> Case:
    """A recurrence over some tokens, as whole sequences run: in float32 memory, states rounded."""
    model = like_published(bench_models.SHAPES[shape], scan.family)
    site = model.sites["layers.0.state"]
    return Case(
        scan.operation, shape, f"{TOKENS}×{times(site.shape)}", scan.scheme,
        scan.moved(model, batch), scan.run(model, batch),
        references.torch_scan(site.shape, batch, TOKENS),
    )  # fmt: skip
