"""What the dashboard may start, and where it may write."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from sensprobe_app import jobs
from sensprobe_app.views.plan import _zipped

from sensprobe.errors import RunError, UsageError
from sensprobe.plans.plan import Plan, fingerprint
from sensprobe.plans.scheme import parse
from sensprobe.report.live import measured_plan
from sensprobe.runs import open_run


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


@pytest.mark.thorough
def test_a_second_job_of_the_same_name_is_refused(runs):
    run = open_run(runs / "digits")
    plan = Plan((("layers.0.A", parse("int5/head/asym")),), "mine")
    job = jobs.measure(run, plan, 400)
    with pytest.raises(UsageError, match="being worked on already"):
        jobs.measure(run, plan, 400)
    assert job.process.wait(timeout=300) == 0
    assert not jobs.running(run, "mine")


@pytest.mark.parametrize("runtime", ["", pytest.param("crossbar", marks=pytest.mark.thorough)])
def test_a_plan_that_no_search_measured_is_exported(runs, runtime):
    run, plan = open_run(runs / "digits"), Plan((("head", parse("int5/channel")),), "mine")
    job = jobs.export(run, plan, runtime, searched=False)
    assert jobs.told(run, job.name) == {}, "it still runs"
    assert job.process.wait(timeout=300) == 0, job.said
    folder = run.path / "exported" / jobs.exported("mine", runtime)
    assert any(folder.iterdir())
    told = jobs.told(run, job.name)
    assert told["plan" if runtime else "path"] == ("mine" if runtime else str(folder))
    assert ("digital" in told) == bool(runtime)


def test_no_link_in_an_exported_folder_is_followed(tmp_path):
    (tmp_path / "secret").write_text("mine")
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "weights").symlink_to(tmp_path / "secret")
    with zipfile.ZipFile(io.BytesIO(_zipped(folder))) as archive:
        assert archive.namelist() == ["config.json"]


@pytest.mark.parametrize("setting", ["model", "data", "norm"])
def test_a_setting_that_a_command_would_take_for_an_option_is_refused(runs, setting):
    path = runs / "digits" / "run.json"
    document = json.loads(path.read_text())
    document["settings"][setting] = "--allow-code"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="--allow-code"):
        jobs.subject(open_run(runs / "digits"))


def test_what_fails_says_why(runs):
    run = open_run(runs / "digits")
    job = jobs.export(run, Plan((), "nosuchplan"), searched=True)
    assert job.process.wait(timeout=300) != 0
    assert "nosuchplan" in job.said
    assert not job.out.read_bytes()


def test_code_that_a_run_names_is_shown_and_not_run(runs, tmp_path):
    path, ran = runs / "digits" / "run.json", tmp_path / "ran"
    (tmp_path / "evil.py").write_text(
        f"import pathlib\npathlib.Path({str(ran)!r}).touch()\ndef f(*_): ...\n"
    )
    document = json.loads(path.read_text())
    document["settings"]["metric"] = f"python:{tmp_path / 'evil.py'}:f"
    document["settings"]["norm"] = f"--metric=python:{tmp_path / 'evil.py'}:f"
    path.write_text(json.dumps(document))
    run, plan = open_run(runs / "digits"), Plan((("layers.0.A", parse("int5/head/asym")),), "mine")
    for start in (
        lambda: jobs.measure(run, plan, 8),
        lambda: jobs.export(run, plan, searched=False),
    ):
        with pytest.raises((jobs.RefusedError, UsageError)) as caught:
            start()
        if isinstance(caught.value, jobs.RefusedError):
            assert f"f() of {tmp_path / 'evil.py'}" in str(caught.value)
            assert caught.value.command.startswith(f"sensprobe eval --run {run.path} --plan ")
            assert caught.value.command.endswith("--allow-code")
    assert not jobs.jobs()
    assert not ran.exists()


def test_nothing_is_written_where_links_lead(runs, tmp_path):
    run, plan = open_run(runs / "digits"), Plan((("layers.0.A", parse("int5/head/asym")),), "mine")
    (run.path / "plans").mkdir(exist_ok=True)
    (tmp_path / "precious").write_text("kept")
    (run.path / "plans" / "mine.log").symlink_to(tmp_path / "precious")
    job = jobs.measure(run, plan, 8)
    job.process.kill()
    job.process.wait()
    assert (tmp_path / "precious").read_text() == "kept"
    for name in ("plans", "exported"):
        (run.path / name).exists() and (run.path / name).rename(tmp_path / name)
        (tmp_path / name).mkdir(exist_ok=True)
        (run.path / name).symlink_to(tmp_path / name)
    with pytest.raises(RunError, match="plans is a link"):
        jobs.measure(run, plan, 8)
    with pytest.raises(RunError, match="exported is a link"):
        jobs.export(run, plan, searched=True)


@pytest.mark.parametrize("content", ["{", "7", '["note"]', '{"note": "chosen for 2KiB"}'])
def test_only_a_saved_plan_is_replaced_by_another(runs, content):
    run, plan = open_run(runs / "digits"), Plan((("*.A", parse("int8")),), "mine")
    path = jobs.save(run, plan)
    first = path.read_bytes()
    assert jobs.save(run, plan).read_bytes() == first
    path.write_text(content)
    with pytest.raises(UsageError, match="take another name"):
        jobs.save(run, plan)
    assert path.read_text() == content
