"""Ask what each search finds of the yardstick's front; result.csv and curves.png answer.

python run.py                   replays the searches on the stored enumeration (a few minutes)
python run.py --enumerate RUN   measures the enumeration anew, every plan for real, in a run folder
"""

from __future__ import annotations

import argparse
from pathlib import Path

import enumeration
import figure
from enumeration import STUDY, load_enumeration
from replay import Yardstick, replay
from results import read_quartiles, table, write_result


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--enumerate", type=Path, metavar="RUN", help="measure every plan anew")
    asked.add_argument("--model", default="", help="another model than the study's")
    asked.add_argument("--data", default="", help="other data than the study's")
    asked.add_argument("--folder", type=Path, default=enumeration.HERE, help="where results lie")
    asked.add_argument("--seeds", type=int, default=STUDY["yardstick"]["seeds"])
    given = asked.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.enumerate:
        enumeration.enumerate_plans(given.enumerate, given.folder, given.model, given.data)
    yardstick = Yardstick(load_enumeration(given.folder), STUDY["yardstick"]["evaluations"])
    found = replay(yardstick, given.seeds)
    bar = STUDY["yardstick"]["bar"]
    write_result(given.folder / "result.csv", found)
    quartiles = read_quartiles(given.folder / "result.csv")
    (given.folder / "curves.png").write_bytes(figure.curves(quartiles, bar))
    print(table(found, bar))


if __name__ == "__main__":
    main()
