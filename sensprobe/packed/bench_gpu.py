"""Operations on packed memory timed on a GPU, each as a CUDA graph beside PyTorch's as another, and
mamba_ssm's where that is installed.

    linear     both projections of every layer of a model at once: one alone is bound by its launch,
               and caches hold it
    steps      of eight layers, whose states no cache holds together (an embedding: of one)
    scans      of one layer
    copying    an array larger than any cache
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.ir import Operation
from sensprobe_kernels.program.program import Program

from sensprobe.packed import bench, bench_models
from sensprobe.packed import bench_references as references
from sensprobe.packed.bench import Case, matrix
from sensprobe.packed.bench_models import like_published, program_of
from sensprobe.packed.bench_references import Run
from sensprobe.packed.bench_scans import SCANS, TOKENS, Scan
from sensprobe.packed.bench_steps import STEPS, Step
from sensprobe.packed.compile import Compiled
from sensprobe.packed.weights import PackedWeights
from sensprobe.plans.scheme import Scheme, parse

if TYPE_CHECKING:
    from sensprobe_kernels.program.gpu.run import GpuProgram

WEIGHTS = ("int8/channel", "int4/group128", "int4/group32", "int3/group128", "int2/group32", "e4m3")
LAYERS = {"130m": 24, "370m": 48, "790m": 48, "1.4b": 48, "2.8b": 64}
UPDATED, COPIED_BYTES, REPLAYS = 8, 1 << 31, 20
DEVICE = "cuda"


def cases(shape: str, batch: int) -> list[Callable[[], Case]]:
    """Products with all projections of a model, the other operations of a step of some layers, and
    scans, each made when it is its turn."""
    products = [partial(_products, shape, parse(text), batch) for text in WEIGHTS]
    products += [partial(_products, shape, parse(text), batch, whole=True) for text in bench.WHOLE]
    scans = [partial(_scan, shape, scan, batch) for scan in SCANS]
    return [*products, *(partial(_steps, shape, step, batch) for step in STEPS), *scans]


def held_bytes(shape: str, batch: int) -> int:
    """What the largest case holds at least: PyTorch's products, or float32 states of Mamba-2."""
    products = 2 * LAYERS[shape] * 6 * bench_models.SHAPES[shape] ** 2
    return max(products, 4 * UPDATED * batch * 2 * bench_models.SHAPES[shape] * 128)


def measured(case: Case, copied: float) -> dict[str, Any]:
    """Times of one case; `copied` is the bytes a second that copying reaches."""
    assert case.reference is not None
    runs = [captured(run) for run in (case.run, case.reference, case.kernel) if run is not None]
    rounds = [[seconds(run) for run in runs] for _ in range(bench.ROUNDS)]
    mine, theirs, *kernel = zip(*rounds, strict=True)
    return bench.told(case, copied, mine, theirs, kernel[0] if kernel else ())


def copy_bandwidth() -> float:
    """Bytes read and written a second by copying an array larger than any cache."""
    source = torch.ones(COPIED_BYTES // 2, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    copy = captured(lambda: target.copy_(source))
    return COPIED_BYTES / statistics.median(seconds(copy) for _ in range(bench.ROUNDS))


def captured(run: Callable[[], Any]) -> Callable[[], Any]:
    """A graph of it, which waits for no launch."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def seconds(run: Callable[[], Any]) -> float:
    """Seconds of one run, the mean of a few in a row."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(REPLAYS):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / REPLAYS


def _products(shape: str, scheme: Scheme, batch: int, *, whole: bool = False) -> Case:
    """y = W x with every layer's projections in and out, of random numbers, or codes of x."""
    from sensprobe_kernels.program.gpu.device import States, Weights
    from sensprobe_kernels.program.gpu.run import GpuProgram

    width, layers = bench_models.SHAPES[shape], LAYERS[shape]
    sizes = [(4 * width, width), (width, 2 * width)]
    made = [matrix(*size, scheme) for size in sizes]
    data = np.concatenate([np.tile(m.weights.data, layers) for m in made])
    program, first = Program(data, batch), 0
    for m in made:
        y = program.register(m.packed.rows)
        for layer in range(layers):
            at, t = first + layer * m.weights.bytes, m.packed
            placed = program.tensor(t.moved(partial(add, at)))
            bench.multiply(program, placed, t.columns, y, whole=whole)
        first += layers * m.weights.bytes
    weights = Weights(data, DEVICE)
    runs = GpuProgram(program, 1, States(program, 0, batch, weights))
    moves = sum(
        batch * layers * (4 * rows + bench.input_bytes(columns, whole=whole))
        for rows, columns in sizes
    )
    return Case(
        bench.operation(whole=whole), shape,
        f"{layers}×({' + '.join(f'{r}×{c}' for r, c in sizes)})", str(scheme),
        weights.bytes + moves, runs.launch, _torch_products(sizes, layers, batch),
    )  # fmt: skip


def _torch_products(sizes: list[tuple[int, int]], layers: int, batch: int) -> Callable[[], Any]:
    kind = {"dtype": torch.bfloat16, "device": DEVICE}
    weights = [torch.ones(size, **kind) for size in sizes for _ in range(layers)]  # type: ignore[call-overload]
    given = [torch.ones(batch, w.shape[1], **kind) for w in weights]  # type: ignore[call-overload]

    def run() -> None:
        for x, w in zip(given, weights, strict=True):
            torch.nn.functional.linear(x, w)

    return run


def _steps(shape: str, step: Step, batch: int) -> Case:
    """Operations of a step of some layers, on packed weights and states."""
    layers = 1 if step.kinds == (ir.Embed,) else UPDATED
    model = step.model(bench_models.SHAPES[shape], layers)
    weights, made = program_of(model, step.plan, batch)
    runs = running(weights, made, step.kinds, batch, 1)
    runs.buffers.tokens.copy_(torch.arange(batch) * 7 % bench_models.VOCABULARY)
    size = step.shape(model)
    each = [step.reference(size, batch, DEVICE) for _ in range(layers)]
    kernels = [step.kernel(size, batch, DEVICE) if step.kernel else None for _ in range(layers)]
    return Case(
        step.operation, shape, f"{layers}×{bench.times(size)}", step.scheme,
        layers * step.moved(model, step.plan, batch), runs.launch, lambda: [run() for run in each],
        _all(kernels),
    )  # fmt: skip


def _all(kernels: Sequence[Run | None]) -> Run | None:
    """All of them, if they are there."""
    found = [run for run in kernels if run is not None]
    return (lambda: [run() for run in found]) if found else None


def _scan(shape: str, scan: Scan, batch: int) -> Case:
    """A recurrence over some tokens of a layer, its state packed."""
    model = like_published(bench_models.SHAPES[shape], scan.family)
    weights, made = program_of(model, scan.plan(), batch * TOKENS)
    runs = running(weights, made, (scan.kind,), batch, TOKENS)
    size = model.sites["layers.0.state"].shape
    return Case(
        scan.operation, shape, f"{TOKENS}×{bench.times(size)}", scan.scheme,
        scan.moved(model, batch), runs.launch,
        references.torch_scan(size, batch, TOKENS, DEVICE),
        references.ssm_scan(size, batch, TOKENS, DEVICE),
    )  # fmt: skip


def running(
    weights: PackedWeights,
    made: Compiled,
    kinds: tuple[type[Operation], ...],
    batch: int,
    tokens: int,
) -> GpuProgram:
    """Some operations of a program, of so many sequences and tokens of each, on numbers."""
    from sensprobe_kernels.program.gpu.device import States, Weights
    from sensprobe_kernels.program.gpu.run import GpuProgram

    program = made.program.only(*kinds)
    states = States(program, made.fresh.size, batch, Weights(weights.data, DEVICE))
    runs = GpuProgram(program, tokens, states)
    runs.buffers.work.fill_(0.5)
    return runs
