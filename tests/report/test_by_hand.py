"""The plan made by hand stands beside the chosen one, and terminals cut none of its numbers."""

from __future__ import annotations

import pytest
import report_documents as documents
from rich.console import Console

from sensprobe.report import rows, tables
from sensprobe.report.prose import about_confirmation
from sensprobe.report.read import read_confirmation, read_search
from sensprobe.report.results import Confirmation, Search
from sensprobe.report.terminal import chosen_table, confirmed_table

ABOUT = "int4/head/asym/dynamic, layers.*.A in int8/head/asym/dynamic"


def found() -> tuple[Search, Confirmation]:
    """A search and a confirmation whose first budget has a plan made by hand."""
    search = documents.search()
    choice = search["chosen"][0]
    fits = [c for c in search["candidates"] if not c["uniform"] and not c["stopped_early"]]
    choice |= {"hand": fits[0]["name"], "hand_about": ABOUT}
    confirmed = documents.confirmation(search)
    confirmed["plans"][0]["against_hand"] = {
        "about": ABOUT,
        "candidate": fits[0]["name"],
        "total_bytes": 5120,
        "radius": 1.01,
        "metric": {"value": 0.955, "stderr": 0.008},
        "difference": {"value": 0.0123, "stderr": 0.002},
    }
    return read_search(search), read_confirmation(confirmed)


def test_it_is_in_every_table_and_sentence() -> None:
    search, confirmed = found()
    table = tables.chosen(search)
    assert [p for p in table["plan"] if p.startswith("by hand")] == [f"by hand: {ABOUT}"]
    shown = tables.confirmation(confirmed)
    row = shown[shown["plan"] == f"by hand: {ABOUT}"].iloc[0]
    assert row["total (KiB)"] == "5.00"
    assert row["accuracy (%)"].startswith("▲ 95.5")
    assert shown["against hand"].iloc[0] == "+1.23 ± 0.20"
    numbers = rows.confirmation_rows(confirmed)
    assert numbers["by hand"][0] == ABOUT
    assert numbers["against by hand (points)"][0] == pytest.approx(1.23)
    assert f"By hand ({ABOUT}), 5.00 KiB" in " ".join(about_confirmation(confirmed))


def test_documents_of_before_have_none() -> None:
    confirmed = read_confirmation(documents.confirmation())
    assert "against hand" not in tables.confirmation(confirmed)
    assert confirmed.plans[0].hand is None


@pytest.mark.parametrize("width", [48, 60, 80, 100])
def test_a_terminal_cuts_no_number(width: int) -> None:
    search, confirmed = found()
    for table, frame in (
        (chosen_table(search), tables.chosen(search)),
        (confirmed_table(confirmed), tables.confirmation(confirmed)),
    ):
        console = Console(width=width, highlight=False)
        with console.capture() as captured:
            console.print(table)
        text = captured.get()
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        for name in frame.columns[2:]:
            for value in frame[name]:
                assert value == "–" or str(value) in text, (name, value)
