"""How fast the dashboard answers on a run of 10,000 evaluations, in a real browser.

    python studies/000_speed/dashboard.py [EVALUATIONS]

A run is made up from the one that ships: as many plans, drawn at random, each with per-sample
results, in the ledger and in the search's result. Timed are the command to the first chart (browser
running) and, median of several, from a click on a mark to its plan in the page. Needs Chromium and
Playwright.
"""

from __future__ import annotations

import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import sensprobe_app
from playwright.sync_api import Page, sync_playwright

from sensprobe.cost import cost
from sensprobe.plan import Plan, fingerprint
from sensprobe.report import gather
from sensprobe.runs import Evaluation, EvaluationKey, open_run
from sensprobe.scheme import Scheme, parse
from sensprobe.sites import Site

EXAMPLE = Path(sensprobe_app.__file__).parent / "example" / "s4d-digits"
EVALUATIONS, CLICKS, SAMPLES = 10_000, 9, 400
CHART = ".js-plotly-plot .main-svg"


def made_up(folder: Path, count: int) -> None:
    """A run with `count` evaluations more than the one that ships, all of them candidates."""
    shutil.copytree(EXAMPLE, folder)
    run = open_run(folder)
    found = gather(run)
    assert found.search is not None
    sites = found.sites
    options = {site.name: schemes_of(site.name, found.search) for site in sites}
    options = {name: schemes for name, schemes in options.items() if schemes}
    document = run.read_result("search")
    full = next(e for e in run.entries() if e.key.split == "search" and not e.meta["plan"])
    rng = np.random.default_rng(0)
    document["candidates"] += [
        candidate(run, full.key, sites, options, rng, k) for k in range(count)
    ]
    run.close()
    run.write_result("search", document)


def schemes_of(site: str, search: object) -> list[Scheme]:
    """What the plans that ship put a site in."""
    texts = {s for c in search.candidates for name, s in c.entries if matches(name, site)}  # type: ignore[attr-defined]
    return [parse(text) for text in sorted(texts)]


def matches(pattern: str, site: str) -> bool:
    return pattern.replace("layers.*", "layers.0") == site


def candidate(
    run: object,
    full: EvaluationKey,
    sites: tuple[Site, ...],
    options: dict[str, list[Scheme]],
    rng: np.random.Generator,
    k: int,
) -> dict[str, object]:
    plan = {name: schemes[rng.integers(len(schemes))] for name, schemes in options.items()}
    price = cost(sites, plan)
    chance = 1 - 0.9 * np.exp(-price.effective_bits / 1.5) - 0.02 * rng.random()
    correct = (rng.random(SAMPLES) < chance).astype(np.float32)
    mark = f"{fingerprint(plan)[:10]}{k:06x}"
    key = EvaluationKey(full.model, full.data, "search", 0, SAMPLES, mark, "", full.semantics)
    meta = {
        "label": "",
        "plan": [[n, str(s)] for n, s in plan.items()],
        "seconds": 0.01,
        "radius": 0.99,
    }
    kl = rng.random(SAMPLES).astype(np.float32)
    run.append(Evaluation(key, {"correct": correct, "kl": kl}, meta))  # type: ignore[attr-defined]
    error = float(correct.std() / SAMPLES**0.5)
    return {
        "name": f"p{mark}",
        "label": f"gains {k}",
        "source": "gains",
        "uniform": None,
        "plan": Plan(tuple(plan.items()), f"p{mark}").to_json(),
        "weight_bytes": price.weight_bytes,
        "state_bytes": price.state_bytes,
        "total_bytes": price.total_bytes,
        "effective_bits": price.effective_bits,
        "metric": {"value": float(correct.mean()), "stderr": error},
        "loss": {"value": float(correct.mean()) - 0.98, "stderr": error},
        "predicted": 0.1,
        "n": SAMPLES,
        "stopped_early": False,
        "radius": 0.99,
        "on_front": False,
    }


def first_chart(page: Page, folder: Path) -> tuple[float, str, subprocess.Popen[bytes]]:
    """Seconds from the command to the front drawn; the address and the process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    address = f"http://localhost:{port}/pareto"
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "sensprobe", "dashboard", str(folder), "--no-browser",
         "--port", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while True:  # the command opens the browser when its server listens
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                break
        if time.perf_counter() - began > 60:
            sys.exit("the dashboard did not start")
        time.sleep(0.02)
    page.goto(address)
    page.locator(CHART).first.wait_for(timeout=60_000)
    return time.perf_counter() - began, address, process


def click(page: Page, place: int) -> float:
    """Seconds from a click on a mark to its plan in the address and the table drawn."""
    marks = page.locator(".scatterlayer .trace .points path")
    box = marks.nth(place).bounding_box()
    assert box is not None
    before = page.url.count("plans=")
    began = time.perf_counter()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    while page.url.count("plans=") == before and time.perf_counter() - began < 10:
        page.wait_for_timeout(5)
    return time.perf_counter() - began


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else EVALUATIONS
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as where, sync_playwright() as playwright:
        made_up(Path(where) / "runs" / "large", count)
        size = (Path(where) / "runs" / "large" / "results" / "search.json").stat().st_size
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1200})
        seconds, _, process = first_chart(page, Path(where) / "runs")
        try:
            page.wait_for_timeout(2000)
            shown = page.locator(".scatterlayer .trace .points path").count()
            each = [click(page, shown - 1 - 3 * k) for k in range(CLICKS)]
        finally:
            process.terminate()
            process.wait()
        browser.close()
    print(json.dumps({
        "evaluations": count,
        "search.json": f"{size / 2**20:.1f} MiB",
        "marks drawn": shown,
        "first chart (s)": round(seconds, 2),
        "selection (ms), median": round(1000 * statistics.median(each)),
        "selection (ms), all": [round(1000 * s) for s in each],
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
