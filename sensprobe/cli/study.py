"""The frame of every study: it finds data, runs, and writes results into its README.

Kept with the package so that every `studies/NNN_question/run.py` holds its question alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from sensprobe.documents.files import between, write_whole
from sensprobe.errors import SensprobeError, UsageError
from sensprobe.report.values import Measured, plus_minus

if TYPE_CHECKING:
    from sensprobe.train import Progress


def data_folder(given: Path | None, needed: Iterable[str], how_to_get: str) -> Path:
    """The folder of a study's data: `given`, else SENSPROBE_DATA; UsageError says how to get it.

    `needed` are the files and folders that must be in it.
    """
    named = given or os.environ.get("SENSPROBE_DATA")
    if not named:
        raise UsageError(how_to_get)
    folder = Path(named).expanduser().resolve()
    lacking = [str(folder / part) for part in needed if not (folder / part).exists()]
    if lacking:
        raise UsageError(f"{' and '.join(lacking)} not found; {how_to_get}")
    return folder


def reported(main: Callable[[], int]) -> Callable[[], int]:
    """The `main` of a study, whose exit code also says of an error, which is printed, and of an
    interruption, with what to do next."""

    @wraps(main)
    def guarded() -> int:
        try:
            return main()
        except SensprobeError as error:
            sys.stderr.write(f"{error}\n")
            return error.exit_code
        except KeyboardInterrupt:
            sys.stderr.write("\nStopped. The same command goes on from there.\n")
            return 130

    return guarded


def run_study(name: str, about: str, study: Callable[[Path | None, Path], None]) -> int:
    """Parse --data and --run, call `study(data, run)`; returns the exit code of the process."""
    options = argparse.ArgumentParser(description=about)
    options.add_argument("--data", type=Path, help="folder of the data; default SENSPROBE_DATA")
    options.add_argument("--run", type=Path, help="run folder; default in the temporary folder")
    chosen = options.parse_args()
    run = chosen.run or Path(tempfile.gettempdir()) / "sensprobe-studies" / name
    began = time.monotonic()

    @reported
    def ran() -> int:
        study(chosen.data, run)
        sys.stderr.write(f"done in {time.monotonic() - began:.0f} s; evaluations kept in {run}\n")
        return 0

    return ran()


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and the others numbers."""
    align = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, align, *lines))


def score(found: Mapping[str, Any], *, signed: bool = False) -> str:
    """A value and its standard error, to the digits the error bears."""
    return plus_minus(Measured(found["value"], found["stderr"]), signed=signed)


def over_seeds(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of scores, one a seed, with the error of the samples and, of several seeds, of these
    too."""
    values = [found["value"] for found in scores]
    samples = fmean(found["stderr"] ** 2 for found in scores)
    seeds = stdev(values) ** 2 / len(values) if len(values) > 1 else 0.0
    return {"value": fmean(values), "stderr": sqrt(samples + seeds)}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The results in a file, a JSON object a line; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add a result to a file in one write, so that several processes may add to it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def tell_legs(progress: Progress) -> None:
    """Print the loss of a training and its score on held-out samples after each leg."""
    if progress.validation is not None:
        sys.stderr.write(
            f"  leg {progress.epoch} of {progress.epochs}: loss {progress.loss:.4f}, held out "
            f"{progress.validation:.4f} {progress.metric}\n"
        )


def dump(found: Mapping[str, Any]) -> str:
    """JSON that a diff can be read of: one line a row."""
    lines = []
    for key, value in found.items():
        if isinstance(value, list):
            rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in value)
            lines.append(f' "{key}": [\n{rows}\n ]')
        else:
            lines.append(f' "{key}": {json.dumps(value, ensure_ascii=False)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


Sections = Mapping[str, Callable[[Mapping[str, Any]], str]]
"""Name of a section of a README -> the function that writes it from the results."""


def rendered(text: str, sections: Sections, found: Mapping[str, Any]) -> str:
    """A README with each section between its markers made anew; ValueError where one lacks."""
    for name, make in sections.items():
        begin, end = f"<!-- {name}: written by run.py -->", f"<!-- end of {name} -->"
        text = between(text, begin, end, make(found))
    return text


def write_results(
    folder: Path, found: Mapping[str, Any], sections: Sections, pictures: Mapping[str, bytes]
) -> None:
    """results.json, the pictures, and the tables of README.md, each file whole."""
    write_whole(folder / "results.json", dump(found).encode())
    for name, content in pictures.items():
        write_whole(folder / name, content)
    readme = folder / "README.md"
    write_whole(readme, rendered(readme.read_text(encoding="utf-8"), sections, found).encode())
