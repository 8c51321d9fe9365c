"""How fast machines ran operations on packed memory: the benches that runs keep."""

from __future__ import annotations

import streamlit as st

from sensprobe.report import charts
from sensprobe.report.bench_tables import (
    about_bench,
    bench_rows,
    bench_table,
    pair_table,
    versions_of,
)
from sensprobe.report.benches import BenchRun, pairs
from sensprobe.report.writing import csv_bytes
from sensprobe_app import store
from sensprobe_app.controls import chart, choice, command, plain

EVERY = "2s"
ALONE = "nothing"


def show(lines: list[store.RunLine]) -> None:
    """A bench, or two beside each other; what cannot be read is said."""
    st.title("Kernels")
    seen = store.bench_mark(lines)
    found = store.benches(lines)
    for name, bench in found.items():
        if bench.problem:
            st.warning(plain(f"{name}: {bench.problem}"))
    named = {name: bench for name, bench in found.items() if bench.cases}
    if named:
        _chosen(named)
    else:
        _empty(lines)
    st.fragment(run_every=EVERY)(_watch)(lines, seen)


def _empty(lines: list[store.RunLine]) -> None:
    """How a run gets a bench."""
    own = [line for line in lines if not line.path.is_relative_to(store.EXAMPLE) and line.model]
    command(
        ["sensprobe", "bench", "--run", own[0].path if own else "RUN"],
        "No run here holds a bench yet. This one times products with packed weights and updates of "
        "packed states on this machine, in about ten seconds, and keeps what it finds:",
    )
    if not own:
        st.caption("RUN is a folder that `sensprobe profile` made.")


def _chosen(named: dict[str, BenchRun]) -> None:
    first, second = st.columns(2)
    with first:
        name = choice("Bench", list(named), "bench")
    found = named[name or next(iter(named))]
    with second:
        rest = [ALONE, *(other for other in named if other != name)]
        beside = choice("Beside it", rest, "beside", first=ALONE)
    other = named.get(beside or ALONE)
    _about(found)
    if other is not None:
        _about(other)
    _figures(found, other)
    if other is not None:
        _pairs(found, other)
    st.subheader("Every case")
    st.dataframe(bench_table(found), hide_index=True)
    st.download_button(
        "Table as CSV",
        lambda: csv_bytes(bench_rows([found] if other is None else [found, other])),
        "benches.csv",
        "text/csv",
    )


def _about(found: BenchRun) -> None:
    where, *how = about_bench(found)
    st.markdown(f"**{plain(where)}**")
    st.caption(plain(" ".join(how)))
    if found.versions:
        st.caption(plain(versions_of(found)))


def _figures(found: BenchRun, other: BenchRun | None) -> None:
    chart(
        charts.bandwidths(found, other),
        "bandwidths",
        "Share of the bandwidth of copying that each operation reaches, by scheme and shape",
    )
    st.caption(
        "Above 100 %: what fits in a cache is read faster than memory is copied. Bars reach from "
        "the lower to the upper quartile."
    )
    chart(
        charts.ratios(found, other),
        "ratios",
        "How many times as fast as PyTorch each operation is, by scheme and shape",
    )


def _pairs(found: BenchRun, other: BenchRun) -> None:
    st.subheader("Side by side")
    both = pairs(found, other)
    if found.batch != other.batch and not found.subject:  # a model's cases name their batch
        st.warning(
            f"One is of batch {found.batch}, the other of batch {other.batch}: their times are of "
            "different work."
        )
    if not both:
        st.markdown("They have no case in common.")
        return
    st.dataframe(pair_table(both), hide_index=True)
    st.caption("· the quartiles of the two overlap: no difference.")


def _watch(lines: list[store.RunLine], seen: store.Stamp) -> None:
    """Draws everything anew where a bench was begun or goes on."""
    if store.bench_mark(lines) != seen:
        st.rerun()
