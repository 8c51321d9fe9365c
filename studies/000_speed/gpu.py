"""Packed models on a GPU: operations, then whole-model decoding. Writes one JSON file.

python studies/000_speed/gpu.py OUT.json [--shapes 130m …] [--batches 1 128]

operations  what `sensprobe bench --device cuda` measures, at each shape and batch
decoding    a step of a model shaped as the published Mamba-2, its weights int4 in groups of 128
            and its state int8, against bfloat16 weights and a float32 state; both run by the
            kernels of sensprobe, as CUDA graphs, and take turns
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sensprobe import api
from sensprobe.documents.files import write_whole
from sensprobe.export.tensors import stored
from sensprobe.models.apply import Applier
from sensprobe.packed import DeviceStream, PackedWeights
from sensprobe.packed.bench import ROUNDS
from sensprobe.packed.bench_gpu import LAYERS
from sensprobe.packed.bench_models import SHAPES, like_published
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import parse

PACKED = {
    "layers.*.in_proj.?": "int4/group128",
    "layers.*.out_proj": "int4/group128",
    "layers.*.state": "int8/head/dynamic",
}
HALF = {"layers.*.in_proj.?": "bf16", "layers.*.out_proj": "bf16"}
STEPS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shapes", nargs="+", default=["130m", "2.8b"], choices=list(SHAPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 128])
    given = parser.parse_args()
    found: dict[str, Any] = {"operations": [], "decoding": []}
    for batch in given.batches:
        found["operations"].append(api.bench(given.shapes, batch=batch, device="cuda"))
        for shape in given.shapes:
            found["decoding"].append(decoding(SHAPES[shape], LAYERS[shape], batch, "cuda"))
            write_whole(given.out, json.dumps(found, indent=1).encode())
            print(shape, batch, found["decoding"][-1], flush=True)


def decoding(width: int, layers: int, batch: int, device: str) -> dict[str, Any]:
    """Seconds a step of both, medians, and their ratio."""
    packed, half = (_stream(width, layers, plan, device) for plan in (PACKED, HALF))
    tokens = torch.zeros(batch, dtype=torch.int64, device=device)
    states = [packed.start(batch), half.start(batch)]
    times: list[list[float]] = [[], []]
    for _ in range(3 + ROUNDS):
        for i, stream in enumerate((packed, half)):
            times[i].append(_seconds(stream, tokens, states[i], device))
    mine, theirs = (statistics.median(t[3:]) for t in times)  # the first compile and capture
    return {
        "width": width, "layers": layers, "batch": batch, "seconds": mine,
        "half_seconds": theirs, "ratio": theirs / mine, "weight_bytes": packed.weight_bytes,
    }  # fmt: skip


def _stream(width: int, layers: int, plan: Mapping[str, str], device: str) -> DeviceStream:
    model = like_published(width, "mamba2", layers)
    chosen = Plan(tuple((p, parse(s)) for p, s in plan.items())).resolve(model.sites.values())
    applier = Applier(model)
    weights = PackedWeights.of(stored(applier, chosen, applier.tap(chosen)), model.sites, chosen)
    return DeviceStream(model, weights, {}, torch.device(device))


def _seconds(stream: DeviceStream, tokens: torch.Tensor, state: Any, device: str) -> float:
    """Seconds of one step, the mean of a few in a row."""
    start, end = (torch.Event(device, enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(STEPS):
        stream.advance(tokens, state)
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / STEPS


if __name__ == "__main__":
    main()
