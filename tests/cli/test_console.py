"""What names hold is printed, and neither read as markup nor obeyed by a terminal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rich.table import Table
from rich.text import Text

from sensprobe.cli.bar import Bar
from sensprobe.cli.console import PlainConsole

NAME = "\x1b[31m[red]a[/red] [/b] :smile: `c`|\a\u202e"
SHOWN = "�[31m[red]a[/red] [/b] :smile: `c`"  # what a table measured is less than what it shows


def _table(name: str) -> Table:
    table = Table(name, box=None)
    table.add_row(Text(name))
    return table


@pytest.mark.parametrize(
    "show",
    [
        lambda console: console.print(NAME),
        lambda console: console.print(Text(NAME)),
        lambda console: console.print(_table(NAME)),
        lambda console: Bar(console).note(NAME),
        lambda console: Bar(console).begin(NAME, 1, seconds=3),
    ],
)
def test_names(show: Callable[[PlainConsole], None], capsys: pytest.CaptureFixture[str]) -> None:
    show(PlainConsole(width=100))
    printed = capsys.readouterr().out
    assert SHOWN in printed
    assert not set("\x1b\a\u202e") & set(printed)
