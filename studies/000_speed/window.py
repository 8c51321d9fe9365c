"""Seconds of a convolution over a rounded window, forward and backward: the kernel and the loop.

    python studies/000_speed/window.py [--batch 16] [--length 256] [--threads 1] [--rounds 5]

The shape is that of a layer of `mamba-bytes` (384 channels, four taps), the window in int4 with a
dynamic scale a channel. The loop is the reference under autograd. The cases take turns; medians of
processor seconds are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import process_time

import torch
from torch import Tensor

from sensprobe.numerics.storage import Rounded
from sensprobe.ops import causal_conv
from sensprobe.ops.causal_conv import reference
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Kind, Part, Site

CHANNELS, TAPS = 384, 4
AXES = (Axis.CHANNEL, Axis.LAG)
SITE = Site("layers.0.conv_state", Part.CONV_STATE, Kind.STATE, (CHANNELS, TAPS - 1), AXES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    inputs = [
        torch.randn(shape, requires_grad=True)
        for shape in ((asked.batch, asked.length, CHANNELS), (CHANNELS, TAPS), (CHANNELS,))
    ]
    storage = Rounded(parse("int4/channel/dynamic"), SITE)
    cases: dict[str, Callable[[], Tensor]] = {
        "kernel": lambda: causal_conv(*inputs, storage)[0],
        "reference loop": lambda: reference(*inputs, storage)[0],
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(asked.rounds + 1):
        for name, outputs in cases.items():
            began = process_time()
            outputs().sum().backward()
            if turn:  # the first loads and compiles
                times[name].append(process_time() - began)
    seconds = {name: median(found) for name, found in times.items()}
    for name, found in seconds.items():
        print(f"{name:16}{found:8.3f} s{found / seconds['kernel']:8.1f} times the kernel's")


if __name__ == "__main__":
    main()
