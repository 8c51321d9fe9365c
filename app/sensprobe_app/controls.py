"""Widgets whose values live in the address, and text that stays text."""

from __future__ import annotations

import re
from collections.abc import Sequence

import plotly.graph_objects as go
import streamlit as st

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


def names_of(event: object) -> list[str]:
    """Names of picked marks, each once, in order."""
    points = getattr(getattr(event, "selection", None), "points", None) or []
    data = [p.get("customdata") for p in points]
    names = [d[0] if isinstance(d, list) else (d or {}).get("0", "") for d in data if d]
    return list(dict.fromkeys(str(name) for name in names if name))


def choice(label: str, options: Sequence[str], key: str, **more: object) -> str | None:
    """One of some names, kept in the address under `key`."""
    if not options:
        return None
    return st.selectbox(label, options, key=key, bind="query-params", **more)  # type: ignore[arg-type]


def command(text: str, why: str) -> None:
    """A command to type, with what it is for."""
    st.markdown(why)
    st.code(text, language="bash")
