"""Operations on packed memory, each timed alone at the shapes of published models.

    bytes      what must move: packed weights and scales, inputs and outputs; states in and out
    bandwidth  bytes over time, beside what copying a large array reaches in the same run
    reference  PyTorch's bfloat16 product, or its float32 state update, at the same shape, on one
               thread or on all it has, whichever is faster

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
from sensprobe_kernels.packed.tensor import Packed
from sensprobe_kernels.program import tables as op
from sensprobe_kernels.program.cpu import Program, Register

from sensprobe.apply import Applier
from sensprobe.export.tensors import layout, packed_fields, stored
from sensprobe.models import FAMILIES, Model, mamba, mamba2
from sensprobe.models.frame import Shapes
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.packed import describe
from sensprobe.packed.arena import Arena
from sensprobe.packed.program import compiled
from sensprobe.rounding import encode
from sensprobe.scheme import Scheme, parse
from sensprobe.sites import Axis, Kind, Part, Site

SHAPES = {"130m": 768, "370m": 1024, "790m": 1536, "1.4b": 2048, "2.8b": 2560}
"""Width of the residual stream of the published Mambas and Mamba-2s."""
WEIGHTS = ("int8/channel", "int4/group32", "int4/channel", "int3/channel", "int2/channel")
WHOLE = ("int8/channel", "int4/channel")
"""Weights that multiply codes of int8 inputs."""
STATES = ("fp32", "fp16", "int8/head/dynamic", "int4/head/dynamic")
COPIED_BYTES, LEAST_SECONDS, ROUNDS = 1 << 28, 0.02, 9


@dataclass(frozen=True)
class Case:
    """Something to time: `run` and its reference, and the bytes that `run` must move."""

    operation: str
    model: str
    size: str
    scheme: str
    bytes: int
    run: Callable[[], Any]
    reference: Callable[[], Any] | None


def cases(shape: str, batch: int) -> list[Callable[[], Case]]:
    """Products with the in-projection and updates of one layer's state of both families, each made
    when it is its turn: those of a large shape take seconds and gigabytes."""
    width = SHAPES[shape]
    products = [partial(_product, shape, 4 * width, width, parse(text), batch) for text in WEIGHTS]
    products += [
        partial(_product, shape, 4 * width, width, parse(text), batch, whole=True) for text in WHOLE
    ]
    updates = [partial(_update, shape, family, text, batch) for family in (1, 2) for text in STATES]
    return [*products, *updates]


def measured(case: Case, copied: float) -> dict[str, Any]:
    """Times of one case; `copied` is the bytes a second that copying reaches."""
    mine, theirs = _in_turns(case)
    threads = min(theirs, key=lambda count: statistics.median(theirs[count]), default=None)
    return told(case, mine, [] if threads is None else theirs[threads], threads, copied)


def told(
    case: Case, mine: Sequence[float], theirs: Sequence[float], threads: int | None, copied: float
) -> dict[str, Any]:
    """What is told of the seconds of a case and of its reference, if it has one."""
    seconds = statistics.median(mine)
    other = statistics.median(theirs) if theirs else None
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
    source = np.ones(COPIED_BYTES // 2, np.uint8)
    target = np.empty_like(source)
    times = [_seconds(lambda: np.copyto(target, source), 1) for _ in range(5)]
    return COPIED_BYTES / statistics.median(times)


def held_bytes(shape: str, batch: int) -> int:
    """What the largest case of a shape holds at least: a state of Mamba-2 as published, in float32,
    and the reference's."""
    return 2 * 4 * batch * 2 * SHAPES[shape] * 128


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

    arena: Arena
    packed: Packed
    exact: torch.Tensor


def matrix(rows: int, columns: int, scheme: Scheme) -> Matrix:
    site = Site("w", Part.HEAD, Kind.WEIGHT, (rows, columns), (Axis.OUT, Axis.IN))
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    sites, plan = {site.name: site}, {site.name: scheme}
    fields = encode(w, scheme, site)
    arena = Arena.of(packed_fields(site, fields, layout(sites, plan)), sites, plan)
    return Matrix(arena, describe.packed(site, arena), w)


def _product(
    shape: str, rows: int, columns: int, scheme: Scheme, batch: int, *, whole: bool = False
) -> Case:
    """y = W x of random numbers; `whole`: of codes of x, a byte each, and a scale for all of it."""
    made = matrix(rows, columns, scheme)
    program = Program(made.arena.data, batch)
    y = program.register(rows)
    multiply(program, program.tensor(made.packed), columns, y, whole=whole)
    program.finish()
    program.work[:] = 1
    none, memory = np.zeros(0, np.float32), np.zeros((batch, 0), np.uint8)
    tokens, steps, slots = np.zeros(0, np.int64), np.zeros(batch, np.int64), np.arange(batch)
    given, half = torch.ones(batch, columns, dtype=torch.bfloat16), made.exact.to(torch.bfloat16)
    return Case(
        operation(whole=whole), shape, f"{rows}×{columns}", str(scheme),
        made.arena.bytes + batch * (input_bytes(columns, whole=whole) + 4 * rows),
        lambda: program.run(memory, none, tokens, none, steps, slots),
        lambda: torch.nn.functional.linear(given, half),
    )  # fmt: skip


def operation(*, whole: bool) -> str:
    return "linear, int8 inputs" if whole else "linear"


def input_bytes(columns: int, *, whole: bool) -> int:
    """Of one vector: float32, or bytes and their scale."""
    return columns + 4 if whole else 4 * columns


def multiply(program: Program, tensor: int, columns: int, y: Register, *, whole: bool) -> None:
    """Append the product with a tensor, into y."""
    if whole:
        x, scale = program.codes(columns), program.register(1)
        program.add(
            op.LINEAR_CODES, tensor, x.at, x.pitch, columns, scale.at, scale.pitch, y.at, y.pitch
        )
        return
    x = program.register(columns)
    program.add(op.LINEAR, tensor, x.at, x.pitch, y.at, y.pitch)


def _update(shape: str, family: int, scheme: str, batch: int) -> Case:
    """One layer's recurrence, one step, from packed state to packed state."""
    width = SHAPES[shape]
    model = like_published(width, family)
    chosen = {} if scheme == "fp32" else {"layers.0.state": parse(scheme)}
    applier = Applier(model)
    arena = Arena.of(stored(applier, chosen, applier.tap(chosen)), model.sites, chosen)
    made = compiled(model, arena, {}, batch)
    kind = op.CHANNELS if family == 1 else op.HEADS
    program = made.program.only(kind)
    memory = np.tile(made.fresh, (batch, 1))
    none, tokens = np.zeros(0, np.float32), np.zeros(0, np.int64)
    steps, slots = np.zeros(batch, np.int64), np.arange(batch)
    program.work[:] = 0.5
    site = model.sites["layers.0.state"]
    reference = torch_update(site.shape, batch)

    each = made.fresh.size - 4 * model.sites["layers.0.conv_state"].reals
    small = sum(model.sites[f"layers.0.{n}"].reals for n in ("x", "y", "dt", "B", "C"))
    A = 4 * model.sites["layers.0.A"].reals
    return Case(
        f"state, Mamba{'' if family == 1 else '-2'}", shape,
        "×".join(str(n) for n in site.shape), scheme, 2 * batch * each + 4 * batch * small + A,
        lambda: program.run(memory, none, tokens, none, steps, slots),
        reference,
    )  # fmt: skip


def torch_update(shape: tuple[int, ...], batch: int, device: str = "cpu") -> Callable[[], Any]:
    """h = exp(dt A) h + (dt x) B and y = C h in float32: a decay a state of (channels, n), or one a
    head of (heads, p, n)."""
    *rows, n = shape
    with torch.device(device):
        state, x = torch.zeros(batch, *shape), torch.full((batch, *rows, 1), 0.5)
        dt = torch.full((batch, rows[0], *[1] * (len(shape) - 1)), 0.5)
        A = torch.full(shape if len(rows) == 1 else (rows[0], 1, 1), -1.0)
        B = C = torch.full((batch, *[1] * len(rows), n), 0.5)

    def run() -> Any:
        state.mul_(torch.exp(dt * A)).add_((dt * x) * B)
        return (state * C).sum(-1)

    return run


def like_published(width: int, family: int, layers: int = 1) -> Model:
    """A model of a few layers whose weights say nothing."""
    common: dict[str, Any] = {
        "d_input": 16, "d_output": 16, "d_model": width, "encoder": "embedding", "tied_head": True,
        "pooling": "none", "head_bias": False, "layers": layers,
    }  # fmt: skip
    if family == 1:
        config = MambaConfig(**common, dt_rank=-(-width // 16))
        weights = mamba.deploy(_filled(mamba.parameter_shapes(config)), config)
        return FAMILIES[mamba.FAMILY][1](config, weights)
    other = Mamba2Config(**common)
    return FAMILIES[mamba2.FAMILY][1](
        other, mamba2.deploy(_filled(mamba2.parameter_shapes(other)), other)
    )


def _filled(shapes: Shapes) -> dict[str, torch.Tensor]:
    return {name: torch.full(shape, 0.01) for name, shape in shapes.items()}
