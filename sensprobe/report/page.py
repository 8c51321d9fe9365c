"""One HTML page that needs nothing beside itself: figures, tables, and how each was measured.

plotly.js is inlined once; a policy in the page forbids loading anything. Text from plans and models
is escaped. Figures follow the reader's light or dark setting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from plotly.offline import get_plotlyjs

from sensprobe.report.contents import Figure, Section, sections
from sensprobe.report.dataframes import pd
from sensprobe.report.drawing import screen
from sensprobe.report.frame import FRAME
from sensprobe.report.gather import Results
from sensprobe.report.prose import method_notes
from sensprobe.report.theme import THEMES
from sensprobe.report.values import NOISE, UNSTABLE

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)


def html_table(frame: pd.DataFrame) -> str:
    """A table of text; noise is faint, an unstable recurrence marked."""
    if frame.index.name is not None:
        frame = frame.reset_index()
    left = [any(_is_words(str(v)) for v in frame.iloc[:, k]) for k in range(frame.shape[1])]
    head = "".join(_cell("th", n, words) for n, words in zip(frame.columns, left, strict=True))
    body = "".join(
        f"<tr>{''.join(_cell('td', v, words) for v, words in zip(row, left, strict=True))}</tr>"
        for row in frame.itertuples(index=False, name=None)
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _is_words(text: str) -> bool:
    """Return whether a cell is a name rather than a number."""
    return "±" not in text and re.search(r"[^\W\d_]{2}", text) is not None


def _cell(tag: str, value: object, words: bool) -> str:
    text = str(value)
    kinds = ["text"] * words
    kinds += ["noise"] * text.startswith(NOISE) + ["unstable"] * text.startswith(UNSTABLE)
    return f'<{tag} class="{" ".join(kinds)}">{escape(text)}</{tag}>'


def render(found: Results, contents: Sequence[Section] | None = None) -> str:
    """The whole page: its sections, how everything was measured, and what is missing."""
    blocks: list[str] = []
    figures: list[dict[str, Any]] = []
    for section in sections(found) if contents is None else contents:
        blocks.append(f"<h2>{escape(section.title)}</h2>")
        blocks += [f"<p>{escape(sentence)}</p>" for sentence in section.sentences]
        for block in section.blocks:
            if isinstance(block, Figure):
                name = f"figure-{len(figures)}"
                drawn = json.loads(screen.draw(block.chart).to_json())
                drawn["layout"].pop("template", None)  # put in where it is drawn, in the theme
                figures.append({"id": name, **drawn})
                style = f"height:{block.chart.height}px"
                blocks.append(f'<div class="figure" id="{name}" style="{style}"></div>')
            else:
                summary = f"<summary>{escape(block.caption)}</summary>"
                folded = "<details open>" if block.open else "<details>"
                blocks.append(f"{folded}{summary}{html_table(block.frame)}</details>")
    notes = ("How it was measured", method_notes(found)), ("What is missing", found.missing)
    for title, items in notes:
        if items:
            listed = "".join(f"<li>{escape(item)}</li>" for item in items)
            blocks.append(f"<h2>{escape(title)}</h2><ul>{listed}</ul>")
    about = f"{found.model} on {found.data}"
    started = found.created[:19].replace("T", " ")
    facts = f"run {found.run}, started {started} UTC, sensprobe {found.tool}"
    parts = {
        "policy": POLICY,
        "title": escape(about),
        "facts": escape(facts),
        "body": "\n".join(blocks),
        "figures": script_json(figures),
        "themes": script_json(_themes()),
        "plotly": get_plotlyjs().replace("</script", "<\\/script") if figures else "",
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda gap: parts[gap[1]], FRAME)  # one pass: text stays text


def _themes() -> dict[str, Any]:
    return {
        name: {
            "template": screen.template(theme).to_plotly_json(),
            "diverging": screen.scale(theme.diverging),
            "sequential": screen.scale(theme.sequential),
            "marks": dict(theme.marks),
        }
        for name, theme in THEMES.items()
    }


def script_json(value: Any) -> str:
    """JSON that cannot end the script it stands in."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
