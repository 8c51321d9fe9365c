"""Benches as values, tables, figures, pictures, and in a report."""

from __future__ import annotations

import os
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import report_documents as documents

from sensprobe.errors import RunError
from sensprobe.report import charts
from sensprobe.report.benchmark_tables import (
    about_benchmark,
    answer,
    benchmark_rows,
    benchmark_table,
)
from sensprobe.report.benchmarks import latest, pairs, read_benchmark
from sensprobe.report.drawing import paper, screen
from sensprobe.report.gather import gather
from sensprobe.report.overview import last_change
from sensprobe.report.theme import DARK
from sensprobe.report.writing import write_report
from sensprobe.runs import Manifest, Run, open_run

PNG = b"\x89PNG"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(tmp_path / "run", Manifest("m", "a", "d", "b", 1))


def changed(**row: Any) -> dict[str, Any]:
    """A bench whose first case says something else."""
    document = documents.bench()
    document["rows"][0] |= row
    return document


def test_shares_and_ratios_have_the_ends_of_their_quartiles() -> None:
    case = read_benchmark(documents.bench()).cases[0]
    assert case.copy_range == pytest.approx((0.5 / 1.1, 0.5 / 0.9))
    assert (case.ratio_low, case.ratio_high) == pytest.approx((1.9, 2.2))


def test_cases_stand_beside_mamba_ssm_where_it_was_there() -> None:
    assert "× mamba_ssm" not in benchmark_table(read_benchmark(documents.bench()))
    found = read_benchmark(changed(mamba_ssm_ratio=1.25))
    assert list(benchmark_table(found)["× mamba_ssm"][:2]) == ["1.25", "–"]
    assert benchmark_rows([found])["times as fast as mamba_ssm"][0] == 1.25


@pytest.mark.parametrize("row", [{"seconds": None}, {"seconds": 0}, {"scheme": 4}])
def test_a_case_without_a_name_or_a_time_is_left_out_and_told(row: dict[str, Any]) -> None:
    found = read_benchmark(changed(**row))
    assert len(found.cases) == 5
    assert found.problem == "1 case(s) have no name or no time."
    assert found.problem in about_benchmark(found)


@pytest.mark.parametrize(
    "odd", [{"device": 5}, {"created": 1.5}, {"batch": "8"}, {"cpus": [2]}, {"machine": {}}]
)
def test_a_value_of_another_type_counts_as_absent(odd: dict[str, Any]) -> None:
    document = documents.bench()
    absent = {key: value for key, value in document.items() if key not in odd}
    assert read_benchmark(document | odd) == read_benchmark(absent)
    assert len(read_benchmark(changed(size=4)).cases) == 6


@pytest.mark.parametrize("quartiles", [None, [1.0], [2.0, 1.0], ["a", "b"], [0.0, 0.0]])
def test_quartiles_that_are_none_are_not_drawn(quartiles: Any) -> None:
    found = read_benchmark(changed(quartiles=quartiles, reference_quartiles=quartiles))
    assert benchmark_table(found)["25–75 % (µs)"][0] == "–"
    for drawn in (screen.draw(charts.bandwidths(found)), screen.draw(charts.ratios(found))):
        assert drawn.data[0].error_x.array[0] is None
    assert paper.draw(charts.bandwidths(found)).startswith(PNG)


def test_a_busy_machine_is_told() -> None:
    quiet, busy = (read_benchmark(documents.bench() | {"load": load}) for load in (0.4, 1.8))
    assert len(about_benchmark(quiet)) == 2
    assert "About 1.8 other processes wanted its 2 CPUs" in about_benchmark(busy)[2]


def test_marks_are_at_their_values_on_the_line_of_their_scheme() -> None:
    drawn = screen.draw(charts.bandwidths(read_benchmark(documents.bench())))
    assert [trace.name for trace in drawn.data] == ["130m", "370m"]
    assert list(drawn.data[0].x) == pytest.approx([50, 50, 50])
    assert list(drawn.data[1].x) == pytest.approx([25, 25, 25])
    names = dict(zip(drawn.layout.yaxis.tickvals, drawn.layout.yaxis.ticktext, strict=True))
    assert [names[y] for y in drawn.data[0].y] == ["int8/channel", "int4/group32", "fp32"]
    assert list(names.values()) == [
        "<b>linear</b>", "int8/channel", "int4/group32", "<b>state, Mamba</b>", "fp32",
    ]  # fmt: skip
    assert drawn.data[0].customdata[0][0] == "linear, 130m, int8/channel"


def test_another_bench_has_open_marks_on_the_same_lines() -> None:
    one, other = read_benchmark(documents.bench()), read_benchmark(documents.bench(2e-4, ("130m",)))
    drawn = screen.draw(charts.bandwidths(one, other), DARK)
    assert [trace.marker.symbol for trace in drawn.data] == ["circle", "diamond", "circle-open"]
    assert list(drawn.data[2].y) == list(drawn.data[0].y)
    assert list(drawn.data[2].x) == pytest.approx([25, 25, 25])


def test_names_from_a_file_are_escaped() -> None:
    found = read_benchmark(changed(operation="<script>", scheme="<b>x", size="<i>", model="<u>"))
    assert "<script>" not in screen.draw(charts.bandwidths(found)).to_json()


def test_nothing_to_draw_says_so() -> None:
    none = replace(read_benchmark(documents.bench()), cases=())
    assert "nothing of the kind" in screen.draw(charts.ratios(none)).layout.annotations[0].text
    assert paper.draw(charts.ratios(none)).startswith(PNG)
    assert benchmark_table(none).empty


def test_only_cases_that_both_have_are_pairs() -> None:
    one, other = (
        read_benchmark(documents.bench()),
        read_benchmark(documents.bench(3e-4, ("370m", "1.4b"))),
    )
    found = pairs(one, other)
    assert {p.one.model for p in found} == {"370m"}
    assert [p.times for p in found] == pytest.approx([1.5, 1.5, 1.5])
    assert all(p.apart for p in found)


def test_the_latest_of_each_machine_device_and_batch_is_reported(run: Run) -> None:
    for created, batch in (("2026-03-01", 1), ("2026-03-02", 1), ("2026-03-03", 8)):
        documents.keep_bench(run.path, documents.bench(batch=batch) | {"created": created})
    found = latest(gather(run).benchmarks)
    assert [(b.created, b.batch) for b in found] == [("2026-03-03", 8), ("2026-03-02", 1)]


def test_a_run_of_benches_alone_has_a_report(run: Run) -> None:
    with pytest.raises(RunError, match="holds no results to report"):
        write_report(run)
    documents.keep_bench(run.path, documents.bench())
    files = write_report(run)
    assert {p.name for p in files.images} == {"bench-0-bandwidths.png", "bench-0-ratios.png"}
    page = files.html.read_text(encoding="utf-8")
    assert "How fast operations on packed memory run" in page
    assert "2026-03-01 12:30 UTC on EPYC" in page
    table = pd.read_csv(files.folder / "benches.csv")
    assert len(table) == len(benchmark_rows(gather(run).benchmarks)) == 6
    assert list(table["share of copy"][:4]) == pytest.approx([0.5, 0.5, 0.5, 0.25])


def test_a_bench_is_a_change_of_its_run(run: Run) -> None:
    os.utime(run.path / "run.json", (0, 0))
    assert last_change(run.path).startswith("1970-01-01")
    path = documents.keep_bench(run.path, documents.bench())
    os.utime(path, (86400, 86400))
    assert last_change(run.path).startswith("1970-01-02")


def test_a_damaged_bench_is_among_what_is_missing(run: Run) -> None:
    path = documents.keep_bench(run.path, documents.bench())
    path.write_bytes(path.read_bytes() + b"torn")
    assert any("dropped an unfinished last line" in line for line in gather(run).missing)


def test_the_answer_counts_what_is_faster_than_pytorch() -> None:
    found = read_benchmark(documents.bench())
    timed = [case for case in found.cases if isfinite(case.ratio)]
    best = max(timed, key=lambda case: case.ratio)
    faster = sum(case.ratio > 1 for case in timed)
    assert answer(found).startswith(f"{faster} of {len(timed)} cases are faster than PyTorch; ")
    assert f"{best.operation} in {best.scheme}, {best.ratio:.1f} times as fast" in answer(found)
    assert "none has PyTorch's time" in answer(replace(found, cases=()))
