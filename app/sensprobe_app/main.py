"""The page: which view, which run. `streamlit run main.py -- RUNS`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import streamlit as st

from sensprobe.errors import SensprobeError
from sensprobe_app import store
from sensprobe_app.controls import choice, gone, plain, shown_path
from sensprobe_app.views import compare, kernels, model, pareto, plan, runs, search, sensitivity

EVERY = "2s"
STYLE = """<style>
[data-testid="stMainBlockContainer"] { padding-top: 4rem; }
[data-testid="stMetricValue"] { font-size: clamp(1.1rem, 1.7vw, 1.6rem); }
[data-testid="stMetricValue"] *, [data-testid="stMetricLabel"] * {
  white-space: normal !important; overflow: visible; }
@media (max-width: 640px) {
  .modebar { display: none; }
  .st-key-model { overflow-x: auto; }
  .st-key-model > * { min-width: 42rem; }
}
</style>"""
TITLES: dict[str, Callable[[store.Found], None]] = {
    "sensitivity": sensitivity.show,
    "pareto": pareto.show,
    "plan": plan.show,
    "model": model.show,
    "search": search.show,
}


def main(folder: Path) -> None:
    """Draw the page for a folder of runs."""
    st.set_page_config("sensprobe", layout="wide")
    st.html(STYLE)
    lines = store.lines(folder)
    shown = folder
    if not lines:
        lines, shown = store.lines(store.EXAMPLE), store.EXAMPLE
    pages = [st.Page(partial(runs.show, folder, shown), title="Runs", default=True)]
    for name, view in TITLES.items():
        pages.append(
            st.Page(partial(_with_run, view, lines), title=name.capitalize(), url_path=name)
        )
    pages.append(st.Page(partial(compare.show, lines), title="Compare", url_path="compare"))
    pages.append(st.Page(partial(kernels.show, lines), title="Kernels", url_path="kernels"))
    page = st.navigation(pages, position="top")
    with st.sidebar:
        st.markdown("### sensprobe")
        st.caption(plain(shown_path(folder)))
        if shown is store.EXAMPLE:
            st.info("No run here yet: this is the run that ships as an example.")
    page.run()


def _with_run(view: Callable[[store.Found], None], lines: list[store.RunLine]) -> None:
    with st.sidebar:
        name = choice("Run", [line.name for line in lines], "run", strict=True, over=("of", "plan"))
    line = next((one for one in lines if one.name == name), None)
    if line is None:
        missing = f"a run {gone('run')}, which is not in this folder" if gone("run") else "no run"
        st.warning(plain(f"The address asks for {missing}: choose one on the left."))
        return
    found = _of_a_search(store.found(line))
    with st.sidebar:
        st.caption(f"{plain(line.model)} on {plain(line.data)}")
        st.caption(f"{line.state}, {line.evaluations:,} evaluations")
        if found.problem:
            st.warning(plain(found.problem))
    if found.run is None:
        st.error(f"This run cannot be read. {plain(found.problem)}")
        return
    try:
        view(found)
    except SensprobeError as error:
        st.error(plain(str(error)))
    waiting = found.search is None
    _watch(found.line.path, waiting, store.mark(found.line.path, waiting))


def _of_a_search(found: store.Found) -> store.Found:
    """The run as one of its searches left it: the latest, unless another is chosen."""
    searches = store.searches(found)
    if len(searches) < 2:
        return found
    with st.sidebar:
        help = "A run keeps its earlier searches."
        title = choice("Search", list(searches), "of", help=help, over=("plan",))
    try:
        return store.of_search(found, searches[str(title)])
    except SensprobeError as error:
        st.warning(f"{plain(str(error))} The latest search is shown.")
        return found


@st.fragment(run_every=EVERY)
def _watch(path: Path, waiting: bool, seen: store.Mark) -> None:
    """Draws everything anew where a command on this run has begun, ended, or left a result; while
    there is no plan to show, wherever anything was measured. What is shown follows by itself."""
    if store.mark(path, waiting) != seen:
        st.rerun()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs").resolve())
