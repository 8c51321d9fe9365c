"""How each device is benched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sensprobe.packed import bench, bench_gpu
from sensprobe.packed.bench import Case


class Bench(NamedTuple):
    """How a device is benched: the bytes that the largest case holds at a shape and batch, what
    makes each case, how one is timed beside the bytes a second of copying, and those."""

    held: Callable[[str, int], int]
    cases: Callable[[str, int], list[Callable[[], Case]]]
    measured: Callable[[Case, float], dict[str, Any]]
    copied: Callable[[], float]


DEVICES = {
    "cpu": Bench(bench.held_bytes, bench.cases, bench.measured, bench.copy_bandwidth),
    "cuda": Bench(
        bench_gpu.held_bytes, bench_gpu.cases, bench_gpu.measured, bench_gpu.copy_bandwidth
    ),
}
"""What runs on packed memory on each device."""
