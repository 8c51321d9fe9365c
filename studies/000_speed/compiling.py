"""What compiling costs the first time: with our pipelines (`sensprobe_kernels.inlining`), and as
plain Numba compiles.

    python studies/000_speed/compiling.py

The streaming step of an exported model, one function made of all kernels for one sequence at a
step, and the scan of a rounded state. Each is compiled in a process of its own, with an empty cache
of its own. Times are seconds of CPU, which a busy machine hardly stretches.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import torch

import sensprobe
from sensprobe import ops
from sensprobe.export import export_model
from sensprobe.jobs.benchmark import about_here
from sensprobe.models.apply import Applier
from sensprobe.numerics.storage import Rounded
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Kind, Part, Site
from sensprobe.session.plans import as_plan
from sensprobe.session.source import open_model

KINDS = ("step", "scan")
PLAIN = "from sensprobe_kernels import inlining; inlining.pipeline = lambda *, optimise: None\n"
CHILD = "import runpy, sys; print(runpy.run_path(sys.argv[1])[sys.argv[2]]())"


def step() -> float:
    """Seconds until an exported model has taken its first step."""
    model = open_model("mamba-bytes").model
    plan = as_plan({"layers.*.state": "int8/head/dynamic", "weights": "int8/channel"}, model)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        export_model(model, plan.resolve(model.sites.values()), Applier(model), path, name="x")
        packed = sensprobe.load(path)
        state = packed.start(1)
        began = process_time()
        packed.advance(torch.tensor([1]), state)
        return process_time() - began


def scan() -> float:
    """Seconds until a selective scan has run a few steps."""
    site = Site("layers.0.state", Part.STATE, Kind.STATE, (64, 16), (Axis.HEAD, Axis.N))
    x, dt, A = torch.randn(1, 4, 64), torch.rand(1, 4, 64), -torch.rand(64, 16)
    B, C = torch.randn(1, 4, 16), torch.randn(1, 4, 16)
    began = process_time()
    ops.selective_scan(x, dt, A, B, C, None, Rounded(parse("int8/head/dynamic"), site))
    return process_time() - began


def measured(kind: str, before: str = "") -> float:
    """The seconds that a fresh process with an empty cache tells, after some statements."""
    with TemporaryDirectory() as cache:
        told = subprocess.run(
            [sys.executable, "-c", before + CHILD, __file__, kind],
            check=True, text=True, stdout=subprocess.PIPE,
            env=os.environ | {"NUMBA_CACHE_DIR": cache},
        ).stdout  # fmt: skip
    return float(told.split()[-1])


def main() -> None:
    print(f"{date.today()}, {about_here('cpu')['machine']}; seconds of CPU\n")
    print("| compiled | with pipelines | plain Numba | ratio |\n|---|---|---|---|")
    for kind in KINDS:
        ours, plain = measured(kind), measured(kind, PLAIN)
        print(f"| {kind} | {ours:.1f} | {plain:.1f} | {plain / ours:.2f} |", flush=True)


if __name__ == "__main__":
    main()
