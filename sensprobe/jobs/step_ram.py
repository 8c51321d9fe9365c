"""Room for the steps of a training: what one takes, and what is said where it does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from sensprobe.memory import free_bytes, room
from sensprobe.models.forward import Layer
from sensprobe.train.ram import StepBytes, recomputed
from sensprobe.units import size_text


class Counted(Protocol):
    """A training whose steps can be counted before they are run."""

    @property
    def batch(self) -> int:
        """Sequences a step."""
        ...

    @property
    def length(self) -> int:
        """Time steps of a sequence."""
        ...

    def step_bytes(self) -> StepBytes: ...


@contextmanager
def room_for_steps(
    task: Counted, note: Callable[[str], None] = lambda text: None
) -> Iterator[tuple[Layer, dict[str, Any]]]:
    """Note what a step takes; yields how its layers are to be run in the RAM that is free, and the
    same as documents have it.

    CapacityError before the block runs where no step of the batch fits, and where RAM is refused
    inside it.
    """
    step, free = task.step_bytes(), free_bytes()
    fits = step.fitting(free or 0)
    advice = "No batch fits: take shorter samples."
    if fits:
        advice = f"A batch of {fits:,} would fit (--batch {fits}, or [optimizer] in a recipe)."
    what = f"a step of {task.batch:,} × {task.length:,}"
    with room(step.least(task.batch), free, what, advice):
        layer = step.layer(task.batch, free)
        again = layer is recomputed
        needed = step.least(task.batch) if again else step.kept(task.batch)
        told = "; layers are recomputed" if again else ""
        note(f"{what} takes about {size_text(needed)} of RAM{told}")
        yield layer, {"step_bytes": needed, "layers": "recomputed" if again else "kept"}
