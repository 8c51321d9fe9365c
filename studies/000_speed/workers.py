"""What a worker costs a task, and how busy eight are with tasks of half a second.

    python studies/000_speed/workers.py [--workers 8] [--tasks 96] [--runs 3] [--ray]

A task is a plan of `s4d-digits` on one sample, kept in a run. Workers sleep at every task: as long
as tasks take, and without the processor, so that two cores can hold many. Efficiency is the time
that tasks slept, over the time that all workers were there. The overhead of a task is what one
worker takes for tasks that do not sleep beyond what this process takes for them. Workers are
started before time is taken; how long that took is told. They are processes, or with --ray actors
of a Ray that is started here.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter

from sensprobe.plans.scheme import parse
from sensprobe.session.executor import Labelled, Piece
from sensprobe.session.open import open_session
from sensprobe.session.session import Session
from sensprobe.workers import on_ray, working
from sensprobe.workers.dispatch import Workers
from sensprobe.workers.processes import Processes
from sensprobe.workers.task import Answer, Task

METRIC = """
import os, time

def right(outputs, targets):
    if os.getpid() != {asking}:
        time.sleep({seconds})
    return (outputs.argmax(-1) == targets).float()

right.unit, right.higher_is_better = "fraction", True
"""
ONE = [Piece("search", 0, 1)]
Actor = on_ray.Actor


def plans() -> Iterator[Labelled]:
    """Plans that are all different."""
    for encoder, head, C, D in product(range(3, 9), repeat=4):
        bits = {"encoder": encoder, "head": head, "layers.0.C": C, "layers.0.D": D}
        yield Labelled({site: parse(f"int{n}") for site, n in bits.items()})


def opened(folder: Path, seconds: float, ray: bool) -> Session:
    """A session on a new run, whose tasks sleep in the workers: processes by a metric, actors of
    Ray, to which no metric is sent, by themselves."""
    folder.mkdir()
    if ray:

        class Sleeping(Actor):
            def answer(self, task: Task) -> Answer:
                time.sleep(seconds)
                return super().answer(task)

        on_ray.Actor = Sleeping  # type: ignore[misc]
        return open_session("s4d-digits", "digits", folder / "run")
    code = METRIC.format(asking=os.getpid(), seconds=seconds)
    (folder / "metric.py").write_text(code, encoding="utf-8")
    metric = f"python:{folder / 'metric.py'}:right"
    return open_session("s4d-digits", "digits", folder / "run", metric=metric)


def seconds_of(session: Session, within: AbstractContextManager[None], first: int, tasks: int):
    """How long it takes until the first tasks are done, and for so many further ones."""
    some = plans()
    with within:
        began = perf_counter()
        session.submit([next(some) for _ in range(first)], ONE)
        started = perf_counter() - began
        asked = [next(some) for _ in range(tasks)]
        began = perf_counter()
        session.submit(asked, ONE)
        return started, perf_counter() - began


def one_worker(session: Session, ray: bool) -> Workers:
    return Workers(session, on_ray.OnRay(session, "ray:1") if ray else Processes(session, 1))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--workers", type=int, default=8)
    options.add_argument("--tasks", type=int, default=96)
    options.add_argument("--seconds", type=float, default=0.5)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--ray", action="store_true")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        took: dict[bool, list[float]] = {False: [], True: []}
        for turn, alone in product(range(asked.runs), (True, False)):
            session = opened(folder / f"{turn}{alone}", 0.0, asked.ray)
            if not alone:
                session.executor = one_worker(session, asked.ray)
            wall = seconds_of(session, nullcontext(), 1, asked.tasks)[1]
            took[alone].append(1000 * wall / asked.tasks)
            if isinstance(session.executor, Workers):
                session.executor.close()
        here, worker = median(took[True]), median(took[False])
        print(f"a task that does not sleep: {here:.1f} ms here, {worker:.1f} ms by one worker")
        print(f"overhead a task: {worker - here:.1f} ms")
        for turn in range(asked.runs):
            session = opened(folder / f"busy{turn}", asked.seconds, asked.ray)
            several = f"ray:{asked.workers}" if asked.ray else asked.workers
            within = working(session, several)
            started, wall = seconds_of(session, within, asked.workers, asked.tasks)
            busy = asked.tasks * asked.seconds / (asked.workers * wall)
            print(
                f"{several} workers, {asked.tasks} tasks of {asked.seconds} s: {wall:.2f} s, "
                f"efficiency {busy:.3f}; started within {started:.1f} s"
            )


if __name__ == "__main__":
    main()
