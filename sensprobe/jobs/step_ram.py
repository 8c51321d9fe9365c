"""Room for the steps of a tuning: what one takes, and what is said where it does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sensprobe.memory import free_bytes, room
from sensprobe.train.ram import recomputed
from sensprobe.train.tune import TuneTask
from sensprobe.units import size_text


@contextmanager
def room_for_steps(task: TuneTask, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Have the layers run as the RAM that is free allows, and note what a step takes.

    Yields it as documents have it. CapacityError before the block runs where no step of the batch
    fits, and where RAM is refused inside it.
    """
    step, free = task.step_bytes(), free_bytes()
    fits = step.fitting(free or 0)
    advice = f"--batch {fits:,} would fit." if fits else "No batch fits: take shorter samples."
    what = f"a step of {task.batch:,} × {task.train.x.shape[1]:,}"
    with room(step.least(task.batch), free, what, advice):
        task.under.layer = step.layer(task.batch, free)
        again = task.under.layer is recomputed
        needed = step.least(task.batch) if again else step.kept(task.batch)
        told = "; layers are recomputed" if again else ""
        note(f"{what} takes about {size_text(needed)} of RAM{told}")
        yield {"step_bytes": needed, "layers": "recomputed" if again else "kept"}
