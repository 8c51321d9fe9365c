"""Streamlit's server, with what the first page needs imported while it starts.

`python -m sensprobe_app.serve FLAGS -- RUNS`: the flags are those of `streamlit run`.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn
from streamlit.web.cli import main as streamlit

PAGE = Path(__file__).with_name("main.py")
OBJECTS = 200_000
"""Objects made between two looks for garbage: a large run is read as so many at once."""

TURN = 5e-4
"""Seconds that a thread works while others wait: files are served while a run is read."""

PATIENCE = 2
"""Seconds that a stopped server waits for browsers to let go; by itself it waits for ever."""


class Config(uvicorn.Config):
    """The configuration of Streamlit's server, with a limit on how long it waits to stop."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("timeout_graceful_shutdown", PATIENCE)
        super().__init__(*args, **options)


def warm(folder: Path) -> None:
    """Import what takes seconds, read the run that changed last and draw its front, or its map: the
    first page then finds it done. What is wrong with a run is said there."""
    from sensprobe.report import charts
    from sensprobe.report.drawing import screen
    from sensprobe_app import main, store

    del main  # imported for the page
    lines = store.lines(folder)
    found = store.found(lines[0]) if lines else None
    if found is not None and found.search is not None:
        screen.draw(charts.frontier(found.search))
    elif found is not None and found.results is not None and found.results.profiles:
        screen.draw(charts.heat_map(found.results.profiles[0], most=1))


if __name__ == "__main__":
    gc.set_threshold(OBJECTS)
    sys.setswitchinterval(TURN)
    uvicorn.Config = Config  # type: ignore[misc]
    Thread(target=warm, args=(Path(sys.argv[-1]),), daemon=True).start()
    sys.argv = ["streamlit", "run", str(PAGE), *sys.argv[1:]]
    sys.exit(streamlit())
