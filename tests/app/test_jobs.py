"""What the dashboard may start, and where it may write."""

from __future__ import annotations

import json

import pytest
from sensprobe_app import jobs

from sensprobe.errors import UsageError
from sensprobe.plan import Plan, fingerprint
from sensprobe.report.live import measured_plan
from sensprobe.runs import open_run
from sensprobe.scheme import parse


@pytest.mark.parametrize("name", ["", "../out", "a/b", ".hidden", "-x", "a" * 61, "a b", "a\n"])
def test_names_that_could_leave_the_folder_are_refused(name):
    with pytest.raises(UsageError, match="cannot name a plan"):
        jobs.named(name)


def test_a_plan_is_measured_into_the_same_ledger(runs):
    run = open_run(runs / "digits")
    before = run.count
    plan = Plan((("layers.0.A", parse("int5/head/asym")),), "mine")
    mark = fingerprint(dict(plan.entries))
    assert measured_plan(run, mark) is None
    job = jobs.measure(run, plan, 400)
    assert job.process.wait(timeout=300) == 0, job.said
    run.refresh()
    assert run.count == before + 1
    found = measured_plan(run, mark)
    assert found is not None
    quantity, score, change = found
    assert quantity.name == "accuracy"
    assert score.value == pytest.approx(json.loads(job.out.read_bytes())["value"])
    assert score.n == 400
    assert change.value <= 0
    written = {p.relative_to(runs / "digits").parts[0] for p in (runs / "digits").rglob("*.*")}
    assert written <= {"run.json", "optuna.db", "evaluations", "results", "plans"}


def test_a_second_job_of_the_same_name_is_refused(runs):
    run = open_run(runs / "digits")
    plan = Plan((("layers.0.A", parse("int5/head/asym")),), "mine")
    job = jobs.measure(run, plan, 400)
    with pytest.raises(UsageError, match="being worked on already"):
        jobs.measure(run, plan, 400)
    assert job.process.wait(timeout=300) == 0
    assert not jobs.running(run, "mine")


def test_what_fails_says_why(runs):
    run = open_run(runs / "digits")
    job = jobs.export(run, "nosuchplan")
    assert job.process.wait(timeout=300) != 0
    assert "nosuchplan" in job.said
    assert not job.out.read_bytes()
