"""How long profiling and searching take as a model gets deeper: twice the layers, twice the time?

    python studies/000_speed/growth.py [--layers 12 24 48] [--rounds 1] [--only profile]

Random Mambas of one width (d_model 64) that differ in depth alone, on 16 windows of 512 bytes. Two
jobs: `profile --method taylor --by site` with three schemes, and a `search` of 20 evaluations that
starts from that profile. Each depth runs in a process of its own on one thread, the depths by
turns; a process first does both jobs on a model of one layer, which loads and compiles what is
needed. Kept are the medians of the rounds; `--only profile` leaves the search out.

Writes growth.json and growth.png beside this file, and prints a table whose ratios are each
depth's processor time over that of the depth before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

WIDTH, WINDOWS, EVALUATIONS = 64, 16, 20
SCHEMES = ["int8/dynamic", "int6/dynamic", "int4/dynamic"]
BUDGET = 0.2  # of the bytes of full precision
DOCUMENTS, WORDS = 64, ("the", "state", "of", "a", "model", "decays", "while", "steps", "go", "on")
LAYERS = (12, 24, 48)
JOBS = ("profile", "search")
HERE = Path(__file__).parent


def write_model(path: Path, layers: int) -> Path:
    """A checkpoint of a random byte-level Mamba, as training starts from it."""
    from sensprobe.models.mamba import MambaConfig
    from sensprobe.models.mamba_layers import initial
    from sensprobe.train.snapshot import write_weights

    config = MambaConfig(
        d_input=256, d_output=256, d_model=WIDTH, layers=layers, encoder="embedding",
        pooling="none", head_bias=False, dt_rank=WIDTH // 16,
    )  # fmt: skip
    write_weights(path, initial(config, (0.001, 0.1), 0), config, {})
    return path


def write_text(folder: Path) -> Path:
    """Documents of random words, enough of them that the windows searched on are of several."""
    draw = random.Random(0)
    folder.mkdir(exist_ok=True)
    for k in range(DOCUMENTS):
        words = (f"{draw.choice(WORDS)} {draw.randrange(1000)}" for _ in range(200))
        (folder / f"{k:02}.txt").write_text(" ".join(words))
    return folder


def jobs(folder: Path, layers: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Job -> what runs it on a new model of so many layers; the search needs the profile's run."""
    import sensprobe.api as sensprobe

    model, run = write_model(folder / f"{layers}.safetensors", layers), folder / str(layers)
    text = f"text:{write_text(folder / 'text')}"

    def profile() -> dict[str, Any]:
        return sensprobe.profile(
            model, text, by="site", method="taylor", schemes=SCHEMES, limit=WINDOWS, run=run
        )

    def search() -> dict[str, Any]:
        full = sensprobe.cost(model)["total_bytes"]
        return sensprobe.search(
            run, budgets=[int(BUDGET * full)], evaluations=EVALUATIONS, limit=WINDOWS
        )

    return {"profile": profile, "search": search}


def case(layers: int, asked: Sequence[str]) -> dict[str, Any]:
    """Seconds of each job asked for on a model of so many layers, and the RAM of the process."""
    found: dict[str, Any] = {"layers": layers}
    with tempfile.TemporaryDirectory() as folder:
        for name, job in jobs(Path(folder), 1).items():
            if name in asked:
                job()
        for name, job in jobs(Path(folder), layers).items():
            if name not in asked:
                continue
            wall, cpu = perf_counter(), process_time()
            job()
            found[name] = {"wall_s": perf_counter() - wall, "cpu_s": process_time() - cpu}
            found[name]["peak_MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def measured(layers: list[int], rounds: int, asked: Sequence[str]) -> list[dict[str, Any]]:
    """Each depth in a process of its own, by turns; the median of the rounds in every number."""
    every: dict[int, list[dict[str, Any]]] = {depth: [] for depth in layers}
    for _ in range(rounds):
        for depth in layers:
            words = [sys.executable, __file__, "--case", str(depth), "--only", *asked]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE)
            every[depth].append(json.loads(done.stdout.splitlines()[-1]))
    return [
        {"layers": depth}
        | {job: {k: median(one[job][k] for one in runs) for k in runs[0][job]} for job in asked}
        for depth, runs in every.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    out = [f"{'':10}{'layers':>8}{'wall s':>9}{'CPU s':>9}{'ratio':>8}{'peak MiB':>10}"]
    for job in (job for job in JOBS if job in rows[0]):
        before = None
        for row in rows:
            found = row[job]
            ratio = "" if before is None else f"{found['cpu_s'] / before:.2f}"
            before = found["cpu_s"]
            out.append(
                f"{job:10}{row['layers']:8}{found['wall_s']:9.1f}{found['cpu_s']:9.1f}"
                f"{ratio:>8}{found['peak_MiB']:10.0f}"
            )
    return "\n".join(out)


def draw(document: dict[str, Any], path: Path) -> None:
    """Seconds over layers, with a straight line through the origin and the first depth."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    rows = document["rows"]
    layers = [row["layers"] for row in rows]
    for job, colour in zip(JOBS, ("tab:blue", "tab:orange"), strict=True):
        if job not in rows[0]:
            continue
        seconds = [row[job]["cpu_s"] for row in rows]
        axes.plot(layers, seconds, "o-", color=colour, label=job)
        line = [seconds[0] * depth / layers[0] for depth in layers]
        axes.plot(layers, line, ":", color=colour, label=f"{job}, in proportion to layers")
    axes.set(xlabel="layers", ylabel="processor seconds", xticks=layers, ylim=(0, None))
    axes.legend(frameon=False)
    axes.set_title(f"{document['processor']}, one thread, {document['date']}", fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[*LAYERS])
    parser.add_argument("--rounds", type=int, default=1, help="runs of each depth, by turns")
    parser.add_argument("--only", nargs="+", choices=JOBS, default=[*JOBS], help="jobs to time")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of growth.json and .png")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case is not None:
        print(json.dumps(case(asked.case, asked.only)))
        return
    from sensprobe.jobs.benchmark import about_here

    document = {
        "date": date.today().isoformat(),
        "processor": about_here("cpu")["device_name"],
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
        "rounds": asked.rounds,
        "schemes": SCHEMES,
        "windows": WINDOWS,
        "evaluations": EVALUATIONS,
        "rows": measured(asked.layers, asked.rounds, asked.only),
    }
    print(f"{document['processor']}, one thread, {document['date']}, {asked.rounds} rounds")
    print(table(document["rows"]))
    (asked.out / "growth.json").write_text(json.dumps(document, indent=1) + "\n")
    draw(document, asked.out / "growth.png")


if __name__ == "__main__":
    main()
