"""One chart says the same on a screen, on paper and in a terminal."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite, nan
from pathlib import Path

import pytest
import report_documents as documents
import sensprobe_app

from sensprobe.report import charts
from sensprobe.report.agreement import agreement
from sensprobe.report.benchmarks import read_benchmark
from sensprobe.report.charts import labels
from sensprobe.report.charts.chart import (
    Axis,
    Chart,
    Look,
    Point,
    Series,
    Tick,
    log_ticks,
    nothing,
    ticked,
)
from sensprobe.report.drawing import paper, screen, text
from sensprobe.report.fronts import FrontView
from sensprobe.report.gather import gather
from sensprobe.report.read import read_search, read_sensitivity, read_tuned
from sensprobe.report.theme import DARK
from sensprobe.runs import open_run

EXAMPLE = Path(sensprobe_app.__file__).parent / "example" / "s4d-digits"
PNG = b"\x89PNG"


def chart(*points: Point, letter: str = "●", name: str = "marks") -> Chart:
    """Marks on an axis that has ends and ticks."""
    across = Axis("bytes", "KiB", True, (Tick(1024, "1"), Tick(2048, "2")), (900, 2300))
    marks = Series(name, points, Look(letter=letter))
    return Chart("A title", x=across, y=Axis("score"), series=(marks,))


def test_an_axis_is_named_with_its_unit_and_kind_of_scale() -> None:
    assert Axis("bytes", "KiB", log=True).heading == "bytes (KiB, log scale)"
    assert Axis("score").heading == "score"
    assert Axis(log=True).heading == ""


def test_a_mark_lies_at_its_value_on_a_screen_and_in_a_terminal() -> None:
    drawn = chart(Point(1024, 1.0, "a", ("A",), label="low"), Point(2048, 2.0, "b", ("B",)))
    trace = screen.draw(drawn).data[0]
    assert (list(trace.x), list(trace.y)) == ([1024, 2048], [1.0, 2.0])
    assert [list(mark) for mark in trace.customdata] == [["a", "<b>A</b>"], ["b", "<b>B</b>"]]
    lines = text.draw(drawn, width=40, height=8).plain.splitlines()
    marks = [(line.index("●"), k) for k, line in enumerate(lines[1:9]) if "●" in line]
    (right, above), (left, below) = marks
    assert right > left
    assert above < below
    assert "● low" in lines[1 + below]
    assert lines[-1].split() == ["KiB", "(log)", "●", "marks"]


def test_marks_without_a_letter_are_not_drawn_as_characters() -> None:
    drawn = chart(Point(1024, 1.0), Point(2048, 2.0))
    bare = Series("bare", (Point(1500, 1.5),), Look("square"))
    both = replace(drawn, series=(*drawn.series, bare))
    assert text.draw(both).plain == text.draw(drawn).plain


def test_names_are_text_everywhere() -> None:
    name = "<b>$x_1$ 漢"
    drawn = chart(Point(1024, 1.0, name, (name,), name), name=name)
    assert "<b>$" not in screen.draw(drawn).to_json().replace("\\u003c", "<")
    assert paper.draw(drawn).startswith(PNG)
    assert paper.printable(name) == r"<b>\$x_1\$ □"


def test_what_cannot_be_placed_is_left_out() -> None:
    drawn = chart(Point(1024, nan), Point(2048, 2.0, x_error=(nan, 1.0)))
    trace = screen.draw(drawn).data[0]
    assert list(trace.y) == [None, 2.0]
    assert list(trace.error_x.arrayminus) == [None, None]
    assert paper.draw(drawn).startswith(PNG)


def test_nothing_says_why_in_every_place() -> None:
    empty = nothing("Title", "because <it>")
    assert screen.draw(empty).layout.annotations[0].text == "because &lt;it&gt;"
    assert text.draw(empty).plain == "because <it>"
    assert paper.draw(empty).startswith(PNG)


def test_the_frontier_of_a_search_names_full_precision_and_what_was_chosen() -> None:
    drawn = charts.frontier(read_search(documents.search()))
    told = text.draw(drawn).plain
    assert "┄ full precision" in told
    assert "★" in told
    names = [trace.name for trace in screen.draw(drawn).data]
    assert names[0].startswith("full precision ")
    assert [*filter(None, names)][-1] == "chosen"


def test_cells_of_a_map_are_short_on_a_screen_and_have_their_error_on_paper() -> None:
    cells = charts.heat_map(read_sensitivity(documents.sensitivity())).cells
    assert cells is not None
    known = [cell for row in cells.rows for cell in row if cell and not cell.faint]
    assert known
    assert all("±" in cell.long and "±" not in cell.short for cell in known)
    assert all(cells.low <= cell.place <= cells.high for cell in known)


def test_a_figure_says_what_its_error_bars_are_on_screen_and_paper() -> None:
    def chart(error: float, *caption: str) -> Chart:
        point = Point(1, 1, y_error=(error, error))
        return Chart("a", caption, series=(Series("one", (point,)),))

    told = "bars: one standard error"
    assert chart(0.1, "note").notes == ("note", told)
    assert told in screen.draw(chart(0.1)).layout.title.text
    assert told.encode() in paper.draw(chart(0.1), "svg")
    assert chart(0.1, "bars: a day").notes == ("bars: a day",)
    assert chart(0).notes == chart(nan).notes == ()


@pytest.mark.parametrize(
    ("low", "high", "names"),
    [
        (1e-8, 1.0, ["1e−8", "1e−6", "1e−4", "0.01", "1"]),
        (0.05, 3.0, ["0.05", "0.1", "0.2", "0.5", "1", "2"]),
        (1.2, 6.0, ["1.5", "2", "3", "5"]),
        (30.0, 9000.0, ["50", "100", "200", "500", "1000", "2000", "5000"]),
        (1.02, 1.3, ["1.1", "1.2", "1.3"]),
    ],
)
def test_ticks_of_a_log_axis_are_whole_numbers(low, high, names) -> None:
    assert [tick.name for tick in log_ticks(low, high)] == names


def test_a_log_axis_has_its_ticks_in_every_drawing() -> None:
    marks = Series("marks", (Point(1, 0.002), Point(2, 0.8)))
    drawn = Chart("A title", x=Axis("x"), y=Axis("loss", "nats", log=True), series=(marks,))
    assert [tick.name for tick in ticked(drawn).y.ticks] == ["0.01", "0.1", "1"]
    assert list(screen.draw(drawn).layout.yaxis.ticktext) == ["0.01", "0.1", "1"]


def test_labels_find_a_free_side_or_are_left_to_the_hover_text() -> None:
    points = [Point(1.0, 1.0, label="first label"), Point(1.01, 1.0, label="second label")]
    points += [Point(2.0, 2.0, label="right edge", side="top right")]
    points += [Point(1.0 + k / 1000, 1.0, label="crowded") for k in range(8)]
    x, y = Axis("x", ends=(0.9, 2.0)), Axis("y", ends=(0.5, 2.2))
    drawn = labels.apart(Chart("A title", x=x, y=y, series=(Series("marks", tuple(points)),)))
    (series,) = drawn.series
    kept = [point for point in series.points if point.label]
    assert {"first label", "second label", "right edge"} <= {point.label for point in kept}
    assert kept[2].side.endswith("left")
    assert len(kept) < len(points)
    for width in labels.WIDTHS[1:]:
        boxes = [labels._box(drawn, series, point, point.side, width) for point in kept]
        for k, (left, top, right, bottom) in enumerate(boxes):
            assert 0 <= left < right <= width
            for other in boxes[k + 1 :]:
                beside = right <= other[0] or other[2] <= left
                assert beside or bottom <= other[1] or other[3] <= top


def every_chart() -> list[Chart]:
    """A chart of every kind that has bars."""
    search = documents.search()
    found, tuned = read_search(search), read_tuned(documents.tuned(search))
    pair = [read_sensitivity(documents.sensitivity(method=m)) for m in ("measured", "taylor")]
    return [
        charts.frontier(found, tuned=tuned),
        charts.frontier(found, FrontView(loss=True)),
        charts.fronts({"a": found, "b": found}),
        charts.fronts({"a": found, "b": found}, "change"),
        charts.tuned(tuned),
        charts.ranking(pair[0]),
        charts.ranking(pair[0], "additive"),
        charts.agreement_scatter(agreement(*pair)),
        charts.bandwidths(read_benchmark(documents.bench())),
    ]


def test_every_figure_says_what_its_bars_are() -> None:
    for drawn in every_chart():
        points = [point for series in drawn.series for point in series.points]
        assert any(isfinite(p.y_error[1]) or isfinite(p.x_error[1]) for p in points), drawn.title
        said = " ".join(drawn.caption)
        assert "bars: one standard error" in said or "bars: quartiles" in said, drawn.title


def test_the_front_of_text_is_drawn_by_what_is_lost() -> None:
    search = documents.search()
    accuracy = read_search(search)
    bits = read_search({**search, "metric": "bits_per_byte", "sign": -1})
    assert not accuracy.quantity.paired_first
    assert bits.quantity.paired_first
    drawn = charts.frontier(bits)
    assert drawn.y.title == "bits per byte lost to full precision"
    assert drawn.y.ticks[0].name == "none"
    assert "paired with full precision" in drawn.caption[0]
    assert not drawn.levels
    lowest = min(p.y for series in drawn.series for p in series.points)
    assert lowest == drawn.y.ticks[0].place > drawn.y.ends[0]
    assert text.draw(drawn).plain.splitlines()[0].startswith("bits per byte lost")
    assert "none ┤" in text.draw(drawn).plain
    assert charts.frontier(bits, FrontView(loss=False)).y.title.startswith("bits per byte on")
    assert charts.frontier(accuracy).y.title.startswith("accuracy (%) on")


def test_a_front_is_not_in_a_corner_and_says_what_lies_outside() -> None:
    found = gather(open_run(EXAMPLE)).search
    drawn = charts.frontier(found)
    front = [c for c in found.candidates if c.on_front]
    low, high = drawn.x.ends
    assert high <= 1.08 * 1.6 * max(c.total_bytes for c in front if c.on_front)
    points = [p for s in drawn.series for p in s.points if s.marks and s.name != "selected"]
    outside = [p for p in points if not (low <= p.x <= high) or not in_view(drawn, p)]
    assert outside
    assert f"{len(outside)} of " in drawn.caption[0]
    worst = outside[0].name
    seen = charts.frontier(found, FrontView(selected=(worst,)))
    place = next(p for s in seen.series if s.name == "selected" for p in s.points)
    assert seen.x.ends[0] <= place.x <= seen.x.ends[1]
    assert in_view(seen, place)


def test_uniform_plans_of_one_width_are_told_apart_and_every_plan_says_its_bytes_and_name() -> None:
    found = gather(open_run(EXAMPLE)).search
    one = next(c for c in found.candidates if c.uniform == "int6/head/asym/dynamic")
    more = replace(one, name="other", uniform="int6/head", total_bytes=one.total_bytes + 300)
    drawn = charts.frontier(replace(found, candidates=(*found.candidates, more)))
    points = [p for s in drawn.series for p in s.points if p.about]
    labels = {p.name: p.label for p in points}
    assert {labels[one.name], labels["other"]} <= {"int6/head/asym", "int6/head", ""}
    assert labels[one.name] != labels["other"]
    alone = next(p for s in charts.frontier(found).series for p in s.points if p.name == one.name)
    assert alone.label == "int6"
    for point in points:
        assert "KiB · " in point.about[0]  # never a bare hash
        assert point.about[-1] == f"plan {point.name}"


def in_view(drawn: Chart, point: Point) -> bool:
    return drawn.y.ends[0] <= point.y <= drawn.y.ends[1]


def test_marks_have_the_colours_of_the_ground() -> None:
    drawn = chart(Point(1024, 1.0), Point(2048, 2.0))
    light, dark = screen.draw(drawn).data[0], screen.draw(drawn, DARK).data[0]
    assert light.marker.color == Look().colour
    assert dark.marker.color == DARK.mark(Look().colour) != light.marker.color
