"""A folder for a crossbar: what every cell is programmed to, and where each matrix lies.

conductances.safetensors   NAME.levels, of every cell of every tile; NAME.scales, of the weight
mapping.json               sizes, matrices, converters, what stays digital (crossbar.schema.json)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from sensprobe import __version__
from sensprobe.documents import schema_of
from sensprobe.documents.files import named_path
from sensprobe.errors import RunError
from sensprobe.export.document import lines, sha256
from sensprobe.export.folder import require_place, write_folder
from sensprobe.models.apply import Applier
from sensprobe.models.crossbar import levels_of
from sensprobe.numerics.crossbar import Array, joined, off_tiles, on_tiles
from sensprobe.plans.crossbar import LIMITS, Placement
from sensprobe.plans.plan import Plan

FORMAT = 1
MAPPING, CONDUCTANCES = "mapping.json", "conductances.safetensors"
FILES = frozenset({MAPPING, CONDUCTANCES})


def write_crossbar(
    placement: Placement,
    plan: Plan,
    arrays: Mapping[str, Array],
    applier: Applier,
    out: Path,
    *,
    counts: Mapping[str, Any],
    fingerprints: Mapping[str, str],
    overwrite: bool = False,
) -> tuple[Path, int]:
    """Write matrices, with the ranges of their converters, as folder `out`; returns its path and
    bytes. Raises UsageError where `out` is taken, RunError where the disk refuses, or where the
    codes rebuilt from what was written are not the plan's."""
    out = named_path(out).resolve()
    require_place(out, FILES, overwrite)
    tensors: dict[str, Tensor] = {}
    for name, placed in placement.placed.items():
        levels = levels_of(applier, placed)
        tensors[f"{name}.levels"] = on_tiles(levels, placed, placement.crossbar)
        tensors[f"{name}.scales"] = arrays[name].scales
    content = save(tensors, {"format": "pt"})
    model = applier.model
    document = {
        "sensprobe_crossbar": FORMAT,
        "name": plan.name,
        "tool": f"sensprobe {__version__}",
        "family": model.family,
        "fingerprints": dict(fingerprints),
        "crossbar": {name: getattr(placement.crossbar, name) for name in LIMITS},
        "conductances": {"file": CONDUCTANCES, "sha256": sha256(content)},
        "matrices": {name: _matrix(arrays[name]) for name in placement.placed},
        "digital": {
            name: {"values": model.sites[name].reals, "why": why}
            for name, why in placement.digital.items()
        },
        "counts": dict(counts),
        "plan": plan.to_json(),
    }
    schema_of("sensprobe.export", "crossbar").require(document)
    files = {MAPPING: lines(document), CONDUCTANCES: content}
    write_folder(out, files, lambda draft: _require_codes(draft, placement, applier))
    return out, sum(map(len, files.values()))


def _matrix(array: Array) -> dict[str, Any]:
    placed = array.placed
    assert array.adc_scales is not None
    return {
        "scheme": str(placed.scheme),
        "shape": list(placed.site.shape),
        "reads": list(placed.reads),
        "slices": placed.slices,
        "starts": placed.starts,
        "outputs": placed.outputs,
        "tiles": list(placed.grid),
        "dac_scale": array.dac_scale,
        "dac_peak": int(array.dac_peak),
        "adc_scales": array.adc_scales.tolist(),
    }


def _require_codes(folder: Path, placement: Placement, applier: Applier) -> None:
    """RunError unless the cells in a folder hold the codes of the plan."""
    with safe_open(folder / CONDUCTANCES, framework="pt") as file:
        for name, placed in placement.placed.items():
            levels = off_tiles(file.get_tensor(f"{name}.levels"), placed)
            codes = applier.encoded(placed.site, placed.scheme)[""].codes
            if not torch.equal(joined(levels, placement.crossbar.cell_bits), codes):
                raise RunError(
                    f"what was written to {folder.parent} does not hold the plan's codes of "
                    f"{name}, so it was removed. Check the disk and export again."
                )
