"""Kill workers, what they are forked from, and the command itself at random, while it searches.

    python studies/011_workers_that_die/run.py [--workers 2|ray:2] [--kills 200] [--seed 0]

All plans of a small space are evaluated by one process in peace, and by commands with workers,
each run again whenever it ends early, for as many searches as the kills take. What a disturbed run
holds is compared with the other to the bit. A line of result.jsonl says what was found. Linux: it
looks for processes in /proc.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from sensprobe import api
from sensprobe.cli.study import append_line, markdown, read_lines, rendered, reported
from sensprobe.documents.files import write_whole
from sensprobe.runs import Evaluation, EvaluationKey, Run, open_run
from sensprobe.runs.record import key_of, unseal

HERE = Path(__file__).parent
SCHEMES = [f"int{bits}/head/asym/dynamic" for bits in (8, 6, 5, 4)]
FROZEN = ("encoder*", "layers.*.[BD]", "*.bias")
BUDGET, LIMIT = "1800", 96
TARGETS = {"worker": 16, "worker, frozen for a second": 1, "nursery": 1, "command": 2}
"""What is sent a signal, and how often of twenty."""
WRONG = ("lost", "beyond", "twice", "wrong", "other_fronts")
FOUND = ("searches", "evaluations", *WRONG)
PAUSE = (0.02, 0.12)  # seconds between two


def command(run: Path, workers: str) -> list[str]:
    freeze = [word for one in FROZEN for word in ("--freeze", f"{one}={SCHEMES[0]}")]
    return [
        *(sys.executable, "-m", "sensprobe", "search", "--run", str(run), "--budget", BUDGET),
        *("--method", "exhaustive", "--limit", str(LIMIT), "--workers", workers, *freeze),
    ]


@reported
def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--workers", default="2")
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    draw, began = random.Random(asked.seed), time.monotonic()
    sent, endings, found = Counter[str](), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        peace = Path(name) / "peace"
        api.profile("s4d-digits", "digits", peace, SCHEMES, limit=LIMIT)
        subprocess.run(command(peace, "1"), check=True, capture_output=True)
        while sent.total() < asked.kills:
            run = Path(name) / f"disturbed{found['searches']}"
            api.profile("s4d-digits", "digits", run, SCHEMES, limit=LIMIT)
            signals, codes = disturb(run, asked.workers, asked.kills - sent.total(), draw)
            sent, endings = sent + signals, endings + codes
            found += compared(open_run(peace), open_run(run))
            print(dict(sent), dict(endings), dict(found), flush=True)
    row = {
        "workers": asked.workers,
        "seed": asked.seed,
        "signals": dict(sent),
        "commands": dict(endings),
        "seconds": round(time.monotonic() - began),
        **{name: found[name] for name in FOUND},
        "date": date.today().isoformat(),
    }
    append_line(HERE / "result.jsonl", row)
    write_readme()
    return int(any(found[name] for name in WRONG))


def write_readme() -> None:
    """The table of README.md, made anew of result.jsonl."""
    readme = HERE / "README.md"
    sections = {"result": lambda found: table_of(found["rows"])}
    found = {"rows": read_lines(HERE / "result.jsonl")}
    text = rendered(readme.read_text(encoding="utf-8"), sections, found)
    write_whole(readme, text.encode())


def table_of(rows: list[dict[str, Any]]) -> str:
    """Every run of this study, a line each."""
    head = ("workers", "signals", "commands ended with", "s", *(n.replace("_", " ") for n in FOUND))
    lines = [
        [
            row["workers"],
            ", ".join(f"{count} {name}" for name, count in row["signals"].items()),
            ", ".join(f"{count} × {code}" for code, count in row["commands"].items()),
            f"{row['seconds']:,}",
            *(f"{row[name]:,}" for name in FOUND),
        ]
        for row in rows
    ]
    return markdown(head, lines)


def disturb(
    run: Path, workers: str, kills: int, draw: random.Random
) -> tuple[Counter[str], Counter[str]]:
    """Run the command to its end, and again where it ends early, while signals are sent; how many
    of each kind, and how commands ended."""
    sent, endings = Counter[str](), Counter[str]()
    while True:
        with subprocess.Popen(
            command(run, workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as asking:
            while asking.poll() is None:
                time.sleep(draw.uniform(*PAUSE))
                if sent.total() < kills and any(processes("worker", asking.pid)):
                    [kind] = draw.choices(list(TARGETS), list(TARGETS.values()))
                    sent[kind] += struck(kind, asking.pid, draw)
        endings[str(asking.returncode)] += 1
        if asking.returncode == 0:
            return sent, endings


def struck(kind: str, asking: int, draw: random.Random) -> int:
    """Send a process of a kind its signal; how many were there to be sent one: 1 or 0."""
    found = sorted(processes(kind.split(",")[0], asking))
    if not found:
        return 0
    target = draw.choice(found)
    try:
        if "frozen" in kind:
            os.kill(target, signal.SIGSTOP)
            time.sleep(1)
            os.kill(target, signal.SIGCONT)
        else:
            os.kill(target, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def processes(kind: str, asking: int) -> Iterator[int]:
    """The processes of a command: itself, what its workers are forked from, its workers."""
    if kind == "command":
        yield asking
        return
    nurseries = [pid for pid, parent, words in table() if parent == asking and "nursery" in words]
    if kind == "nursery":
        yield from nurseries
        return
    for pid, parent, words in table():
        if parent in nurseries or words.startswith("ray::Actor"):
            yield pid


def table() -> Iterator[tuple[int, int, str]]:
    """Every process: its id, its parent's, its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        yield int(folder.name), parent, words


def compared(peace: Run, disturbed: Run) -> Counter[str]:
    """What the disturbed run holds, beside the other, counted as in FOUND."""
    written = Counter(keys(disturbed))
    want = {e.key: e for e in peace.evaluations()}
    have = {e.key: e for e in disturbed.evaluations()}
    fronts = [run.read_result("search") for run in (peace, disturbed)]
    scores = [{c["plan_fingerprint"]: c["metric"] for c in f["candidates"]} for f in fronts]
    chosen = [[c["candidate"] for c in f["chosen"]] for f in fronts]
    return Counter(
        {
            "searches": 1,
            "evaluations": len(want),
            "lost": len(want.keys() - have.keys()),
            "beyond": len(have.keys() - want.keys()),
            "twice": sum(count - 1 for count in written.values()),
            "wrong": sum(not alike(want[key], have[key]) for key in want.keys() & have.keys()),
            "other_fronts": int(scores[0] != scores[1] or chosen[0] != chosen[1]),
        }
    )


def keys(run: Run) -> Iterator[EvaluationKey]:
    """The key of every evaluation, as often as it is written."""
    for file in sorted((run.path / "evaluations").glob("*.jsonl")):
        for line in file.read_bytes().splitlines():
            document = unseal(line)
            if document is not None and document["kind"] == "evaluation":
                yield key_of(document)


def alike(one: Evaluation, other: Evaluation) -> bool:
    return one.arrays.keys() == other.arrays.keys() and all(
        (one.arrays[name] == other.arrays[name]).all() for name in one.arrays
    )


if __name__ == "__main__":
    raise SystemExit(main())
