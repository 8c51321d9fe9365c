"""A model with fewer states or kernels inside another job: pruned once, and kept in its folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sensprobe.errors import UsageError
from sensprobe.jobs.cost import cost
from sensprobe.jobs.prune import require_prunable, write_pruned
from sensprobe.jobs.tuned import opened_as
from sensprobe.models import family_of
from sensprobe.plans.sites import Part
from sensprobe.search import Budget, Size
from sensprobe.session.session import Session

FILE = "pruned.safetensors"
FROM = "pruned_from"
"""What the file records: the fingerprint of the model that was pruned."""


@dataclass(frozen=True)
class PrunedTo:
    """What a pruned model keeps: states of a head (S4D) or in all (S5), and convolution
    kernels in all layers together (S4D). None keeps all of them."""

    states: int | None = None
    kernels: int | None = None

    def __str__(self) -> str:
        named = {"states": self.states, "kernels": self.kernels}
        return ", ".join(f"{count} {name}" for name, count in named.items() if count is not None)

    @property
    def asked(self) -> str:
        """What is given to --prune."""
        kernels = None if self.kernels is None else f"kernels={self.kernels}"
        return ",".join(str(part) for part in (self.states, kernels) if part is not None)

    @property
    def ending(self) -> str:
        """What names and fingerprints end with: -8-states-48-kernels."""
        return "-" + str(self).replace(", ", "-").replace(" ", "-")


def pruned_to(text: str | int) -> PrunedTo:
    """8, kernels=48, or 8,kernels=48. Raises UsageError for anything else."""
    found = re.fullmatch(r"(\d{1,9})?(?:(?:^|,)kernels=(\d{1,9}))?", str(text))
    if found is None or not any(found.groups()):
        raise UsageError(
            f"--prune {text}: say how many states are kept, 8, how many kernels, kernels=48, or "
            "both, 8,kernels=48."
        )
    return PrunedTo(*(None if count is None else int(count) for count in found.groups()))


def fewer(session: Session, kept: PrunedTo, folder: Path, resume: bool = True) -> Session:
    """The session of the model that is pruned to what is `kept`, on the same data:
    FOLDER/pruned.safetensors, made where there is none. A file that is there is used if it is of
    this model and has what is kept, and UsageError where it is not, unless `resume` is False. Full
    precision, to a tuning of it and where it teaches itself, is the model before.
    """
    require_prunable(session, kept.states, kept.kernels)
    path = folder / FILE
    if resume and path.exists():
        found = opened_as(session, path)
        if not _is_pruned_to(session, found, kept):
            raise UsageError(
                f"{path} was pruned of another model, or to other than {kept}: name another "
                "folder, or replace it with --restart."
            )
    else:
        write_pruned(
            session, kept.states, path, {FROM: session.source.fingerprint}, kernels=kept.kernels
        )
        found = opened_as(session, path)
    found.samples, found.whole = session.samples, session
    return found


def _is_pruned_to(session: Session, found: Session, kept: PrunedTo) -> bool:
    """Whether the model of `found` is that of the session with what is kept, by what it says of
    itself and by the sizes that it has."""
    before, after = session.source.model.config, found.source.model.config
    if found.source.recorded.get(FROM) != session.source.fingerprint or type(after) is not type(
        before
    ):
        return False
    changed = {} if kept.states is None else {"d_state": kept.states}
    if kept.kernels is not None:
        changed["kernels"] = after.kernels
    config, sites = replace(before, **changed), found.source.model.sites
    rows = sum(site.shape[0] for site in sites.values() if site.part is Part.A)
    return dict(family_of(config).sites(config)) == dict(sites) and kept.kernels in (None, rows)


def searchable(
    model: Session, kept: PrunedTo, budgets: Sequence[Budget], batch: int
) -> tuple[Budget, ...]:
    """The budgets that a pruned model does not fit at full precision; of the others it is said that
    it does not compete."""
    full = cost(model.source.outline, {}, batch)
    size, smaller = Size(full["weight_bytes"], full["state_bytes"]), []
    for budget in budgets:
        if not budget.admits(size):
            smaller.append(budget)
            continue
        model.progress.note(
            f"{kept} do not compete within {budget}: at full precision they take {size.total:,} "
            f"bytes, so there is nothing to search. `sensprobe tune --prune {kept.asked}` "
            "trains such a model."
        )
    return tuple(smaller)
