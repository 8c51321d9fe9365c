"""The benchmark of this machine: operations on packed memory at the shapes of published models."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sensprobe.errors import UnsupportedError, UsageError
from sensprobe.jobs.doctor import installed
from sensprobe.memory import free_bytes, room
from sensprobe.packed import bench as on_cpu
from sensprobe.packed import bench_gpu as on_gpu
from sensprobe.packed import bench_models, lacking
from sensprobe.progress import SILENT, Progress
from sensprobe.runs import Run
from sensprobe.runs.record import now
from sensprobe.session.load import device_named

PACKAGES = ("sensprobe", "torch", "numba", "numpy", "triton")
"""Packages whose versions a benchmark records, where they are installed."""
PROCESSOR = Path("/proc/cpuinfo")


class Timing(NamedTuple):
    """The functions that time a device.

    `held` returns the bytes that the largest case holds at a shape and batch, `cases` the functions
    that make each case, `measured` the row of a case given the bytes a second that copying reaches,
    and `copied` measures those.
    """

    held: Callable[[str, int], int]
    cases: Callable[[str, int], list[Callable[[], on_cpu.Case]]]
    measured: Callable[[on_cpu.Case, float], dict[str, Any]]
    copied: Callable[[], float]


DEVICES = {
    "cpu": Timing(on_cpu.held_bytes, on_cpu.cases, on_cpu.measured, on_cpu.copy_bandwidth),
    "cuda": Timing(on_gpu.held_bytes, on_gpu.cases, on_gpu.measured, on_gpu.copy_bandwidth),
}
"""The operations that are timed on each device."""


def bench(
    shapes: Sequence[str],
    *,
    batch: int,
    device: str = "cpu",
    run: Run | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Every operation on packed memory at the shapes of published models.

    Returns where and how (see `about_here`), and a row a case (see `packed.bench`). A run keeps
    every case when it is measured.
    """
    if unknown := sorted(set(shapes) - set(bench_models.SHAPES)):
        known = ", ".join(bench_models.SHAPES)
        raise UsageError(f"no shape {', '.join(unknown)}; there are those of {known}.")
    if batch < 1:
        raise UsageError(f"--batch {batch}: at least one vector must be multiplied.")
    how = bench_of(device)
    about = about_here(device) | {
        "threads": 1,
        "reference_threads": torch.get_num_threads(),
        "shapes": list(dict.fromkeys(shapes)),
        "batch": batch,
        "copy_bytes_per_second": how.copied(),
    }
    rows: list[dict[str, Any]] = []
    with nullcontext(lambda row: None) if run is None else run.benching(about) as keep:
        for shape in about["shapes"]:
            rows += _timed(how, shape, about, keep, progress)
    return about | {"rows": rows}


def bench_of(device: str) -> Timing:
    """The timing functions of a device; UsageError if it is not here, UnsupportedError if it has no
    kernels."""
    place = device_named(device)
    if place.type not in DEVICES:
        raise UnsupportedError(
            f"--device {device}: no operation on packed memory has a kernel for it yet; there are "
            f"those of {', '.join(DEVICES)}. Leave --device out."
        )
    if why := lacking(place):
        raise UnsupportedError(f"--device {device}: {why}. Leave --device out.")
    return DEVICES[place.type]


def _timed(
    how: Timing,
    shape: str,
    about: Mapping[str, Any],
    keep: Callable[[Mapping[str, Any]], None],
    progress: Progress,
) -> list[dict[str, Any]]:
    batch, rows = about["batch"], []
    cases = how.cases(shape, batch)
    progress.begin(f"timing the shapes of {shape}", len(cases))
    try:
        for make in cases:
            with _room(how, shape, batch, about["device"]):
                rows.append(how.measured(make(), about["copy_bytes_per_second"]))
            keep(rows[-1])
            progress.advance()
    finally:
        progress.end()
    return rows


def _room(how: Timing, shape: str, batch: int, device: str) -> AbstractContextManager[None]:
    """Reserve the memory that the cases of a shape hold at least."""
    free = free_bytes() if device == "cpu" else torch.cuda.mem_get_info()[0]
    return room(
        how.held(shape, batch),
        free,
        f"--batch {batch:,} at the shapes of {shape}",
        "Ask for a smaller batch.",
    )


def about_here(device: str) -> dict[str, Any]:
    """The date, machine, device and package versions: a bandwidth means nothing without them."""
    versions = {package: installed(package) for package in PACKAGES}
    return {
        "created": now(),
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {platform.system()}",
        "cpus": os.cpu_count(),
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version()}
        | {package: version for package, version in versions.items() if version},
    }


def _processor() -> str:
    """The name of the processor; its architecture where it has none."""
    lines = PROCESSOR.read_text(errors="replace").splitlines() if PROCESSOR.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
