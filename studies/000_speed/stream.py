"""A context of 100,000 tokens through `step`: does memory grow, and does it give what it should?

    python studies/000_speed/stream.py [STEPS]

A random byte-level Mamba of the shape of `mamba-bytes`, its state in int8 with live ranges, takes
one token after another. Printed are the memory of the process along the way, the time of a step,
and whether the first thousand outputs equal the forward of the whole.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.resources import files
from pathlib import Path
from time import perf_counter

import torch

from sensprobe.apply import Applier
from sensprobe.models.mamba import Mamba, deploy
from sensprobe.scheme import parse
from sensprobe.train.language_recipe import language_recipe_from
from sensprobe.train.language_start import initial

STEPS, COMPARED = 100_000, 1_000


def resident() -> float:
    """MiB of this process in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise LookupError("VmRSS")


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    document = tomllib.loads((files("sensprobe.zoo") / "mamba-bytes.toml").read_text())
    recipe = language_recipe_from(document, "mamba-bytes")
    parameters = initial(recipe.model, recipe.init, recipe.seed)
    model = Mamba(recipe.model, deploy(parameters, recipe.model))
    tap = Applier(model).tap(
        {name: parse("int8/head/dynamic") for name in model.sites if name.endswith(".state")}
    )
    tokens = torch.randint(256, (1, steps), generator=torch.Generator().manual_seed(0))
    compared = min(COMPARED, steps)
    whole = model(tokens[:, :compared], tap)
    state, worst, start = model.start(1, tap), 0.0, perf_counter()
    for t in range(steps):
        logits, state = model.step(tokens[:, t], state, tap)
        if t < compared:
            worst = max(worst, float((logits - whole[:, t]).abs().max()))
        if t + 1 in (1_000, 10_000, 30_000, 100_000) or t + 1 == steps:
            seconds = (perf_counter() - start) / (t + 1)
            print(f"{t + 1:8,} tokens   {resident():7.1f} MiB   {1000 * seconds:.2f} ms a token")
    print(f"largest difference from the whole forward over {compared:,} tokens: {worst:.1e}")


if __name__ == "__main__":
    main()
