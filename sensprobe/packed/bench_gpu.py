"""Operations on packed memory timed on a GPU, each as a CUDA graph beside PyTorch's as another.

    linear     both projections of every layer of a model at once: one alone is bound by its launch,
               and caches hold it
    state      the update of the states of eight layers, which no cache holds together
    copying    an array larger than any cache

PyTorch's products are bfloat16, its updates float32.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from sensprobe_kernels.program import tables as op
from sensprobe_kernels.program.cpu import Program

from sensprobe.apply import Applier
from sensprobe.export.tensors import stored
from sensprobe.packed import bench
from sensprobe.packed.arena import Arena
from sensprobe.packed.bench import STATES, Case, like_published, matrix, torch_update
from sensprobe.packed.program import compiled
from sensprobe.scheme import Scheme, parse

WEIGHTS = ("int8/channel", "int4/group128", "int4/group32", "int3/group128", "int2/group32", "e4m3")
LAYERS = {"130m": 24, "370m": 48, "790m": 48, "1.4b": 48, "2.8b": 64}
UPDATED, COPIED_BYTES, REPLAYS = 8, 1 << 31, 20
DEVICE = "cuda"


def cases(shape: str, batch: int) -> list[Callable[[], Case]]:
    """Products with all projections of a model, and updates of the states of some layers of both
    families, each made when it is its turn."""
    products = [partial(_products, shape, parse(text), batch) for text in WEIGHTS]
    products += [partial(_products, shape, parse(text), batch, whole=True) for text in bench.WHOLE]
    updates = [
        partial(_updates, shape, family, text, batch) for family in (1, 2) for text in STATES
    ]
    return [*products, *updates]


def held_bytes(shape: str, batch: int) -> int:
    """What the largest case holds at least: PyTorch's products, or float32 states of Mamba-2."""
    products = 2 * LAYERS[shape] * 6 * bench.SHAPES[shape] ** 2
    return max(products, 4 * UPDATED * batch * 2 * bench.SHAPES[shape] * 128)


def measured(case: Case, copied: float) -> dict[str, Any]:
    """Times of one case; `copied` is the bytes a second that copying reaches."""
    assert case.reference is not None
    runs = [_captured(case.run), _captured(case.reference)]
    mine, theirs = zip(*([_seconds(run) for run in runs] for _ in range(bench.ROUNDS)), strict=True)
    return bench.told(case, mine, theirs, None, copied)


def copy_bandwidth() -> float:
    """Bytes read and written a second by copying an array larger than any cache."""
    source = torch.ones(COPIED_BYTES // 2, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    copy = _captured(lambda: target.copy_(source))
    return COPIED_BYTES / statistics.median(_seconds(copy) for _ in range(bench.ROUNDS))


def _captured(run: Callable[[], Any]) -> Callable[[], Any]:
    """A graph of it, which waits for no launch."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _seconds(run: Callable[[], Any]) -> float:
    """Of one of a few runs in a row."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(REPLAYS):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / REPLAYS


def _products(shape: str, scheme: Scheme, batch: int, *, whole: bool = False) -> Case:
    """y = W x with every layer's projections in and out, of random numbers, or codes of x."""
    from sensprobe_kernels.program.device import States, Weights
    from sensprobe_kernels.program.gpu import GpuProgram

    width, layers = bench.SHAPES[shape], LAYERS[shape]
    sizes = [(4 * width, width), (width, 2 * width)]
    made = [matrix(*size, scheme) for size in sizes]
    data = np.concatenate([np.tile(m.arena.data, layers) for m in made])
    program, first = Program(data, batch), 0
    for m in made:
        y = program.register(m.packed.rows)
        for layer in range(layers):
            at, t = first + layer * m.arena.bytes, m.packed
            moved = [p + at if p >= 0 else p for p in (t.at, t.scale_at, t.zero_at)]
            t = t._replace(at=moved[0], scale_at=moved[1], zero_at=moved[2])
            bench.multiply(program, program.tensor(t), t.columns, y, whole=whole)
        first += layers * m.arena.bytes
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


def _updates(shape: str, family: int, scheme: str, batch: int) -> Case:
    """The recurrences of some layers, one step, from packed state to packed state."""
    from sensprobe_kernels.program.device import States, Weights
    from sensprobe_kernels.program.gpu import GpuProgram

    model = like_published(bench.SHAPES[shape], family, UPDATED)
    chosen = {}
    if scheme != "fp32":
        chosen = {f"layers.{i}.state": parse(scheme) for i in range(UPDATED)}
    applier = Applier(model)
    arena = Arena.of(stored(applier, chosen, applier.tap(chosen)), model.sites, chosen)
    made = compiled(model, arena, {}, batch)
    program = made.program.only(op.CHANNELS if family == 1 else op.HEADS)
    states = States(program, made.fresh.size, batch, Weights(arena.data, DEVICE))
    runs = GpuProgram(program, 1, states)
    runs.memory.work.fill_(0.5)
    site = model.sites["layers.0.state"]
    windows = sum(s.reals for n, s in model.sites.items() if n.endswith(".conv_state"))
    each = made.fresh.size - 4 * windows
    small = sum(model.sites[f"layers.0.{n}"].reals for n in ("x", "y", "dt", "B", "C"))
    A = 4 * model.sites["layers.0.A"].reals
    updates = [torch_update(site.shape, batch, DEVICE) for _ in range(UPDATED)]
    return Case(
        f"state, Mamba{'' if family == 1 else '-2'}", shape,
        f"{UPDATED}×{'×'.join(str(n) for n in site.shape)}", scheme,
        2 * batch * each + UPDATED * (4 * batch * small + A), runs.launch,
        lambda: [update() for update in updates],
    )  # fmt: skip
