"""How fast this machine runs operations on packed memory."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import torch

from sensprobe.errors import UsageError
from sensprobe.packed import bench as packed
from sensprobe.progress import SILENT, Progress


def bench(shapes: Sequence[str], *, batch: int, progress: Progress = SILENT) -> dict[str, Any]:
    """Products with packed weights and updates of packed states at the shapes of published models.

    Returns machine, threads, batch, copy_bytes_per_second, and a row a case (see `packed.bench`).
    """
    if unknown := sorted(set(shapes) - set(packed.SHAPES)):
        known = ", ".join(packed.SHAPES)
        raise UsageError(f"no shape {', '.join(unknown)}; there are those of {known}.")
    if batch < 1:
        raise UsageError(f"--batch {batch}: at least one vector must be multiplied.")
    copied, rows = packed.copy_bandwidth(), []
    for shape in shapes:
        cases = packed.cases(shape, batch)
        progress.begin(f"timing the shapes of {shape}", len(cases))
        try:
            for case in cases:
                rows.append(packed.measured(case, copied))
                progress.advance()
        finally:
            progress.end()
    return {
        "machine": f"{platform.machine()}, {platform.system()}, torch {torch.__version__}",
        "threads": 1,
        "reference_threads": torch.get_num_threads(),
        "batch": batch,
        "copy_bytes_per_second": copied,
        "rows": rows,
    }
