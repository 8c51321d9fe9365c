"""The benchmarks that runs keep: how fast machines ran operations on packed memory."""

from __future__ import annotations

import streamlit as st

from sensprobe.report import charts
from sensprobe.report.benchmark_tables import (
    about_benchmark,
    answer,
    benchmark_rows,
    benchmark_table,
    pair_table,
    versions_of,
)
from sensprobe.report.benchmarks import Benchmark, pairs
from sensprobe.report.writing import csv_bytes
from sensprobe_app import store
from sensprobe_app.controls import EVERY, chart, choice, command, plain

ALONE = "nothing"


def show(lines: list[store.RunLine]) -> None:
    """A benchmark, or two beside each other; what cannot be read is said."""
    st.title("Kernels")
    seen = store.benchmark_stamp(lines)
    found = store.benchmarks(lines)
    for name, benchmark in found.items():
        if benchmark.problem:
            st.warning(plain(f"{name}: {benchmark.problem}"))
    named = {name: benchmark for name, benchmark in found.items() if benchmark.cases}
    if named:
        _chosen(named)
    else:
        _empty(lines)
    st.fragment(run_every=EVERY)(_watch)(lines, seen)


def _empty(lines: list[store.RunLine]) -> None:
    """Show the command that gives a run a benchmark."""
    own = [line for line in lines if not line.path.is_relative_to(store.EXAMPLE) and line.model]
    command(
        ["sensprobe", "bench", "--run", own[0].path if own else "RUN"],
        "No run here holds a benchmark yet. This one times products with packed weights and "
        "updates of packed states on this machine, in about ten seconds, and keeps what it finds:",
    )
    if not own:
        st.caption("RUN is a folder that `sensprobe profile` made.")


def _chosen(named: dict[str, Benchmark]) -> None:
    first, second = st.columns(2)
    with first:
        name = choice("Benchmark", list(named), "bench")
    found = named[name or next(iter(named))]
    with second:
        rest = [ALONE, *(other for other in named if other != name)]
        beside = choice("Beside it", rest, "beside", first=ALONE)
    other = named.get(beside or ALONE)
    st.markdown(f"**{plain(answer(found))}**")
    _about(found)
    if other is not None:
        _about(other)
    _figures(found, other)
    if other is not None:
        _pairs(found, other)
    st.subheader("Every case")
    st.dataframe(benchmark_table(found), hide_index=True)
    st.download_button(
        "Table as CSV",
        lambda: csv_bytes(benchmark_rows([found] if other is None else [found, other])),
        "benches.csv",
        "text/csv",
    )


def _about(found: Benchmark) -> None:
    where, *how = about_benchmark(found)
    st.markdown(f"**{plain(where)}**")
    st.caption(plain(" ".join(how)))
    if found.versions:
        st.caption(plain(versions_of(found)))


def _figures(found: Benchmark, other: Benchmark | None) -> None:
    chart(
        charts.bandwidths(found, other),
        "bandwidths",
        "Share of the bandwidth of copying that each operation reaches, by scheme and shape",
    )
    st.caption("Above 100 %: what fits in a cache is read faster than memory is copied.")
    chart(
        charts.ratios(found, other),
        "ratios",
        "How many times as fast as PyTorch each operation is, by scheme and shape",
    )


def _pairs(found: Benchmark, other: Benchmark) -> None:
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
    """Draws everything anew where a benchmark was begun or goes on."""
    if store.benchmark_stamp(lines) != seen:
        st.rerun()
