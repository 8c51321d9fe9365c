"""Streaming from packed memory against the same model in float32 PyTorch, batch 1.

    python studies/000_speed/decode.py [OUT.json]

`mamba-bytes` and random weights in the shape of the published 130M Mamba, with int8 weights (a
scale a row) and an int8 state (a dynamic scale a channel); `s4d-smnist-64` with 8 bits in A, B, C
and the state (a range a head and part), 784 steps a sequence. The reference is the full-precision
step of sensprobe: PyTorch's linear maps, the float32 kernels of the convolution and the recurrence.
They take turns; medians. Before anything is timed, outputs are compared.
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
from torch import Tensor

from sensprobe.documents.files import write_whole
from sensprobe.export.tensors import stored
from sensprobe.models import Model
from sensprobe.models.apply import Applier
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba_layers import Mamba, deploy, initial
from sensprobe.packed import PackedWeights, Stream
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import parse
from sensprobe.session.source import open_model

MAMBA = {
    "layers.*.in_proj.?": "int8/channel",
    "layers.*.x_proj.*": "int8/channel",
    "layers.*.dt_proj": "int8/channel",
    "layers.*.out_proj": "int8/channel",
    "embedding": "int8/channel",
    "layers.*.state": "int8/head/dynamic",
}
S4D = {
    "layers.*.[ABC]": "int8/head/asym/parts",
    "layers.*.out_proj": "int8/channel",
    "layers.*.state": "int8/head/asym/parts/dynamic",
}
ROUNDS, TEXT = 7, b"It was the best of times, it was the worst of times. "


def like_130m() -> Model:
    """24 layers of 768 over 50,280 tokens, random weights."""
    config = MambaConfig(
        d_input=50280, d_output=50280, d_model=768, layers=24, dt_rank=48, encoder="embedding",
        pooling="none", tied_head=True, head_bias=False,
    )  # fmt: skip
    return Mamba(config, deploy(initial(config, (0.001, 0.1), 0), config))


def streams(model: Model, schemes: dict[str, str]) -> tuple[Stream, dict[str, Any]]:
    """The model packed under a plan, checked against what it costs."""
    plan = Plan(tuple((p, parse(s)) for p, s in schemes.items())).resolve(model.sites.values())
    applier = Applier(model)
    weights = PackedWeights.of(stored(applier, plan, applier.tap(plan)), model.sites, plan)
    stream = Stream(model, weights, weights.scales())
    told = cost(model.sites.values(), plan)
    assert (weights.bytes, stream.start(1).bytes) == (told.weight_bytes, told.state_bytes)
    return stream, {"weight bytes": weights.bytes, "state bytes": told.state_bytes}


def inputs(model: Model, count: int) -> list[Tensor]:
    """Tokens of a text again and again, or numbers from 0 to 1 as pixels are."""
    if model.reads_tokens:
        return [torch.tensor([TEXT[i % len(TEXT)]]) for i in range(count)]
    return list(torch.rand(count, 1, 1, generator=torch.Generator().manual_seed(0)))


def seconds(step: Callable[[Any, Any], tuple[Any, Any]], state: Any, given: list[Tensor]) -> float:
    """A step, over all that is given."""
    began = time.perf_counter()
    for x in given:
        _, state = step(x, state)
    return (time.perf_counter() - began) / len(given)


def measured(name: str, model: Model, schemes: dict[str, str], count: int) -> dict[str, Any]:
    stream, sizes = streams(model, schemes)
    rounding = 0.0
    with torch.no_grad():
        packed, exact = stream.start(1), model.start(1)
        for x in inputs(model, len(TEXT)):  # compiles, warms, compares
            got, packed = stream.step(x, packed)
            want, exact = model.step(x, exact)
            rounding = max(rounding, ((got - want).norm() / want.norm()).item())
        assert rounding < 0.1, f"{name}: packed outputs are off by {rounding:.0%}"
        ours, theirs, given = [], [], inputs(model, count)
        for _ in range(ROUNDS):
            ours.append(seconds(stream.advance, stream.start(1), given))
            theirs.append(seconds(model.step, model.start(1), given))
    mine, other = statistics.median(ours), statistics.median(theirs)
    return {
        "model": name,
        "threads": torch.get_num_threads(),
        **sizes,
        "float32 (steps/s)": round(1 / other),
        "packed (steps/s)": round(1 / mine),
        "ratio": round(other / mine, 1),
        "ratio, rounds": [round(b / a, 1) for a, b in zip(ours, theirs, strict=True)],
        "outputs differ by, largest": round(rounding, 4),
    }


def main() -> None:
    found = [
        measured("mamba-bytes", open_model("mamba-bytes").model, MAMBA, 300),
        measured("130M, random", like_130m(), MAMBA, 15),
        measured("s4d-smnist-64", open_model("s4d-smnist-64").model, S4D, 784),
    ]
    text = json.dumps(found, indent=1)
    print(text)
    if sys.argv[1:]:
        write_whole(Path(sys.argv[1]), (text + "\n").encode())


if __name__ == "__main__":
    main()
