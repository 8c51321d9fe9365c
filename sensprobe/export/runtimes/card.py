"""The README.md of a folder for another runtime: what it is, how to load it, what it lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sensprobe.export.markdown import code, fenced, plain, table
from sensprobe.export.runtimes.fit import Fit, grouped
from sensprobe.plans.scheme import EXACT
from sensprobe.plans.sites import Kind, group_pattern


def card_text(
    name: str, fit: Fit, use: Sequence[str], sizes: Sequence[tuple[str, int, int]]
) -> str:
    """The card as Markdown. `sizes`: what, bytes under the plan, bytes here."""
    rows = grouped(fit.model, fit.changes)
    dropped, narrowed = ([r for r in rows if r["dropped"] is kind] for kind in (True, False))
    sections = [
        f"# {plain(name)}, for {fit.runtime.name}\n\nA state space model ({fit.model.family}): "
        f"{fit.runtime.about}. Written by sensprobe; `plan.json` says what each tensor is stored "
        "in here, in its words.",
        "## Use\n\n" + fenced(use),
        "## Size in bytes\n\n"
        + table(["", "the plan", "here"], [[w, f"{a:,}", f"{b:,}"] for w, a, b in sizes]),
        "## Kept\n\n" + table(["sites", "scheme", "tensors"], _kept(fit)),
        "## Dropped\n\n" + (_changes(dropped) if dropped else "Nothing of the plan."),
    ]
    if narrowed:
        sections.append(
            "## Narrowed\n\nFull precision in the plan, and not here.\n\n" + _changes(narrowed)
        )
    if about := anew_text(fit):
        sections.append("## Rounded anew\n\n" + about)
    return "\n\n".join(sections) + "\n"


def anew_text(fit: Fit) -> str:
    """What of a runtime's own rounding was not simulated; nothing where all was."""
    said, names = [], fit.rounded_anew()
    if names:
        kinds = ", ".join(sorted({fit.layouts[name].name for name in names}))
        said.append(
            f"{len(names)} matrices become {kinds}, as many bytes as planned, but on a grid of "
            f"{fit.runtime.name}'s own: the plan's score is not theirs. Measure again there."
        )
    if count := sum(layout.reads is not None for layout in fit.layouts.values()):
        said.append(
            f"The inputs of {count} matrices are rounded with scales that {fit.runtime.name} reads "
            "from them, near the simulation's and not equal to them."
        )
    return " ".join(said)


def _changes(rows: list[dict[str, Any]]) -> str:
    head = ["sites", "tensors", "the plan", "here", "why"]
    cells = [
        [code(r["sites"]), str(r["count"]), code(r["asked"]), r["becomes"], r["why"]] for r in rows
    ]
    return table(head, cells)


def _kept(fit: Fit) -> list[list[str]]:
    """What every weight and state is in, and activations that are rounded."""
    groups: dict[tuple[str, str], int] = {}
    for name, site in fit.model.sites.items():
        if site.kind is not Kind.ACTIVATION or name in fit.plan:
            key = group_pattern(site), str(fit.plan.get(name, EXACT))
            groups[key] = groups.get(key, 0) + 1
    return [[code(sites), code(scheme), str(n)] for (sites, scheme), n in groups.items()]
