"""Seconds of one step of tuning: the kernels, plain PyTorch, and the full-precision convolution.

    python studies/000_speed/tuning.py [--batch 64] [--threads 2] [--rounds 5] [--state SCHEME]

`s4d-smnist-64` on sequences of 784 random steps, its state in int7 with dynamic ranges (or in
another scheme, such as int7/head/dynamic/stochastic) and its weights in 2 to 10 bits. Plain PyTorch
is the reference loop under autograd, on the first 40 of the 784 steps; its time for all of them is
extrapolated. The cases take turns; medians are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe import ops
from sensprobe.checkpoints import parameters
from sensprobe.ops.diagonal_scan import reference
from sensprobe.plans.plan import Plan, parse_setting
from sensprobe.session.source import open_model
from sensprobe.train.loop import network
from sensprobe.train.under import UnderPlan

PLAN = ("*.A=logpolar(m2,p8)", "*.B=int2", "*.C=int3", "*.out_proj=int2")
LENGTH, SLICE = 784, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--state", default="int7/head/dynamic", metavar="SCHEME")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    source = open_model("s4d-smnist-64")
    stored = parameters(source.path)
    settings = (*PLAN, f"*.state={asked.state}")
    plan = Plan(tuple(map(parse_setting, settings))).resolve(source.model.sites.values())
    under = UnderPlan(plan, stored.config)
    leaves = {name: p.float().clone().requires_grad_() for name, p in stored.tensors.items()}
    x, y = torch.randn(asked.batch, LENGTH, 1), torch.randint(10, (asked.batch,))

    def plain() -> Tensor:
        with patch.object(ops, "diagonal_scan", reference):
            return under.outputs(leaves, x[:, :SLICE])

    cases: dict[str, Callable[[], Tensor]] = {
        "kernels": lambda: under.outputs(leaves, x),
        "plain PyTorch, extrapolated": plain,
        "convolution, full precision": lambda: network(leaves, stored.config)(x, mode="fft"),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(asked.rounds + 1):
        for name, outputs in cases.items():
            began = perf_counter()
            F.cross_entropy(outputs(), y).backward()
            if turn:  # the first loads and compiles
                times[name].append(perf_counter() - began)
    seconds = {name: median(found) for name, found in times.items()}
    seconds["plain PyTorch, extrapolated"] *= LENGTH / SLICE
    for name, found in seconds.items():
        print(f"{name:30}{found:8.3f} s{found / seconds['kernels']:8.2f} times the kernels'")


if __name__ == "__main__":
    main()
