"""Widgets whose values live in the address, and text that stays text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import plotly.graph_objects as go
import streamlit as st

from sensprobe.report.results import Candidate
from sensprobe.report.theme import DARK, LIGHT, Theme

MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~:$@&])")
CHART = {"displaylogo": False, "toImageButtonOptions": {"format": "svg"}}


def plain(text: str) -> str:
    """Text from a plan, a model or a path as Markdown that shows just that."""
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def theme() -> Theme:
    """Light or dark, as the page is."""
    return DARK if getattr(st.context.theme, "type", "light") == "dark" else LIGHT


def chart(figure: go.Figure, key: str, alt: str, *, select: bool = False) -> list[str]:
    """A figure; with `select`, the names (`customdata[0]`) of the marks that are picked in it."""
    if not select:
        st.plotly_chart(figure, theme=None, key=key, config=CHART, alt=alt)
        return []
    picked = st.plotly_chart(
        figure,
        theme=None,
        key=key,
        config=CHART,
        alt=alt,
        on_select="rerun",
        selection_mode=("points", "box"),
    )
    return names_of(picked)


def label_of(candidate: Candidate) -> str:
    """What a plan is called here and in the address: the same while a search runs and after."""
    return candidate.name if candidate.uniform is None else f"uniform {candidate.uniform}"


def names_of(event: object) -> list[str]:
    """Names of picked marks, each once, in order."""
    points = getattr(getattr(event, "selection", None), "points", None) or []
    data = [p.get("customdata") for p in points]
    names = [d[0] if isinstance(d, list) else (d or {}).get("0", "") for d in data if d]
    return list(dict.fromkeys(str(name) for name in names if name))


def choice(
    label: str, options: Sequence[str], key: str, first: str | None = None, help: str | None = None
) -> str | None:
    """One of some names, kept in the address under `key` even where it is the `first` one: what is
    first may be another tomorrow."""
    if not options:
        return None
    now = st.session_state.get(key) or st.query_params.get(key)
    if now not in options:
        st.session_state[key] = first if first in options else options[0]
    return st.selectbox(label, options, index=None, key=key, bind="query-params", help=help)


def command(words: Sequence[object], why: str) -> None:
    """A command to type, each word quoted, with what it is for."""
    st.markdown(why)
    st.code(shlex.join(str(word) for word in words), language="bash")
