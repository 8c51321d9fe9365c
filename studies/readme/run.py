"""Draw the README's pictures: those of the demo's report.

python studies/readme/run.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from sensprobe import api
from sensprobe.cli.demo import BUDGETS, DATA, EVALUATIONS, MODEL

HERE = Path(__file__).parent
PICTURES = {"sensitivity.png": "sensitivity-measured-metric.png", "frontier.png": "frontier.png"}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        api.profile(MODEL, DATA, run)
        api.search(run, BUDGETS, evaluations=EVALUATIONS)
        report = Path(api.report(run)["folder"])
        for name, drawn in PICTURES.items():
            shutil.copyfile(report / drawn, HERE / name)


if __name__ == "__main__":
    main()
