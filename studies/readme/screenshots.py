"""Photograph the dashboard for docs/dashboard.md: the run that ships, in a headless Chromium.

python studies/readme/screenshots.py [FOLDER]

With FOLDER every view, light and dark, goes there instead, to be looked at, with a bench of this
machine in the run.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from sensprobe_app.store import EXAMPLE

from sensprobe import api
from sensprobe.cli.dashboard import served

HERE = Path(__file__).parent
WIDE, TALL, TALLEST = 1280, 860, 3600
VIEWS = ("", "sensitivity", "pareto", "plan", "search", "compare", "kernels")


def photograph(browser: Browser, address: str, path: Path, scheme: str, tall: int) -> None:
    """A page once its charts and tables are drawn; `tall` pixels of it, or 0 for all."""
    context = browser.new_context(
        viewport={"width": WIDE, "height": tall or TALL},
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(address)
    page.locator('.js-plotly-plot .main-svg, [data-testid="stDataFrame"]').first.wait_for()
    page.wait_for_timeout(2500)
    if not tall:
        whole = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        page.set_viewport_size({"width": WIDE, "height": min(int(whole) + 60, TALLEST)})
        page.wait_for_timeout(1000)
    page.screenshot(path=path)
    context.close()


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(EXAMPLE, Path(folder) / "runs")
        if sys.argv[1:]:
            api.bench(run=Path(folder) / "runs" / "s4d-digits")
        with served("runs", Path(folder)) as dashboard, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            shoot(browser, dashboard.address, Path(sys.argv[1]) if sys.argv[1:] else None)
            browser.close()


def shoot(browser: Browser, base: str, folder: Path | None) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for scheme in ("light", "dark"):
            for view in VIEWS:
                path = folder / f"{view or 'runs'}-{scheme}.png"
                photograph(browser, f"{base}/{view}", path, scheme, 0)
        return
    photograph(browser, f"{base}/pareto?loss=true", HERE / "dashboard-pareto.png", "light", TALL)
    photograph(browser, f"{base}/plan", HERE / "dashboard-plan.png", "dark", TALL + 100)


if __name__ == "__main__":
    main()
