"""The command `sensprobe eval` on a published model and all its test images, against loops.

    SENSPROBE_DATA=DIR python studies/000_speed/whole.py

DIR holds mnist/ (the four IDX files) and s4d_smnist/ckpt.pth, as for study 001. A loop over all
images takes minutes, so it runs on one batch, and its time is multiplied by what is missing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from sensprobe.data import load_data
from sensprobe.models.apply import Applier, observe
from sensprobe.numerics.storage import Carry, Storage, fresh, store
from sensprobe.ops.diagonal_scan import reference
from sensprobe.plans.scheme import parse
from sensprobe.session.source import open_model

STATIC, DYNAMIC = "int8/head/asym/parts", "int8/head/asym/parts/dynamic"
SPLIT, BATCH, WATCHED = "confirmation", 128, 256

Loop = Callable[..., tuple[Tensor, Carry]]


def plain_loop(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    kept: Storage = None,
    carry: Carry | None = None,
) -> tuple[Tensor, Carry]:
    """The loop one would write: complex numbers, einsum over n, the same rounding. It takes the
    arguments of `ops.diagonal_scan`, in whose place it runs."""
    carry = carry or fresh(u.shape[0], (*A.shape, 2), kept)
    y = []
    for t in range(u.shape[1]):
        h = A * torch.view_as_complex(carry.state) + B * u[:, t, :, None]
        carry = store(carry, torch.view_as_real(h), kept)
        y.append(2 * torch.einsum("bhn,hn->bh", torch.view_as_complex(carry.state), C).real)
    return torch.stack(y, dim=1), carry


def command(folder: Path, scheme: str) -> tuple[float, int]:
    """Seconds of the whole command in a process of its own, and how many images it evaluated."""
    words = [
        *("eval", str(folder / "s4d_smnist" / "ckpt.pth"), "--norm", "post"),
        *("--data", f"mnist:{folder / 'mnist'}", "--set", f"layers.*.state={scheme}", "--json"),
    ]
    start = perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "sensprobe", *words], check=True, capture_output=True, text=True
    )
    return perf_counter() - start, json.loads(done.stdout)["n"]


@torch.inference_mode()
def extrapolated(folder: Path, scheme: str, images: int, loops: dict[str, Loop]) -> list[float]:
    """Seconds each loop would take for all images: the model on one batch, times their number."""
    model: Any = open_model(folder / "s4d_smnist" / "ckpt.pth", "post").model
    splits = load_data(f"mnist:{folder / 'mnist'}").splits
    watched = observe(model, splits["calibration"].x[:WATCHED])
    plan = {name: parse(scheme) for name in model.sites if name.endswith(".state")}
    tap, x = Applier(model, watched).tap(plan), splits[SPLIT].x[:BATCH]
    seconds = []
    for loop in loops.values():
        with patch("sensprobe.ops.diagonal_scan", loop):
            start = perf_counter()
            model(x, tap)
            seconds.append((perf_counter() - start) * images / BATCH)
    return seconds


def table(folder: Path) -> None:
    loops: dict[str, Loop] = {"reference loop": reference, "plain loop": plain_loop}
    print("\nwhole command `sensprobe eval`: a published S4D (4 layers, 16 heads, 32 pairs), MNIST")
    print(f"loops: one batch of {BATCH} images, extrapolated to all")
    for scheme in (STATIC, DYNAMIC):
        taken, images = command(folder, scheme)
        print(f"  {scheme:30}{images:,} images {taken:7.1f} s")
        for name, seconds in zip(loops, extrapolated(folder, scheme, images, loops), strict=True):
            print(f"    {name:28}extrapolated {seconds:7.0f} s, {seconds / taken:5.1f} times")


if __name__ == "__main__":
    table(Path(os.environ["SENSPROBE_DATA"]))
