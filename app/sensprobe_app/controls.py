"""Widgets whose values live in the address, and text that stays text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import plotly.graph_objects as go
import streamlit as st
from streamlit.errors import StreamlitAPIException

from sensprobe.report.charts import Chart
from sensprobe.report.drawing import screen
from sensprobe.report.overview import RunLine
from sensprobe.report.theme import DARK, LIGHT, Theme
from sensprobe_app import store
from sensprobe_app.store import Found

MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~:$@&])")
EVERY, SOON = "2s", "0.7s"
REST = "the rest follows"
"""A key of the session: it was sent its first chart."""
PICKS = ("points", "box")
BATCHES = tuple(2**k for k in range(11))
FILES = {"svg": "image/svg+xml", "png": "image/png"}
"""Kinds of files that every figure is offered as -> their MIME types."""
CHART = {"displaylogo": False, "toImageButtonOptions": {"format": "svg"}}


def plain(text: str) -> str:
    """Text from a plan, a model or a path as Markdown that shows just that."""
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def theme() -> Theme:
    """Light or dark, as the page is."""
    return DARK if getattr(st.context.theme, "type", "light") == "dark" else LIGHT


def chart(
    prepared: Chart, key: str, alt: str, on_select: Callable[[], None] | None = None
) -> go.Figure:
    """Draw a chart in the page's theme, and return the figure. Where marks can be picked,
    `on_select` is called and `picked` says which."""
    figure = _drawn(prepared, theme(), key)
    more = {} if on_select is None else {"on_select": on_select, "selection_mode": PICKS}
    st.plotly_chart(figure, theme=None, key=key, config=CHART, alt=alt, **more)  # type: ignore[call-overload]
    if not prepared.nothing:
        _files(prepared, key)
    return figure


def _drawn(prepared: Chart, colours: Theme, key: str) -> go.Figure:
    """The figure of a chart: that of the page before, where nothing has changed."""
    before = st.session_state.get(_figure(key))
    if before is None or before[:2] != (prepared, colours):
        before = (prepared, colours, screen.draw(prepared, colours))
        st.session_state[_figure(key)] = before
    figure: go.Figure = before[2]
    return figure


def stands_alone() -> bool:
    """Return True while a page that was just opened shall hold its first chart and no other: a
    browser shows none before it has drawn all that it was sent. The rest follows by itself."""
    if REST in st.session_state:
        return False
    st.fragment(run_every=SOON)(_rest)()
    return True


def _rest() -> None:
    """Called with the page, and again when the browser has time."""
    if REST in st.session_state:
        st.rerun()
    st.session_state[REST] = True


def _files(prepared: Chart, key: str) -> None:
    """Offer a figure as files for print, each drawn when it is asked for."""
    with st.popover("Save figure", type="tertiary", key=f"save {key}"):
        st.caption(plain("; ".join([prepared.title, *prepared.notes])))
        for kind, mime in FILES.items():
            st.download_button(
                kind.upper(), partial(_file, prepared, kind), f"{key}.{kind}", mime,
                key=f"{kind} {key}", on_click="ignore",
            )  # fmt: skip


def _file(prepared: Chart, kind: str) -> bytes:
    from sensprobe.report.drawing import paper  # Matplotlib: the dashboard starts without

    return paper.draw(prepared, kind)


def kept(key: str) -> str | None:
    """What a `choice` was set to on the page before."""
    return st.session_state.get(_kept(key))


def picked(key: str) -> list[str]:
    """Names (`customdata[0]`) of the marks picked in a chart, each once, in order."""
    points = st.session_state[key]["selection"]["points"]
    data = [point.get("customdata") for point in points]
    names = [d[0] if isinstance(d, list) else (d or {}).get("0", "") for d in data if d]
    return list(dict.fromkeys(str(name) for name in names if name))


def add(key: str, names: Sequence[str]) -> None:
    """Names join what a multiselect holds."""
    before = list(st.session_state.get(key, ()))
    st.session_state[key] = list(dict.fromkeys([*before, *names]))


def followed(found: Found, draw: Callable[[Found], None], *, while_it: bool = True) -> None:
    """Draw a run that has plans, and again every two seconds while it works, where `while_it`."""

    def again() -> None:
        now = store.found(found.line)
        draw(now if now.search is not None else found)

    if found.running and while_it:
        st.fragment(run_every=EVERY)(again)()
    else:
        draw(found)


def choice(
    label: str,
    options: Sequence[str],
    key: str,
    first: str | None = None,
    help: str | None = None,
    *,
    strict: bool = False,
    over: Sequence[str] = (),
    told: Mapping[str, str] | None = None,
) -> str | None:
    """One of some names, kept in the address under `key` even where it is the `first` one: what is
    first may be another tomorrow. A name from the address that is not among them leaves the first
    in its place; a `strict` choice is then None, and `gone` says of what, until one is made. When
    it changes, choices that it stands `over` are forgotten. The page shows names as they are
    `told`, the address keeps them as they are."""
    if not options:
        return None
    now = asked = None
    if not st.session_state.pop(_anew(key), False):
        asked = st.query_params.get(key)
        now = st.session_state.get(key) or asked or st.session_state.get(_kept(key))
    if strict and now not in options and (asked or gone(key)):
        st.session_state[_gone(key)] = asked or gone(key)
        now = None
    else:
        st.session_state.pop(_gone(key), None)
        if now not in options:
            now = first if first in options else options[0]
    # a page that is left takes the address and the widget with it, and leaves what was kept
    st.session_state[key] = st.session_state[_kept(key)] = now
    if now is not None and st.query_params.get(key) != now:
        with suppress(StreamlitAPIException):  # its widget is drawn already, and keeps the address
            st.query_params[key] = now
    drawn = partial(
        st.selectbox, label, options, index=None, key=key, help=help,
        on_change=partial(_forget, over),
    )  # fmt: skip
    if told is None:
        return drawn(bind="query-params")
    return drawn(format_func=lambda name: told.get(name, name))


def _forget(keys: Sequence[str]) -> None:
    for key in keys:
        st.session_state.pop(_gone(key), None)
        st.session_state[_anew(key)] = True


def gone(key: str) -> str:
    """What the address asked a strict choice for and there is not; "" where nothing is missing."""
    return str(st.session_state.get(_gone(key), ""))


def _figure(key: str) -> str:
    return f"figure {key}"


def _kept(key: str) -> str:
    return f"kept {key}"


def _anew(key: str) -> str:
    return f"anew {key}"


def _gone(key: str) -> str:
    return f"gone {key}"


def batch_of(first: int, key: str = "batch") -> int:
    """The sequences whose state is kept: a power of two, or what was searched for."""
    return st.select_slider(
        "Batch: sequences whose state is kept",
        sorted({*BATCHES, first}),
        value=first,
        key=key,
        bind="query-params",
    )


def shown_path(folder: Path) -> str:
    """The folder as text, relative to where the dashboard was started if it lies below."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)


def command(words: Sequence[object], why: str) -> None:
    """A command to type where the dashboard was started, each word quoted, with what it is for."""
    st.markdown(why)
    told = [shown_path(word) if isinstance(word, Path) else str(word) for word in words]
    st.code(shlex.join(told), language="bash")


def profile_command(line: RunLine, why: str) -> None:
    """Show the command that gives this run its sensitivities and its sites."""
    words = ["--data", line.data, "--run", line.path]
    command(["sensprobe", "profile", line.model, *words], why)


def search_command(line: RunLine) -> None:
    """Show the command that gives this run plans."""
    command(
        ["sensprobe", "search", "--run", line.path, "--budget", "12KiB"],
        "Nothing was searched for yet; a search is:",
    )
