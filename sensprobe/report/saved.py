"""Plans that were saved in a run beside those of its searches: `RUN/plans/NAME.json`.

A run may come from someone else: links are passed over, and so is what is no plan of its model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from sensprobe.errors import SensprobeError
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import fingerprint, read
from sensprobe.plans.sites import Site
from sensprobe.report.live import measured_plan
from sensprobe.report.results import Compared, Search
from sensprobe.report.values import UNKNOWN
from sensprobe.runs import Run

FOLDER = "plans"
TOLD = ".out.json"
"""How the name of what a command said ends, beside the plans."""
MOST = 100


def with_saved(search: Search, run: Run, sites: Sequence[Site]) -> Search:
    """The search with the saved plans that it has not measured itself among the compared ones."""
    known = {c.plan_fingerprint for c in search.candidates}
    names = {b.name for b in search.compared} | {c.name for c in search.candidates}
    saved = [plan for plan in _saved(run, sites, search.batch, known) if plan.name not in names]
    return replace(search, compared=(*search.compared, *saved)) if saved else search


def _saved(run: Run, sites: Sequence[Site], batch: int, known: Collection[str]) -> list[Compared]:
    """The plans of files, but for those whose fingerprint is known, with what the ledger has
    measured of them."""
    out = []
    for path in _files(run.path / FOLDER):
        with suppress(SensprobeError):
            plan = read(path)
            schemes = plan.resolve(sites)
            if (mark := fingerprint(schemes)) in known:
                continue
            price, found = cost(sites, schemes, batch=batch), measured_plan(run, mark)
            _, metric, change = (None, UNKNOWN, UNKNOWN) if found is None else found
            entries = tuple((name, str(scheme)) for name, scheme in plan.entries)
            out.append(Compared(
                path.stem, price.weight_bytes, price.state_bytes, price.total_bytes, metric,
                change, entries=entries, saved=True,
            ))  # fmt: skip
    return out


def _files(folder: Path) -> list[Path]:
    if folder.is_symlink():
        return []
    files = sorted(folder.glob("[!.]*.json"))
    return [f for f in files if not f.name.endswith(TOLD) and not f.is_symlink()][:MOST]
