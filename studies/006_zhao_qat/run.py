"""Zhao et al. beside ours: what rounding after training costs a small S4D.

    python studies/006_zhao_qat/run.py [--data DIR]

Measures what ptq.jsonl lacks, and writes the tables of README.md. Training, which takes hours, is
`qat.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tables
from cells import HERE, STUDY
from posttraining import measure_missing
from qat import HOW_TO_GET

from sensprobe.cli.study import data_folder, run_study


def study(data: Path | None, run: Path) -> None:
    """Measure what is missing and write everything."""
    folder = STUDY["data"]["folder"]
    for text in measure_missing(data_folder(data, [folder], HOW_TO_GET) / folder):
        tables.write_readme()
        sys.stderr.write(f"{text}\n")
    tables.write_readme()


if __name__ == "__main__":
    sys.exit(run_study(HERE.name, __doc__.splitlines()[0], study))
