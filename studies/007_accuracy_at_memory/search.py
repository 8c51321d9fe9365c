"""Find the plans of study.toml that are not made by hand, and keep them in plans/.

    python studies/007_accuracy_at_memory/search.py [--data DIR] [--run DIR]

DIR holds mnist/, the four IDX files. A profile and a search a model, as `sensprobe profile` and
`sensprobe search` make them; a model all of whose plans are kept is left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

from train import HERE, HOW_TO_GET, STUDY, bytes_of_model, model_of

from sensprobe import api
from sensprobe.cli.study import data_folder, run_study
from sensprobe.documents.files import write_whole
from sensprobe.errors import UsageError


def search(data: Path | None, run: Path) -> None:
    folder = STUDY["data"]["folder"]
    mnist = data_folder(data, [folder], HOW_TO_GET) / folder
    searched = [plan for plan in STUDY["plan"] if "schemes" not in plan]
    for name, states in dict.fromkeys((p["model"], p.get("states")) for p in searched):
        plans = [p for p in searched if (p["model"], p.get("states")) == (name, states)]
        if all((HERE / "plans" / f"{plan['name']}.json").exists() for plan in plans):
            continue
        model, how = model_of(plans[0], mnist, run), dict(STUDY["search"])
        how |= STUDY["pruned"]["search"] if states else {}
        own, limit = run / f"{name}-{states or 'all'}-run", how["limit"]
        api.profile(
            model, f"mnist:{mnist}", own, how["schemes"], method=how["method"],
            limit=how["profiled"],
        )  # fmt: skip
        budgets = [int(bytes_of_model(name) / plan["times"]) for plan in plans]
        found = api.search(
            own, budgets, limit=limit, evaluations=how["evaluations"], confirm=False,
        )["search"]  # fmt: skip
        for plan, choice in zip(plans, found["chosen"], strict=True):
            if choice["plan_file"] is None:
                raise UsageError(f"{plan['name']}: no plan that was evaluated fits.")
            kept = HERE / "plans" / f"{plan['name']}.json"
            kept.parent.mkdir(exist_ok=True)
            write_whole(kept, (own / choice["plan_file"]).read_bytes())


if __name__ == "__main__":
    sys.exit(run_study(HERE.name, __doc__.splitlines()[0], search))
