"""A selective language model with everything rounded, against transformers in full precision.

    python studies/000_speed/language.py            needs transformers (extras dev and lm)

The shape of the published 130M models: 24 layers, d_model 768, random weights, 4 sequences of 512
tokens, without the head. Every site of ours is rounded: weights to int8, a scale a row; activations
to int8, a range a token; the decay, the conv state and the recurrent state to int8 at every step, a
range a channel. Each model runs in a process of its own: one short forward, which loads and
compiles what is needed, then `RUNS` whole ones. Printed are their median and how far memory rose
above what was there after the short one. Then the recurrence alone, on the same numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line does, see sensprobe.cli

import torch
from torch import Tensor

from sensprobe import ops
from sensprobe.checkpoints.own import parameter_shapes
from sensprobe.models.apply import Applier
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba_layers import Mamba, deploy
from sensprobe.numerics.storage import Rounded
from sensprobe.ops.selective_scan import reference
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Kind, Site

LAYERS, WIDTH, STATE, RANK, VOCABULARY = 24, 768, 16, 48, 50280
SEQUENCES, TOKENS, RUNS = 4, 512, 3
Forward = Callable[[Tensor], object]


def tokens(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(VOCABULARY, (SEQUENCES, length), generator=generator)


def rounded(site: Site) -> str:
    """The scheme of a site."""
    if Axis.HEAD in site.axes and len(site.axes) > 1:
        return "int8/head" if site.kind is Kind.WEIGHT else "int8/head/dynamic"
    if site.kind is Kind.STATE:
        return "int8/channel/dynamic"
    if site.kind is Kind.ACTIVATION:
        return "int8/dynamic"
    return "int8/channel" if len(site.shape) > 1 and site.axes[0] is Axis.OUT else "int8"


def model(layers: int = LAYERS) -> Mamba:
    """Random, in the published shape; an output of one number stands for no head."""
    config = MambaConfig(
        d_input=VOCABULARY, d_output=1, d_model=WIDTH, layers=layers, encoder="embedding",
        pooling="none", head_bias=False, dt_rank=RANK, d_state=STATE,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    parameters = {
        name: torch.randn(shape, generator=generator) / max(shape[-1], 2) ** 0.5
        for name, shape in parameter_shapes(config).items()
    }
    return Mamba(config, deploy(parameters, config))


def ours() -> Forward:
    found = model()
    tap = Applier(found).tap({name: parse(rounded(site)) for name, site in found.sites.items()})
    return lambda x: found(x, tap)


def theirs() -> Forward:
    from transformers import MambaConfig as Config
    from transformers import MambaModel

    config = Config(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, state_size=STATE,
        time_step_rank=RANK, use_cache=False,
    )  # fmt: skip
    found = MambaModel(config).eval()
    return lambda x: found(x)


CASES: dict[str, Callable[[], Forward]] = {"theirs": theirs, "ours": ours}


def memory(field: str) -> int:
    """A line of /proc/self/status, in bytes: VmRSS, or VmHWM, its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise LookupError(field)


@torch.inference_mode()
def case(name: str) -> None:
    """Measure one model and print a JSON document."""
    forward, x = CASES[name](), tokens(TOKENS)
    forward(tokens(8))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before, seconds = memory("VmRSS"), []
    for _ in range(RUNS):
        start = perf_counter()
        forward(x)
        seconds.append(perf_counter() - start)
    print(json.dumps({"seconds": statistics.median(seconds), "peak": memory("VmHWM") - before}))


def in_a_process(name: str) -> dict[str, float]:
    words = [sys.executable, __file__, "--case", name]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def median(call: Callable[[], object], runs: int = RUNS) -> float:
    call()
    seconds = []
    for _ in range(runs):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return statistics.median(seconds)


@torch.inference_mode()
def scans() -> None:
    """The recurrence of one layer: exact, rounded, as a loop, and as transformers steps through."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    width, sites = 2 * WIDTH, model(1).sites
    x, dt = normal(SEQUENCES, TOKENS, width), torch.rand(SEQUENCES, TOKENS, width) / 10
    A, B, C = -normal(width, STATE).exp(), *(normal(SEQUENCES, TOKENS, STATE) for _ in "BC")
    decay, state = (
        Rounded(parse("int8/head/dynamic"), sites[f"layers.0.{name}"])
        for name in ("decay", "state")
    )

    def stepped() -> Tensor:
        """As the slow path of transformers does it: decays of all steps, then a loop."""
        a = torch.exp(A[None, :, None, :] * dt.mT[..., None])
        driven = dt.mT[..., None] * B[:, None] * x.mT[..., None]
        h, y = torch.zeros(SEQUENCES, width, STATE), []
        for t in range(TOKENS):
            h = a[:, :, t] * h + driven[:, :, t]
            y.append(torch.matmul(h, C[:, t, :, None])[..., 0])
        return torch.stack(y, dim=-1)

    rows = {
        "loop of transformers, exact": median(stepped),
        "reference loop, decay and state rounded": median(
            lambda: reference(x, dt, A, B, C, decay, state), 1
        ),
        "kernel, exact": median(lambda: ops.selective_scan(x, dt, A, B, C), 9),
        "kernel, decay and state rounded": median(
            lambda: ops.selective_scan(x, dt, A, B, C, decay, state), 9
        ),
    }
    first = next(iter(rows.values()))
    print(f"\none recurrence, {width} channels of {STATE} states{'ms':>15}{'x loop':>10}")
    for name, seconds in rows.items():
        print(f"  {name:46}{1000 * seconds:10.1f}{first / seconds:10.1f}")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--case", choices=CASES, help="one model, in this process")
    if name := asked.parse_args().case:
        case(name)
        return
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    print(f"torch {torch.__version__}, {threads} threads, load before the run {load:.1f}\n")
    print(f"{LAYERS} layers of {WIDTH}, {SEQUENCES} x {TOKENS} tokens{'s':>20}{'peak, MiB':>12}")
    found = {name: in_a_process(name) for name in CASES}
    labels = {"theirs": "transformers, full precision", "ours": "sensprobe, every site rounded"}
    for name, row in found.items():
        print(f"  {labels[name]:46}{row['seconds']:6.2f}{row['peak'] / 2**20:12.0f}")
    times = found["theirs"]["seconds"] / found["ours"]["seconds"]
    share = found["ours"]["peak"] / found["theirs"]["peak"]
    print(f"  {times:.1f} times as fast, {share:.2f} of the memory")
    scans()


if __name__ == "__main__":
    main()
