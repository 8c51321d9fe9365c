"""Names as a Markdown card may show them: they stay names, whoever chose them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SIGNS = re.compile(r"([\\`*_{}\[\]()#!|~$<>&])")
_LONGEST = 200


def plain(text: str) -> str:
    """Text that shows itself: one line, no markup, no HTML, no table cell of its own."""
    return (
        _SIGNS.sub(r"\\\1", one_line(text))
        .replace("\\<", "&lt;")
        .replace("\\>", "&gt;")
        .replace("\\&", "&amp;")
    )


def one_line(text: str) -> str:
    """Text without line ends and control characters, of a limited length."""
    kept = "".join(c if c.isprintable() else " " for c in text[: _LONGEST + 1])
    short = kept if len(kept) <= _LONGEST else kept[: _LONGEST - 1] + "…"
    return " ".join(short.split())


def code(text: str) -> str:
    """Text as code inside a line, or in a cell of a table: more backticks around than inside."""
    inner = one_line(text).replace("|", "\\|")
    most = max((len(run) for run in re.findall(r"`+", inner)), default=0)
    marks, space = "`" * (most + 1), " " * (most > 0)
    return f"{marks}{space}{inner or ' '}{space}{marks}"


def fenced(lines: Sequence[str], language: str = "") -> str:
    """A block of code; a line that would end it is not taken for its end."""
    kept = [line.replace("```", "` ` `") for line in lines]
    return "\n".join([f"```{language}", *kept, "```"])


def table(head: list[str], rows: list[list[str]], words: int | None = None) -> str:
    """A table whose first `words` columns (all, where None) are words, the others numbers."""
    count = len(head) if words is None else words
    lines = [head, ["---"] * count + ["---:"] * (len(head) - count), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
