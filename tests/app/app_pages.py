"""Draws one view of the dashboard over a folder, and reads what it says."""

from __future__ import annotations

from pathlib import Path

from sensprobe_app.controls import REST
from streamlit.testing.v1 import AppTest

WAIT = 60


def page(folder: str, view: str, run: str) -> None:
    """What `main` draws for one view; sources of functions given to AppTest stand alone."""
    from pathlib import Path

    from sensprobe_app import main, store
    from sensprobe_app.views import compare, kernels, runs

    where = Path(folder)
    lines = store.lines(where)
    if view == "runs":
        runs.show(where, where if lines else store.EXAMPLE)
    elif view == "compare":
        compare.show(lines)
    elif view == "kernels":
        kernels.show(lines)
    else:
        line = next((line for line in lines if line.name == run), lines[0])
        found = store.found(line)
        if found.run is None:
            import streamlit as st

            st.error(found.problem)
        else:
            main.TITLES[view](found)


def with_sidebar(folder: str, view: str) -> None:
    """What `main` draws for one view of the run that is chosen at its side."""
    from pathlib import Path

    from sensprobe_app import main, store

    main._with_run(main.TITLES[view], store.lines(Path(folder)))


def opened(folder: Path, view: str, **query: str) -> AppTest:
    """A view as an address opens it."""
    test = AppTest.from_function(with_sidebar, args=(str(folder), view), default_timeout=WAIT)
    test.session_state[REST] = True
    for key, value in query.items():
        test.query_params[key] = value
    test.run()
    assert not test.exception, test.exception
    return test


def drawn(folder: Path, view: str, run: str = "digits", **query: str | list[str]) -> AppTest:
    test = AppTest.from_function(page, args=(str(folder), view, run), default_timeout=WAIT)
    test.session_state[REST] = True
    for key, value in query.items():
        test.query_params[key] = value
    test.run()
    assert not test.exception, test.exception
    return test


def words(test: AppTest) -> str:
    kinds = (test.markdown, test.caption, test.warning, test.error, test.code, test.info)
    return "\n".join(str(element.value) for kind in kinds for element in kind)
