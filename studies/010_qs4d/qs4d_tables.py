"""The tables of README.md, from results.jsonl."""

from __future__ import annotations

from typing import Any

from qs4d_cells import HERE, STUDY

from sensprobe.cli.study import markdown, over_seeds, read_lines, rendered, score
from sensprobe.documents.files import write_whole
from sensprobe.scores.score import Score

RESULTS, README = HERE / "results.jsonl", HERE / "README.md"
NOT_RUN = "not run"
CHANCE = 10.0
"""Accuracy in % of a guess among ten digits."""


def found_of(cell: str) -> list[dict[str, Any]]:
    """The lines of a cell, one a seed."""
    return [row for row in read_lines(RESULTS) if row["cell"] == cell]


def mean_of(rows: list[dict[str, Any]], key: str) -> dict[str, float]:
    """The mean of a score over the lines of a cell."""
    return over_seeds([row[key] for row in rows])


def reached(left: dict[str, float], n: int) -> bool:
    """Whether a difference to full precision is no loss beyond its error."""
    apart = Score(**left, n=n, clusters=n)
    return apart.value >= 0 or not apart.differs()


def bits() -> str:
    """Bits at which full-precision accuracy is reached, and what fewer cost, by part."""
    head = ["part", "published", "untrained: reached at", "below that", "trained at", "before"]
    head += ["after", "lost", "seeds"]
    lines = []
    for part in STUDY["part"]:
        first = [part["name"], part["published"] or "–", *_untrained(part)]
        for width in part["trained"] or [None]:
            rows = found_of(f"{part['name']}-{width}-trained")
            cells = ["–" if width is None else str(width)]
            if rows:
                before, after, left = (mean_of(rows, k) for k in ("before", "after", "left"))
                within = " ·" if reached(left, rows[0]["n"]) else ""
                lost = score({**left, "value": -left["value"]}, signed=True)
                cells += [score(before), score(after), lost + within, str(len(rows))]
            else:
                cells += ["–" if width is None else NOT_RUN] * 4
            lines.append([*first, *cells])
            first = [""] * len(first)
    return markdown(head, lines)


def _untrained(part: dict[str, Any]) -> list[str]:
    """The fewest bits from which on nothing is lost beyond its error, and the accuracy one step
    below them."""
    least, below = None, None
    for width in part["bits"]:
        rows = found_of(f"{part['name']}-{width}")
        if not rows:
            return [NOT_RUN, NOT_RUN]
        (row,) = rows
        if not reached(row["left"], row["n"]):
            below = f"{width}: {score(row['after'])}"
            break
        least = width
    return ["more" if least is None else str(least), below or "none lost"]


def noise() -> str:
    """What full precision and a model that is trained with noise keep under noise."""
    head = ["noise on all weights", "full precision", "of its margin", "trained", "of its margin"]
    columns = [_margins(cell) for cell in ("noise", "noise-trained")]
    lines = []
    for i, level in enumerate(STUDY["noise"]["levels"]):
        cells = [part for column in columns for part in (column[i] if column else [NOT_RUN] * 2)]
        lines.append([f"{level:.2%}", *cells])
    return markdown(head, lines)


def _margins(cell: str) -> list[list[str]]:
    """Accuracy and the share of the margin over chance at no noise, for each level."""
    rows = found_of(cell)
    if not rows:
        return []
    found = rows[0]["noise"]
    whole = found[0]["value"] - CHANCE  # the first level is none
    return [[score(row), f"{(row['value'] - CHANCE) / whole:.0%}"] for row in found]


def pruning() -> str:
    """What fewer kernels cost, before training and after."""
    head = ["kernels of 64", "taken", "before training", "after", "to all of them", "seeds"]
    lines = []
    for kernels in STUDY["pruning"]["kernels"]:
        rows, first = found_of(f"kernels-{kernels}"), [str(kernels), f"{1 - kernels / 64:.1%}"]
        if not rows:
            lines.append([*first, *[NOT_RUN] * 4])
            continue
        before, after, left = (mean_of(rows, k) for k in ("before", "after", "left"))
        within = " ·" if reached(left, rows[0]["n"]) else ""
        cells = [score(before), score(after), score(left, signed=True) + within, str(len(rows))]
        lines.append([*first, *cells])
    return markdown(head, lines)


def size() -> str:
    """Widths against bits: bytes, accuracy after training, and the same under noise."""
    head = ["width", "bits", "bytes, weights and state", "accuracy", "under noise", "seeds"]
    lines = []
    for width in STUDY["size"]["widths"]:
        for depth in STUDY["size"]["bits"]:
            rows = found_of(f"width-{width}-{depth}")
            first = [str(width), str(depth)]
            if not rows:
                lines.append([*first, *[NOT_RUN] * 4])
                continue
            noisy = over_seeds([row["noise"][0] for row in rows])
            lines.append([
                *first, f"{rows[0]['bytes']:,}", score(mean_of(rows, "after")), score(noisy),
                str(len(rows)),
            ])  # fmt: skip
    return markdown(head, lines)


def write_readme() -> None:
    text = README.read_text(encoding="utf-8")
    sections = {table.__name__: (lambda _, table=table: table()) for table in TABLES}
    write_whole(README, rendered(text, sections, {}).encode())


TABLES = (bits, noise, pruning, size)
