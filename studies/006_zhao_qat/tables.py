"""ptq.jsonl and qat.jsonl as the tables of README.md: text from numbers alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from statistics import fmean
from typing import Any

from cells import (
    HERE,
    PARAMETRIZATIONS,
    PTQ,
    QAT,
    STUDY,
    Cell,
    Widths,
    published_bits,
    published_grid,
    published_saving,
)

from sensprobe import api
from sensprobe.cli.study import Sections, markdown, over_seeds, read_lines, rendered, score
from sensprobe.documents.files import write_whole
from sensprobe.report.values import in_bytes, number

NOT_RUN = "not run"
Row = Mapping[str, Any]
Found = Mapping[str, list[Row]]


def read_results() -> dict[str, list[dict[str, Any]]]:
    """What was measured."""
    return {"ptq": read_lines(PTQ), "qat": read_lines(QAT)}


# -- post-training ---------------------------------------------------------------------------------


def measured(found: Found, who: str, H: int, **asked: Any) -> str:
    """The accuracy of a row of ptq.jsonl; what is not asked for is exact."""
    usual = {"weights": 0, "activations": 0, "A": 0, "x": 0, "time": "static", "gelu": "exact"}
    wanted = {"who": who, "H": H, **usual, **asked}
    rows = [row for row in found["ptq"] if wanted.items() <= row.items()]
    return score(rows[0]) if rows else NOT_RUN


def exact(found: Found) -> str:
    """Full precision, and what their GELU alone costs."""
    head = ["model", "published", "ours", "with their GELU", "W4A6 Ā16×x16, our GELU", "their GELU"]
    lines = []
    for H, published in STUDY["full"].items():
        widths = {"weights": 4, "activations": 6, "A": 16, "x": 16}
        lines.append([
            f"H = {H}", f"{published[0]} ± {published[1]}",
            measured(found, "authors", int(H)), measured(found, "authors", int(H), gelu="theirs"),
            measured(found, "authors", int(H), **widths),
            measured(found, "authors", int(H), **widths, gelu="theirs"),
        ])  # fmt: skip
    return markdown(head, lines)


def posttraining(found: Found) -> str:
    """The heterogeneous scheme after training: published, by their quantizer, and by ours."""
    grid = STUDY["grid"]
    head = ["Ā × x", "published, H = 64"]
    kinds = [f"ours, {state}" for state in STUDY["states"]]
    head += [f"{who}, H = {H}" for H in (64, 16) for who in ("theirs on our model", *kinds)]
    lines = []
    for A in grid["A"]:
        for x in grid["x"]:
            widths = {
                "weights": grid["weights"],
                "activations": grid["activations"],
                "A": A,
                "x": x,
            }
            line = [f"{A} × {x}", number(published_grid("PTQ", A, x), 1)]
            for H in (64, 16):
                line.append(measured(found, "authors", H, **widths, gelu="theirs"))
                line += [measured(found, "ours", H, **widths, time=s) for s in STUDY["states"]]
            lines.append(line)
    return markdown(head, lines)


def states(found: Found) -> str:
    """The state rounded alone by their quantizer."""
    head = ["H", "range", *(f"{bits} bits" for bits in STUDY["state"]["bits"])]
    lines = [
        [
            str(H),
            time,
            *(measured(found, "authors", H, x=b, time=time) for b in STUDY["state"]["bits"]),
        ]
        for H in map(int, STUDY["models"])
        for time in ("static", "live")
    ]
    return markdown(head, lines)


# -- training --------------------------------------------------------------------------------------


def settings_of(row: Row) -> tuple[Any, ...]:
    """How a row was trained, its seed aside."""
    return row["epochs"], row["lr"], row["ssm_lr"], row["state"]


def shown(found: Found, cell: Cell) -> list[Row]:
    """The rows of a cell that its figure is made of: all seeds of one way of training.

    Of several ways that with most seeds, then most epochs, then the best on the search split.
    """
    rows = sorted((r for r in found["qat"] if r["cell"] == cell.name), key=settings_of)
    ways = [list(group) for _, group in groupby(rows, settings_of)]
    return max(ways, key=_standing, default=[])


def _standing(rows: Iterable[Row]) -> tuple[float, ...]:
    rows = list(rows)
    return len(rows), rows[0]["epochs"], fmean(row["search"]["value"] for row in rows)


def mean_of(rows: list[Row]) -> dict[str, float]:
    """Mean accuracy on the test images, with its standard error."""
    return over_seeds([row["test"] for row in rows])


def trained(found: Found, cell: Cell) -> str:
    """The figure of a cell."""
    rows = shown(found, cell)
    return score(mean_of(rows)) if rows else NOT_RUN


def how(found: Found, cell: Cell) -> str:
    """Seeds, epochs and minutes of a cell."""
    rows = shown(found, cell)
    if not rows:
        return "–"
    minutes = fmean(row["seconds"] for row in rows) / 60
    return f"{len(rows)} × {rows[0]['epochs']} epochs, {minutes:.0f} min each"


def reached(found: Found, cell: Cell, published: list[float]) -> str:
    """Whether ours is at or above the published figure minus its error, which counts as 0 where the
    paper prints none."""
    rows = shown(found, cell)
    if not rows:
        return "–"
    bar = published[0] - (published[1] if len(published) > 1 else 0.0)
    return "yes" if mean_of(rows)["value"] >= bar else "**no**"


def _published(figure: list[float]) -> str:
    return " ± ".join(f"{part:.2f}" for part in figure)


def table(found: Found) -> str:
    """Table III: ours beside theirs."""
    head = [
        "H",
        "widths",
        "A trained",
        "published",
        "ours",
        "reached",
        "before tuning",
        "trained for",
    ]
    lines = []
    for row in STUDY["table"]:
        widths = Widths(*row["widths"])
        if row["method"] == "PTQ":
            asked = dict(zip(("weights", "activations", "A", "x"), row["widths"], strict=True))
            ours = measured(found, "authors", row["H"], **asked, gelu="theirs")
            lines.append([str(row["H"]), f"PTQ {widths.text}", "–", _published(row["published"]),
                          f"{ours} by their quantizer", "–", "–", "–"])  # fmt: skip
            continue
        for parametrization in STUDY["tuning"]["table"]:
            cell = Cell(row["H"], widths, parametrization)
            before = [line["before"] for line in shown(found, cell)][:1]
            lines.append([
                str(row["H"]), f"QAT {widths.text}", parametrization, _published(row["published"]),
                trained(found, cell), reached(found, cell, row["published"]),
                score(before[0]) if before else NOT_RUN, how(found, cell),
            ])  # fmt: skip
    return markdown(head, lines)


def grid(found: Found) -> str:
    """The corners of the grid and its middle, in each parametrization: published → ours."""
    asked = STUDY["grid"]
    head = ["Ā × x", *(c for p in PARAMETRIZATIONS for c in (f"{p}, published", "ours", "reached"))]
    lines = []
    for A, x in asked["corners"]:
        line = [f"{A} × {x}"]
        for parametrization in PARAMETRIZATIONS:
            widths = Widths(asked["weights"], asked["activations"], A, x)
            cell = Cell(asked["H"], widths, parametrization)
            published = published_grid(parametrization, A, x)
            line += [number(published, 1), trained(found, cell), reached(found, cell, [published])]
        lines.append(line)
    return markdown(head, lines)


def trials(found: Found) -> str:
    """Every way of training that was tried, judged on the search split."""
    head = [
        "cell",
        "epochs",
        "lr",
        "ssm_lr",
        "state",
        "seeds",
        "search split",
        "10,000 test images",
        "s each",
    ]
    rows = sorted(found["qat"], key=lambda row: (row["cell"], settings_of(row), row["seed"]))
    lines = []
    for (cell, *how), group in groupby(rows, lambda row: (row["cell"], *settings_of(row))):
        same = list(group)
        search = over_seeds([row["search"] for row in same])
        seconds = f"{fmean(row['seconds'] for row in same):,.0f}"
        lines.append([cell, *map(str, how), str(len(same)), score(search),
                      score(mean_of(same)), seconds])  # fmt: skip
    return markdown(head, lines) if lines else "None yet."


# -- memory ----------------------------------------------------------------------------------------


def memory(found: Found) -> str:
    """The memory of Table III: as printed, as they count, and as this product does."""
    head = ["H", "widths", "saved, published", "by their count", "times smaller, published",
            "the same of our float32", *(f"ours, {s}" for s in STUDY["states"])]  # fmt: skip
    lines = []
    for row in STUDY["table"]:
        if row["method"] == "PTQ":
            continue
        H, widths = row["H"], Widths(*row["widths"])
        model, theirs = STUDY["models"][str(H)], published_bits(H, widths) / 8
        full = api.cost(model)["total_bytes"]
        sizes = [api.cost(model, widths.plan(s))["total_bytes"] for s in STUDY["states"]]
        lines.append([
            str(H), widths.text, f"{row['saved']:.2f} %", f"{published_saving(H, widths):.2f} %",
            f"{1 / (1 - row['saved'] / 100):.2f}", f"{in_bytes(theirs)}, {full / theirs:.2f}×",
            *(f"{in_bytes(size)}, {full / size:.2f}×" for size in sizes),
        ])  # fmt: skip
    return markdown(head, lines)


# -- README ----------------------------------------------------------------------------------------

SECTIONS: Sections = {
    "exact": exact,
    "posttraining": posttraining,
    "states": states,
    "table": table,
    "grid": grid,
    "memory": memory,
    "trials": trials,
}


def write_readme() -> None:
    """The tables of README.md, from what was measured so far."""
    readme = HERE / "README.md"
    text = rendered(readme.read_text(encoding="utf-8"), SECTIONS, read_results())
    write_whole(readme, text.encode())
