"""Export for a crossbar: what its cells are programmed to under a plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensprobe.export.crossbar import write_crossbar
from sensprobe.jobs.crossbar import laid_on
from sensprobe.jobs.export import exported
from sensprobe.models.crossbar import placement_of
from sensprobe.plans.crossbar import Crossbar, Placement
from sensprobe.plans.plan import Plan, fingerprint
from sensprobe.plans.sites import Kind, Site, group_pattern
from sensprobe.session.plans import PlanLike
from sensprobe.session.session import Session


def export_crossbar(
    session: Session, plan: PlanLike, crossbar: Crossbar, out: Path, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write what `jobs.export.exported` finds to `out` as levels of cells.

    Returns path, folder_bytes, `crossbar` (what it takes), `placed`, a row a matrix, and `digital`,
    rows of the weights and states that are not on it.
    """
    chosen, found, candidate, _ = exported(session, plan)
    model = chosen.source.model
    resolved = found.resolve(model.sites.values())
    told = laid_on(chosen, resolved, crossbar)
    assert told is not None
    applier = chosen.calibration.ready(resolved)
    placement = placement_of(applier, resolved)
    name = f"{session.source.name}-{candidate['name']}"
    path, size = write_crossbar(
        placement,
        Plan(tuple(resolved.items()), name),
        applier.arrays[fingerprint(resolved)],
        applier,
        out,
        counts=told,
        fingerprints={"model": chosen.source.fingerprint, "plan": fingerprint(resolved)},
        overwrite=overwrite,
    )
    placed = [
        {
            "site": name,
            "scheme": str(one.scheme),
            "slices": one.slices,
            "tiles": one.tiles,
            "utilisation": one.cells / (one.tiles * crossbar.rows * crossbar.columns),
            "adc_conversions": one.adc_conversions,
            "dac_conversions": one.dac_conversions,
        }
        for name, one in placement.placed.items()
    ]
    return {
        "path": str(path),
        "folder_bytes": size,
        "plan": candidate["name"],
        "crossbar": told,
        "placed": placed,
        "digital": _digital(placement, model.sites),
    }


def _digital(placement: Placement, sites: Mapping[str, Site]) -> list[dict[str, Any]]:
    """Weights and states that are not on a crossbar, those of every layer joined."""
    rows = dict[tuple[str, str], dict[str, Any]]()
    states = {n: "carried from step to step" for n, s in sites.items() if s.kind is Kind.STATE}
    for name, why in {**placement.digital, **states}.items():
        pattern = group_pattern(sites[name])
        row = rows.setdefault((pattern, why), {"sites": pattern, "values": 0, "why": why})
        row["values"] += sites[name].reals
    return list(rows.values())
