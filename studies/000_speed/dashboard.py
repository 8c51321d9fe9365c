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
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright
from sensprobe_app.store import EXAMPLE

from sensprobe.cli.dashboard import served
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import Plan, fingerprint
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Site
from sensprobe.report.gather import gather
from sensprobe.report.plans import resolved
from sensprobe.runs import Evaluation, EvaluationKey, open_run

RUN = EXAMPLE / "s4d-digits"
EVALUATIONS, CLICKS, SAMPLES = 10_000, 9, 400
CHART = ".js-plotly-plot .main-svg"
MARKS = ".scatterlayer .trace .points path"
BOXES = "marks => marks.map(mark => mark.getBoundingClientRect().toJSON())"
FINGER, PATIENCE = 30, 10


def made_up(folder: Path, count: int) -> None:
    """A run with `count` evaluations more than the one that ships, all of them candidates."""
    shutil.copytree(RUN, folder)
    run = open_run(folder)
    found = gather(run)
    assert found.search is not None
    sites = found.sites
    options: dict[str, list[Scheme]] = {}
    for c in found.search.candidates:
        for name, scheme in resolved(c.entries, sites).items():
            options.setdefault(name, []).append(scheme)
    document = run.read_result("search")
    full = next(e for e in run.entries() if e.key.split == "search" and not e.meta["plan"])
    rng = np.random.default_rng(0)
    document["candidates"] += [
        candidate(run, full.key, sites, options, rng, k) for k in range(count)
    ]
    run.close()
    run.write_result("search", document)


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
    full_mark = fingerprint(plan)
    mark = f"{full_mark[:10]}{k:06x}"
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
        "plan_fingerprint": full_mark,
        "weight_bytes": price.weight_bytes,
        "state_bytes": price.state_bytes,
        "total_bytes": price.total_bytes,
        "packed_state_bytes": price.state_bytes,
        "effective_bits": price.effective_bits,
        "metric": {"value": float(correct.mean()), "stderr": error},
        "loss": {"value": float(correct.mean()) - 0.98, "stderr": error},
        "extra_nats": float(kl.mean()),
        "predicted": 0.1,
        "n": SAMPLES,
        "stopped_early": False,
        "radius": 0.99,
        "on_front": False,
    }


def apart(page: Page) -> list[tuple[float, float]]:
    """The middles of marks of the first chart, each at least FINGER pixels from those before."""
    chart = page.locator(CHART).first
    area = chart.locator(".bglayer .bg, .nsewdrag").first.bounding_box()
    assert area is not None
    found: list[tuple[float, float]] = []
    for box in chart.locator(MARKS).evaluate_all(BOXES):
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        inside = 0 < x - area["x"] < area["width"] and 0 < y - area["y"] < area["height"]
        if inside and all(abs(x - a) + abs(y - b) > FINGER for a, b in found):
            found.append((x, y))
    return found


def click(page: Page, part: float) -> float:
    """Seconds from a click on a mark, so far into their list, to its plan in the address and among
    those side by side."""
    page.wait_for_timeout(1000)
    places = apart(page)
    place = places[int(part * len(places))]
    chips = page.locator("[data-tag]")
    before, chosen = page.url.count("plans="), chips.count()
    began = time.perf_counter()
    page.mouse.click(*place)
    while page.url.count("plans=") == before or chips.count() == chosen:
        if time.perf_counter() - began > PATIENCE:
            raise RuntimeError(f"a click at {place} picked no plan in {PATIENCE} s")
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
        began = time.perf_counter()
        with served(Path(where) / "runs") as dashboard:
            listens = time.perf_counter() - began
            page.goto(f"{dashboard.address}/pareto")
            page.locator(CHART).first.wait_for(timeout=60_000)
            seconds = time.perf_counter() - began
            page.wait_for_timeout(2000)
            shown = page.locator(CHART).first.locator(MARKS).count()
            each = [click(page, k / CLICKS) for k in range(CLICKS)]
        browser.close()
    print(json.dumps({
        "evaluations": count,
        "search.json": f"{size / 2**20:.1f} MiB",
        "marks drawn": shown,
        "the server listens (s)": round(listens, 2),
        "first chart (s)": round(seconds, 2),
        "selection (ms), median": round(1000 * statistics.median(each)),
        "selection (ms), all": [round(1000 * s) for s in each],
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
