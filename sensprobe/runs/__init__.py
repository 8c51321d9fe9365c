"""The ledger: every evaluation ever made, append-only, so that none is made twice.

    run = open_run("runs/mine", Manifest(...))
    with run.working("profile"):
        if run.find(key) is None:
            run.append(Evaluation(key, {"correct": ..., "cross_entropy": ...}, {"label": ...}))
    run.write_result("sensitivity", rows)

Killed at any moment and started again, a command finds what it had measured. numpy only, no torch.
"""

from sensprobe.runs.benches import KeptBench
from sensprobe.runs.followed import Followed
from sensprobe.runs.ledger import WORKER, Writer
from sensprobe.runs.manifest import VERSION, Manifest
from sensprobe.runs.opening import open_run
from sensprobe.runs.record import Entry, Evaluation, EvaluationKey
from sensprobe.runs.run import Run, State

__all__ = [
    "VERSION",
    "WORKER",
    "Entry",
    "Evaluation",
    "EvaluationKey",
    "Followed",
    "KeptBench",
    "Manifest",
    "Run",
    "State",
    "Writer",
    "open_run",
]
