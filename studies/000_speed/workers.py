"""What a worker process costs a task, and how busy eight are with tasks of half a second.

    python studies/000_speed/workers.py [--workers 8] [--tasks 96] [--runs 3]

A task is a plan of `s4d-digits` on one sample, whose metric sleeps in the workers: as long as tasks
take, and without the processor, so that two cores can hold many. Efficiency is the time that tasks
slept, over the time that all workers were there. The overhead of a task is what one worker takes
for tasks that do not sleep beyond what this process takes for them, both with the evaluation kept
in a run. Workers are started before time is taken; how long that took is told.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter

from sensprobe.plans.scheme import parse
from sensprobe.session.executor import Labelled, Piece
from sensprobe.session.open import open_session
from sensprobe.session.session import Session
from sensprobe.workers import working

METRIC = """
import os, time

def right(outputs, targets):
    if os.getpid() != {asking}:
        time.sleep({seconds})
    return (outputs.argmax(-1) == targets).float()

right.unit, right.higher_is_better = "fraction", True
"""
ONE = [Piece("search", 0, 1)]


def plans() -> Iterator[Labelled]:
    """Plans that are all different."""
    for encoder, head, C, D in product(range(3, 9), repeat=4):
        bits = {"encoder": encoder, "head": head, "layers.0.C": C, "layers.0.D": D}
        yield Labelled({site: parse(f"int{n}") for site, n in bits.items()})


def opened(folder: Path, seconds: float) -> Session:
    folder.mkdir()
    code = METRIC.format(asking=os.getpid(), seconds=seconds)
    (folder / "metric.py").write_text(code, encoding="utf-8")
    metric = f"python:{folder / 'metric.py'}:right"
    return open_session("s4d-digits", "digits", folder / "run", metric=metric)


def seconds_of(session: Session, workers: int, tasks: int) -> tuple[float, float]:
    """How long workers take to start, and for so many tasks."""
    some = plans()
    with working(session, workers):
        began = perf_counter()
        session.submit([next(some) for _ in range(workers)], ONE)
        started = perf_counter() - began
        asked = [next(some) for _ in range(tasks)]
        began = perf_counter()
        session.submit(asked, ONE)
        return started, perf_counter() - began


def one_process(session: Session, tasks: int, way: str) -> float:
    """Seconds of tasks in this process, or in one worker."""
    from sensprobe.workers.processes import Processes

    some = plans()
    executor = session.local if way == "here" else Processes(session, 1)
    executor.submit([next(some)], ONE)
    asked = [next(some) for _ in range(tasks)]
    began = perf_counter()
    executor.submit(asked, ONE)
    took = perf_counter() - began
    if isinstance(executor, Processes):
        executor.close()
    return took


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--workers", type=int, default=8)
    options.add_argument("--tasks", type=int, default=96)
    options.add_argument("--seconds", type=float, default=0.5)
    options.add_argument("--runs", type=int, default=3)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, ways = Path(name), ("here", "worker")
        took = {way: [] for way in ways}
        for turn, way in product(range(asked.runs), ways):
            session = opened(folder / f"{way}{turn}", 0.0)
            took[way].append(one_process(session, asked.tasks, way) / asked.tasks)
        here, worker = (1000 * median(took[way]) for way in ways)
        print(f"a task that does not sleep: {here:.1f} ms here, {worker:.1f} ms by one worker")
        print(f"overhead a task: {worker - here:.1f} ms")
        for turn in range(asked.runs):
            session = opened(folder / f"busy{turn}", asked.seconds)
            started, wall = seconds_of(session, asked.workers, asked.tasks)
            busy = asked.tasks * asked.seconds / (asked.workers * wall)
            print(
                f"{asked.workers} workers, {asked.tasks} tasks of {asked.seconds} s: {wall:.2f} s, "
                f"efficiency {busy:.3f}; started within {started:.1f} s"
            )


if __name__ == "__main__":
    main()
