"""How fast the dashboard answers on a profile of 651 sites, in a real browser.

    python studies/000_speed/many_sites.py [RUNS]

A run is made up: every site of a Mamba of 24 layers in four schemes, priced by formula. Timed are,
five times over, the server from its start until it listens, and from there the first chart of the
view Sensitivity in an open browser; as often the same of a page of Streamlit that holds one line
and nothing else, which bounds any page. With RUNS the run is left in that folder, to be looked at.
Needs Chromium and Playwright.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, sync_playwright
from sensprobe_app.store import EXAMPLE

from sensprobe import api
from sensprobe.cli.dashboard import Served, free_port, served, wait_for
from sensprobe.plans.scheme import parse
from sensprobe.runs import open_run

LAYERS, SAMPLES, TIMES = 24, 400, 5
BARE = """
import plotly.graph_objects as go
import streamlit as st

st.plotly_chart(go.Figure(go.Scatter(x=[1, 2], y=[3, 4])))
"""
HURTS = ("A", "decay", "state")


def made_up(folder: Path) -> int:
    """Make the run in a folder, and return how many sites it has."""
    shutil.copytree(EXAMPLE / "s4d-digits", folder)
    of_bytes = api.list_sites("mamba-bytes")
    sites = [row for row in of_bytes if not row["site"].startswith("layers.")]
    first = [row for row in of_bytes if row["site"].startswith("layers.0.")]
    for layer in range(LAYERS):
        sites += [row | {"site": row["site"].replace(".0.", f".{layer}.")} for row in first]
    document = open_run(folder).read_result("sensitivity-measured")
    assert isinstance(document, dict)
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    about["sites"] = {row["site"]: [1] for row in sites}
    (folder / "run.json").write_text(json.dumps(about), encoding="utf-8")
    for old in (folder / "results").iterdir():
        old.unlink()
    run, draw = open_run(folder), np.random.default_rng(0)
    document |= {"by": "site", "rows": []}
    for site in sites:
        hurt = draw.lognormal(-4, 1.5) * (8 if site["part"] in HURTS else 1)
        for scheme in document["schemes"]:
            document["rows"].append(observation(site, scheme, hurt, draw))
    run.write_result("sites", sites)
    run.write_result("sensitivity-measured", document)
    run.close()
    return len(sites)


def observation(
    site: dict[str, object], scheme: str, hurt: float, draw: np.random.Generator
) -> dict[str, object]:
    kl = hurt * 4.0 ** (5 - parse(scheme).bits_per_real)
    flips = round(min(0.8 * kl, 0.9) * SAMPLES + draw.choice([-1, 0, 0, 0, 1]))
    place = str(site["site"]).split(".")
    return {
        "target": site["site"], "sites": [site["site"]], "part": site["part"],
        "kind": site["kind"], "layer": int(place[1]) if place[0] == "layers" else None,
        "scheme": scheme, "applied": [scheme], "weight_bytes": 0, "state_bytes": 0,
        "kl": {"value": kl, "stderr": 0.08 * kl}, "radius": 0.99,
        "metric": {"value": -flips / SAMPLES, "stderr": max(abs(flips), 0.5) ** 0.5 / SAMPLES},
        "n": SAMPLES, "clusters": SAMPLES,
    }  # fmt: skip


@contextmanager
def bare(folder: Path) -> Iterator[Served]:
    """A server whose page is one chart of one line."""
    file, port = folder / "bare.py", free_port()
    file.write_text(BARE, encoding="utf-8")
    words = ["--server.port", str(port), "--server.headless", "true"]
    words += ["--server.address", "localhost", "--browser.gatherUsageStats", "false"]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", str(file), *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(port, 60)
        yield Served(f"http://localhost:{port}", process)
    finally:
        process.terminate()
        process.wait(60)


def first_paint(
    browser: Browser, server: AbstractContextManager[Served], view: str
) -> tuple[float, float]:
    """Seconds until the server listens, and from there until the first chart is drawn."""
    page = browser.new_page(viewport={"width": 1400, "height": 1200})
    began = time.perf_counter()
    with server as dashboard:
        listens = time.perf_counter()
        page.goto(f"{dashboard.address}/{view}")
        page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=120_000)
        painted = time.perf_counter()
    page.close()
    return listens - began, painted - listens


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as where, sync_playwright() as playwright:
        runs = Path(sys.argv[1]) if sys.argv[1:] else Path(where)
        sites = made_up(runs / "many")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        timed = [
            (*first_paint(browser, served(runs), "sensitivity"),
             *first_paint(browser, bare(Path(where)), ""))
            for _ in range(TIMES)
        ]  # fmt: skip
        browser.close()
    columns = [sorted(round(s, 2) for s in column) for column in zip(*timed, strict=True)]
    names = (
        "the server listens (s)", "then the first chart (s)",
        "one line: its server listens (s)", "then the line (s)",
    )  # fmt: skip
    print(json.dumps({"sites": sites, **dict(zip(names, columns, strict=True))}, indent=1))


if __name__ == "__main__":
    main()
