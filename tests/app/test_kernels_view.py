"""The view of benches in each of its states, without a browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import report_documents as documents
from app_pages import drawn, words
from sensprobe_app import store

from sensprobe.runs.record import seal

EARLY, LATE = "2026-03-01T12:30:45+00:00", "2026-03-02T09:00:00+00:00"


def kept(runs: Path, created: str = EARLY, run: str = "digits", **more: object) -> Path:
    seconds = more.pop("seconds", 1e-4)
    assert isinstance(seconds, float)
    return documents.keep_bench(runs / run, documents.bench(seconds) | {"created": created} | more)


def charts(test) -> list[str]:
    return [chart.proto.id for chart in test.get("plotly_chart")]


def test_none_says_which_command_fills_it(runs):
    test = drawn(runs, "kernels")
    assert f"sensprobe bench --run {runs / 'digits'}" in words(test)
    assert not charts(test)
    assert not test.selectbox


def test_the_run_that_ships_is_not_to_be_benched_into():
    test = drawn(store.EXAMPLE, "kernels")
    assert "sensprobe bench --run RUN" in words(test)
    assert "RUN is a folder that" in words(test).replace("\\", "")


def test_one_is_drawn_with_where_and_when(runs):
    kept(runs)
    test = drawn(runs, "kernels")
    said = words(test).replace("\\", "")
    assert "2026-03-01 12:30 UTC on EPYC" in said
    assert "copying a large array reaches 20.0 GB/s" in said
    assert "torch 2.9.0" in said
    assert len(charts(test)) == 2
    table = test.dataframe[0].value
    assert len(table) == 6
    assert list(table["% of copy"][:4]) == ["50", "50", "50", "25"]
    assert set(table["× PyTorch"]) == {"2.00"}
    assert test.selectbox(key="beside").options == ["nothing"]


def test_one_of_a_model_says_so_and_has_its_cases(runs):
    """Rows without bytes or a reference are in the table; what has neither is not drawn."""
    bare = {"bytes": None, "of_copy": None, "ratio": None, "reference_quartiles": None}
    rows = [
        documents.bench()["rows"][0] | {"model": "m, batch 8", "operation": "step"},
        documents.bench()["rows"][0] | {"model": "m, batch 8", "operation": "other"} | bare,
    ]
    kept(runs, model="m", plan={"a": "int8"}, plan_name="w8a8", batch=None, rows=rows)
    test = drawn(runs, "kernels")
    assert "Steps of m under w8a8, one thread" in words(test)
    assert test.selectbox(key="bench").options == ["2026-03-01 12:30, cpu, m under w8a8"]
    table = test.dataframe[0].value
    assert list(table["operation"]) == ["step", "other"]
    assert list(table["× PyTorch"]) == ["2.00", "–"]
    assert not test.warning


def test_of_several_the_latest_comes_first_and_the_address_holds_the_choice(runs):
    kept(runs)
    kept(runs, LATE)
    test = drawn(runs, "kernels")
    assert test.selectbox(key="bench").options == [
        "2026-03-02 09:00, cpu, batch 1",
        "2026-03-01 12:30, cpu, batch 1",
    ]
    assert "2026-03-02 09:00 UTC" in words(test).replace("\\", "")
    again = drawn(runs, "kernels", bench="2026-03-01 12:30, cpu, batch 1")
    assert "2026-03-01 12:30 UTC" in words(again).replace("\\", "")
    assert "2026-03-02 09:00 UTC" not in words(again).replace("\\", "")


def test_benches_of_the_same_minute_are_told_apart(runs):
    kept(runs)
    kept(runs)
    options = drawn(runs, "kernels").selectbox(key="bench").options
    assert len(set(options)) == 2


def test_runs_are_named_where_several_hold_benches(runs):
    shutil.copytree(runs / "digits", runs / "other")
    kept(runs)
    kept(runs, LATE, "other")
    options = drawn(runs, "kernels").selectbox(key="bench").options
    assert options == [
        "2026-03-02 09:00, cpu, batch 1 (other)",
        "2026-03-01 12:30, cpu, batch 1 (digits)",
    ]


def test_two_are_put_beside_each_other(runs):
    kept(runs, seconds=3e-4)
    kept(runs, LATE)
    test = drawn(runs, "kernels", beside="2026-03-01 12:30, cpu, batch 1")
    pairs = test.dataframe[0].value
    assert list(pairs["µs"][:1]) == ["100"]
    assert list(pairs["other (µs)"][:1]) == ["300"]
    assert set(pairs["times as fast"]) == {"3.00"}
    assert not test.warning


def test_a_difference_within_the_quartiles_is_none(runs):
    kept(runs, seconds=1.05e-4)
    kept(runs, LATE)
    test = drawn(runs, "kernels", beside="2026-03-01 12:30, cpu, batch 1")
    assert set(test.dataframe[0].value["times as fast"]) == {"· 1.05"}


def test_benches_of_other_work_are_told(runs):
    kept(runs, batch=8)
    kept(runs, LATE)
    test = drawn(runs, "kernels", beside="2026-03-01 12:30, cpu, batch 8")
    assert "batch 1, the other of batch 8" in test.warning[0].value


def test_a_damaged_one_is_said_and_the_rest_is_shown(runs):
    path = kept(runs)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"x" + b"".join(lines[1:-1]) + lines[-1][:-5])
    test = drawn(runs, "kernels")
    said = words(test).replace("\\", "")
    assert "skipped 1 damaged line(s) and dropped an unfinished last line" in said
    assert len(test.dataframe[0].value) == 5
    path.write_bytes(b"nothing of ours\n")
    test = drawn(runs, "kernels")
    assert "does not say where it was measured" in words(test)
    assert "sensprobe bench --run" in words(test)


def test_a_stopped_one_says_so(runs):
    path = kept(runs)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))
    test = drawn(runs, "kernels")
    assert "It was stopped, after 3 cases." in words(test).replace("\\", "")
    assert not test.warning


def test_an_older_one_that_says_less_is_drawn(runs):
    """One without device, versions, quartiles and PyTorch's time."""
    path = kept(runs)
    less = {k: documents.bench()[k] for k in ("machine", "threads", "copy_bytes_per_second")}
    names = ("operation", "model", "size", "scheme", "seconds", "of_copy")
    rows = [{k: row[k] for k in names} for row in documents.bench()["rows"]]
    lines = [seal({"kind": "bench", "version": 1, "about": less})]
    path.write_bytes(b"".join(lines + [seal({"kind": "case", "row": row}) for row in rows]))
    test = drawn(runs, "kernels")
    assert "At an unknown time on EPYC, 2 CPUs, Linux" in words(test)
    assert len(charts(test)) == 2
    assert set(test.dataframe[0].value["× PyTorch"]) == {"–"}


def test_a_newer_one_is_not_misread(runs):
    path = kept(runs)
    lines = path.read_bytes().splitlines(keepends=True)
    newer = seal({"kind": "bench", "version": 99, "about": {}})
    path.write_bytes(newer + b"".join(lines[1:]))
    test = drawn(runs, "kernels")
    assert "upgrade sensprobe" in words(test)
    assert not charts(test)
