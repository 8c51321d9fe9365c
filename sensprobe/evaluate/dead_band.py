"""The dead band of a rounded state: the share of writes that leave it as it was.

A write is dead where rounding leaves a value of the state exactly as it stood, although the
recurrence, going on from there exactly, would have moved it. Where updates are smaller than half a
step of the codes, the state forgets to decay and ignores its input. Steps that `every` does not
round are no writes. Runs on the reference loop, whose rounded states are those of every kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sensprobe.models import Model
from sensprobe.numerics.storage import Carry, Custom, Rounded, Storage, fresh, store
from sensprobe.numerics.taps import RoundingTap
from sensprobe.plans.sites import Part, Site

TIMED_STEPS = 16
"""Steps that an estimate of the time is made from."""


@dataclass(slots=True)
class DeadBand:
    """The writes of one state and the dead ones among them, by step from 0."""

    writes: dict[int, int] = field(default_factory=dict)
    dead: dict[int, int] = field(default_factory=dict)

    def share(self, first: int = 0, last: int | None = None) -> float:
        """Dead writes over writes of the steps from `first` to `last`; 0 where there are none."""
        steps = [s for s in self.writes if s >= first and (last is None or s <= last)]
        writes = sum(self.writes[s] for s in steps)
        return sum(self.dead[s] for s in steps) / writes if writes else 0.0


def dead_bands(
    model: Model, tap: RoundingTap, x: Tensor, tick: Callable[[], None] = lambda: None
) -> dict[str, DeadBand]:
    """Count the dead writes of every recurrent state that the tap rounds, over sequences x.

    tick: called at every step of every such state.
    """
    counting = _Counting(tap, tick)
    with torch.inference_mode():
        model(x, counting)
    return counting.found


def seconds_a_step(model: Model, tap: RoundingTap, x: Tensor) -> float:
    """Seconds of one step of the counting, for all states together.

    It is timed over the first `TIMED_STEPS`, after a first time that loads and compiles kernels.
    """
    steps = min(TIMED_STEPS, x.shape[1])
    dead_bands(model, tap, x[:, :1])
    began = time.perf_counter()
    dead_bands(model, tap, x[:, :steps])
    return (time.perf_counter() - began) / steps


@dataclass(slots=True)
class _Counting:
    """The tap, with recurrent states counted as they are written."""

    inner: RoundingTap
    tick: Callable[[], None]
    found: dict[str, DeadBand] = field(default_factory=dict)

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        return self.inner(site, x)

    def storage(self, site: Site) -> Storage:
        storage = self.inner.storage(site)
        if site.part is not Part.STATE or not isinstance(storage, Rounded):
            return storage
        found = self.found.setdefault(site.name, DeadBand())
        return Custom(_Counter(storage, found, self.tick))


@dataclass(slots=True)
class _Counter:
    """Writes a state as its storage does, and counts."""

    storage: Rounded
    found: DeadBand
    tick: Callable[[], None] = lambda: None
    _memory: Carry | None = None

    def __call__(self, new: Tensor, step: int) -> Tensor:
        before = self._memory or fresh(len(new), tuple(new.shape[1:]), self.storage, new.device)
        self._memory = store(before, new, self.storage)
        if (step + 1) % self.storage.scheme.every == 0:
            kept = self._memory.state == before.state
            self.found.writes[step] = new.numel()
            self.found.dead[step] = int((kept & (new != before.state)).sum())
        self.tick()
        return self._memory.state


def by_position(found: Mapping[str, DeadBand], length: int) -> list[dict[str, float | int]]:
    """Share of dead writes of all states together, in steps up to each power of two."""
    rows: list[dict[str, float | int]] = []
    before, last = 0, 1
    while before < length:
        writes, dead = (
            sum(
                count
                for band in found.values()
                for step, count in getattr(band, name).items()
                if before <= step < last
            )
            for name in ("writes", "dead")
        )
        if writes:
            end = min(last, length)
            rows.append({"first": before + 1, "last": end, "share": dead / writes})
        before, last = last, 2 * last
    return rows
