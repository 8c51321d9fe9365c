"""The tables of README.md, from rounded.jsonl and trained.jsonl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from subject import ALL_THREE, CONFIGURATIONS, FUNCTIONS, HERE, ROUNDED, STUDY, TRAINED

from sensprobe.cli.study import markdown, over_seeds, read_lines, rendered, score
from sensprobe.documents.files import write_whole

README = HERE / "README.md"
NOT_RUN = "not run"
MODELS: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in STUDY["model"]}


def rounded_row(model: str, functions: str, configuration: str, way: str) -> str:
    """A cell of the tables of what is not trained."""
    wanted = {
        "model": model, "functions": functions, "configuration": configuration, "way": way
    }  # fmt: skip
    rows = (row for row in read_lines(ROUNDED) if wanted.items() <= row.items())
    found = next(rows, None)
    return NOT_RUN if found is None else score(found)


def trained_rows(model: str, cell: str) -> list[dict[str, Any]]:
    wanted = {"model": model, "cell": cell}
    return [row for row in read_lines(TRAINED) if wanted.items() <= row.items()]


def configurations(model: str) -> str:
    """What the configurations cost, the state in the tree, exact, and rounded at every step."""
    published = "published" in MODELS[model]
    head = ["configuration", *(["published"] if published else []), "in their tree"]
    head += ["state exact", "state rounded at every step", "so, static ranges (the preset)"]
    lines = []
    for name, row in CONFIGURATIONS.items():
        found = [rounded_row(model, ALL_THREE, name, way) for way in _WAYS]
        if name == "full precision":
            found = ["–", rounded_row(model, ALL_THREE, name, "exact state"), "–", "–"]
        lines.append([name, *([str(row["published"])] if published else []), *found])
    return markdown(head, lines)


_WAYS = ("tree", "exact state", "rounded state", "preset")


def functions(model: str) -> str:
    """What W8A8 costs with the functions of the paper in place of those that were trained."""
    published = "published" in MODELS[model]
    head = ["functions", *(["published"] if published else []), "in their tree"]
    head.append("state rounded at every step")
    full = rounded_row(model, "as trained", "full precision", "exact state")
    first = f"{CONFIGURATIONS['full precision']['published']}"
    lines = [["full precision", *([first] if published else []), full, full]]
    for name, row in FUNCTIONS.items():
        cells = [f"{row['published']:.2f}"] if published else []
        ways = (rounded_row(model, name, "W8A8", way) for way in ("tree", "rounded state"))
        lines.append([name, *cells, *ways])
    return markdown(head, lines)


def trained(model: str) -> str:
    """What training under a configuration and under a searched plan leaves."""
    head = [
        "plan",
        "wanted: lost, at most",
        "bits",
        "full",
        "before",
        "after",
        "lost",
        "seeds",
        "steps",
    ]
    lines = []
    for asked in (*STUDY["trained"], STUDY["searched"]):
        rows = trained_rows(model, asked["name"])
        cells = [asked["name"], f"{asked['lost']:.1f}"]
        if rows:
            cells += [f"{rows[0]['effective_bits']:.2f}"]
            cells += [
                score(over_seeds([r[key] for r in rows])) for key in ("full", "before", "after")
            ]
            lost = over_seeds([r["left"] for r in rows])
            cells.append(score({**lost, "value": -lost["value"]}, signed=True))
            cells += [str(len(rows)), str(rows[0]["steps"])]
        lines.append(cells if rows else [*cells, *[NOT_RUN] * (len(head) - len(cells))])
    return markdown(head, lines)


def recurrent_weights(model: str) -> str:
    """What A alone costs in few bits, in two formats, and after training under it."""
    head = ["bits of A", "cartesian", "trained", "log-polar", "scheme", "trained", "seeds"]
    lines = []
    for row in STUDY["A"]:
        cells, seeds = [str(row["bits"])], []
        for kind in ("cartesian", "logpolar"):
            rows = trained_rows(model, f"A{row['bits']}-{kind}")
            before, after = (
                score(over_seeds([r[key] for r in rows])) if rows else NOT_RUN
                for key in ("before", "after")
            )
            seeds.append(str(len(rows)))
            cells += [before, after] if kind == "cartesian" else [before, f"`{row[kind]}`", after]
        lines.append([*cells, ", ".join(dict.fromkeys(seeds))])
    return markdown(head, lines)


_TABLES: tuple[Callable[[str], str], ...] = (configurations, functions, trained, recurrent_weights)


def sections() -> dict[str, Callable[[Any], str]]:
    """Name of a section of README.md -> the function that writes it."""
    return {
        f"{table.__name__} of {model}": lambda _, table=table, model=model: table(model)
        for model in MODELS
        for table in _TABLES
    }


def write_readme() -> None:
    text = README.read_text(encoding="utf-8")
    write_whole(README, rendered(text, sections(), {}).encode())
