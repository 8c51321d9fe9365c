"""`sensprobe demo`: the main job from end to end on a model and data that every machine has.

Calls the same steps as the commands, and says which command each one is.
"""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.rule import Rule

from sensprobe import steps
from sensprobe.cli import show
from sensprobe.cli.bar import duration
from sensprobe.cli.opening import open_bench
from sensprobe.cli.parser import byte_count
from sensprobe.search import Budget
from sensprobe.steps.searching import SearchSettings

MODEL, DATA = "s4d-digits", "digits"
BUDGETS = ("1.5KiB", "1.75KiB")
EVALUATIONS = 40


def run_demo(run: Path, stdout: Console, stderr: Console) -> None:
    """Profile, search, confirm, export and report into `run`; prints what a person should see."""
    began = time.perf_counter()
    settings = {"model": MODEL, "data": DATA, "norm": None, "metric": None, "data_seed": 0}
    bench = open_bench(settings, run)
    assert bench.run is not None
    stdout.print(f"A small S4D that reads 8×8 digits pixel by pixel. {bench.dataset.describe()}\n")
    with bench.run.working("demo"):
        stdout.print(Rule(f"sensprobe profile {MODEL} --data {DATA} --run {run}", align="left"))
        stdout.print(show.sensitivity(steps.profile(bench)))
        flags = " ".join(f"--budget {b}" for b in BUDGETS)
        stdout.print(Rule(f"sensprobe search --run {run} {flags}", align="left"))
        budgets = tuple(Budget(byte_count(b), label=b) for b in BUDGETS)
        found = steps.search(bench, SearchSettings(budgets, evaluations=EVALUATIONS))
        confirmed = steps.confirm(bench)
        for part in show.search(found, confirmed):
            stdout.print(part)
        out = run / "exported"
        stdout.print(
            Rule(f"sensprobe export --run {run} --plan {BUDGETS[0]} --out {out}", align="left")
        )
        stdout.print(show.exported(steps.export(bench, BUDGETS[0], out, overwrite=True)))
    from sensprobe.report import write_report

    files = write_report(bench.run, None)
    stdout.print(show.report_files(files))
    stdout.print(Rule("next", align="left"))
    stdout.print(
        f"sensprobe eval {out} --data {DATA}                    the exported model, run packed"
    )
    stdout.print("sensprobe profile YOUR.safetensors --data npz:YOUR.npz --run runs/mine")
    stdout.print(f"done in {duration(time.perf_counter() - began)}")
