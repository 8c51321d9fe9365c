"""Decoding from packed memory against the same model in float32 PyTorch, batch 1.

    python studies/000_speed/decode.py [OUT.json]

`mamba-bytes`, and random weights in the shape of the published 130M Mamba; both with int8 weights
(a scale a row) and an int8 state (a live scale a channel). The reference is the full-precision step
of sensprobe: PyTorch's linear maps, the float32 kernels of the convolution and the recurrence. They
take turns; medians. Before anything is timed, outputs are compared.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sensprobe.apply import Applier
from sensprobe.cost import cost
from sensprobe.export.tensors import stored
from sensprobe.files import write_whole
from sensprobe.loading import load_model
from sensprobe.models import Model
from sensprobe.models.mamba import Mamba, MambaConfig, deploy, parameter_shapes
from sensprobe.packed import Arena, Stream
from sensprobe.plan import Plan
from sensprobe.scheme import parse
from sensprobe.train.language_start import initial
from sensprobe.train.recipe import Init

PLAN = {
    "layers.*.in_proj.?": "int8/channel",
    "layers.*.x_proj.*": "int8/channel",
    "layers.*.dt_proj": "int8/channel",
    "layers.*.out_proj": "int8/channel",
    "embedding": "int8/channel",
    "layers.*.state": "int8/head/dynamic",
}
ROUNDS, TEXT = 7, b"It was the best of times, it was the worst of times. "


def like_130m() -> Model:
    """24 layers of 768 over 50,280 tokens, random weights."""
    config = MambaConfig(
        d_input=50280, d_output=50280, d_model=768, layers=24, dt_rank=48, encoder="embedding",
        pooling="none", tied_head=True, head_bias=False,
    )  # fmt: skip
    assert parameter_shapes(config)
    return Mamba(config, deploy(initial(config, Init(), 0), config))


def streams(model: Model) -> tuple[Stream, dict[str, Any]]:
    """The model packed under the plan, checked against what it costs."""
    plan = Plan(tuple((p, parse(s)) for p, s in PLAN.items())).resolve(model.sites.values())
    applier = Applier(model)
    arena = Arena.of(stored(applier, plan, applier.tap(plan)), model.sites, plan)
    stream = Stream(model, arena, arena.scales())
    told = cost(model.sites.values(), plan)
    assert (arena.bytes, stream.start(1).bytes) == (told.weight_bytes, told.state_bytes)
    return stream, {"weight bytes": arena.bytes, "state bytes": told.state_bytes}


def seconds(step: Callable[[Any, Any], tuple[Any, Any]], state: Any, count: int) -> float:
    """A step, over `count` of them."""
    tokens = [torch.tensor([TEXT[i % len(TEXT)]]) for i in range(count)]
    began = time.perf_counter()
    for token in tokens:
        _, state = step(token, state)
    return (time.perf_counter() - began) / count


def measured(name: str, model: Model, count: int) -> dict[str, Any]:
    stream, sizes = streams(model)
    rounding = 0.0
    with torch.no_grad():
        packed, exact = stream.start(1), model.start(1)
        for byte in TEXT:  # compiles, warms, compares
            token = torch.tensor([byte])
            got, packed = stream.step(token, packed)
            want, exact = model.step(token, exact)
            rounding = max(rounding, ((got - want).norm() / want.norm()).item())
        assert rounding < 0.1, f"{name}: packed outputs are off by {rounding:.0%}"
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(seconds(stream.advance, stream.start(1), count))
            theirs.append(seconds(model.step, model.start(1), count))
    mine, other = statistics.median(ours), statistics.median(theirs)
    return {
        "model": name,
        **sizes,
        "float32 (tokens/s)": round(1 / other),
        "packed (tokens/s)": round(1 / mine),
        "ratio": round(other / mine, 1),
        "ratio, rounds": [round(b / a, 1) for a, b in zip(ours, theirs, strict=True)],
        "outputs differ by, largest": round(rounding, 4),
    }


def main() -> None:
    found = [
        measured("mamba-bytes", load_model("mamba-bytes").model, 300),
        measured("130M, random", like_130m(), 15),
    ]
    text = json.dumps(found, indent=1)
    print(text)
    if sys.argv[1:]:
        write_whole(Path(sys.argv[1]), (text + "\n").encode())


if __name__ == "__main__":
    main()
