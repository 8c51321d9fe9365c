"""A context of 100,000 tokens through `step`: does RAM grow, and does it give what it should?

    python studies/000_speed/stream.py [STEPS]

`mamba-bytes`, its state in int8 with dynamic ranges, reads the documentation that Python ships, one
byte after another. Printed are the RAM of the process along the way, the time of a step, the bits a
byte of the last stretch, and how far the first thousand outputs are from the forward of the whole:
with an exact state by float32's last bits, with a rounded one by the codes that those bits decide.
"""

from __future__ import annotations

import sys
from math import log
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from sensprobe.data.pydoc_topics import topics
from sensprobe.models import Model
from sensprobe.models.apply import Applier
from sensprobe.numerics.taps import EXACT, Tap
from sensprobe.plans.scheme import parse
from sensprobe.session.source import open_model

STEPS, COMPARED = 100_000, 1_000
MARKS = (1_000, 10_000, 30_000, 100_000)


def resident() -> float:
    """MiB of this process in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise LookupError("VmRSS")


def difference(model: Model, tap: Tap, tokens: Tensor) -> float:
    """Largest difference of a logit between `step` after `step` and one forward."""
    whole, state, worst = model(tokens, tap), model.start(1, tap), 0.0
    for t in range(tokens.shape[1]):
        logits, state = model.step(tokens[:, t], state, tap)
        worst = max(worst, float((logits - whole[:, t]).abs().max()))
    return worst


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    model = open_model("mamba-bytes").model
    tap = Applier(model).tap(
        {name: parse("int8/head/dynamic") for name in model.sites if name.endswith(".state")}
    )
    text = b"\n".join(topic.content for topic in topics())
    if len(text) <= steps:
        sys.exit(f"{steps:,} steps, and this Python ships {len(text):,} bytes: give fewer")
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()[None, : steps + 1]
    for name, how in (("exact", EXACT), ("rounded", tap)):
        apart = difference(model, how, tokens[:, : min(COMPARED, steps)])
        print(f"state {name}: logits within {apart:.1e} of the whole forward's", flush=True)
    state, nats, since, start = model.start(1, tap), 0.0, 0, perf_counter()
    for t in range(steps):
        logits, state = model.step(tokens[:, t], state, tap)
        nats -= float(logits.log_softmax(-1)[0, tokens[0, t + 1]])
        if t + 1 in MARKS or t + 1 == steps:
            seconds, bits = (perf_counter() - start) / (t + 1), nats / (t + 1 - since) / log(2)
            told = f"{1000 * seconds:.2f} ms a token   {bits:.3f} bits a byte since the line before"
            print(f"{t + 1:8,} tokens   {resident():7.1f} MiB   {told}", flush=True)
            nats, since = 0.0, t + 1


if __name__ == "__main__":
    main()
