"""The console of the command line: the text of names is shown and never obeyed.

Names of models, plans, budgets and files may come from files that others made. No text is read as
markup or as the name of an emoji, and what a terminal would act on is replaced in all that is
printed, tables included.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from sensprobe.documents import printable


class PlainConsole(Console):
    """A console of rich without markup, that sends no control characters of texts."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
