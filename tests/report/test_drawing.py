"""One chart says the same on a screen, on paper and in a terminal."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import report_documents as documents

from sensprobe.report import charts
from sensprobe.report.charts.chart import Axis, Chart, Look, Point, Series, Tick, nothing
from sensprobe.report.drawing import paper, screen, text
from sensprobe.report.read import read_search, read_sensitivity

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
