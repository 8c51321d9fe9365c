"""`sensprobe demo`: the main job from end to end on a model and data that every machine has.

Calls what the commands call, and says which command each step is.
"""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.rule import Rule

from sensprobe import api
from sensprobe.cli import show
from sensprobe.cli.bar import Bar
from sensprobe.data import load_data
from sensprobe.units import duration

MODEL, DATA = "s4d-digits", "digits"
BUDGETS = ("1.5KiB", "1.75KiB")
EVALUATIONS = 40


def run_demo(run: Path, stdout: Console, stderr: Console) -> None:
    """Profile, search, confirm, export and report into `run`; prints what a person should see."""
    began, bar, out = time.perf_counter(), Bar(stderr), run / "exported"

    def step(command: str) -> None:
        stdout.print(Rule(f"sensprobe {command}", align="left"))

    about = load_data(DATA).describe()
    stdout.print(f"A small S4D that reads 8×8 digits pixel by pixel. {about}\n")
    step(f"profile {MODEL} --data {DATA} --run {run}")
    stdout.print(show.sensitivity(api.profile(MODEL, DATA, run, progress=bar)))
    limits = " ".join(f"--budget {b}" for b in BUDGETS)
    step(f"search --run {run} {limits} --evaluations {EVALUATIONS}")
    found = api.search(run, BUDGETS, evaluations=EVALUATIONS, progress=bar)
    for part in show.search(found["search"], found["confirmation"]):
        stdout.print(part)
    step(f"export --run {run} --plan {BUDGETS[0]} --out {out}")
    stdout.print(show.exported(api.export(run, BUDGETS[0], out, overwrite=True)))
    step(f"report --run {run}")
    stdout.print(show.report_files(api.report(run)))
    stdout.print(Rule("next", align="left"))
    stdout.print(f"sensprobe eval {out} --data {DATA}   # the exported model, reloaded")
    stdout.print("sensprobe profile YOUR.safetensors --data npz:YOUR.npz --run runs/mine")
    stdout.print(f"done in {duration(time.perf_counter() - began)}")
