"""One plan: bits by layer and part, what a change would cost, measured on request, taken home."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from sensprobe.documents.files import strict_json
from sensprobe.errors import SensprobeError
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import Plan, fingerprint
from sensprobe.plans.scheme import parse
from sensprobe.report import charts
from sensprobe.report.editing import (
    Prediction,
    edited,
    grid,
    options,
    predicted,
    priced_schemes,
    site_name,
)
from sensprobe.report.live import measured_plan
from sensprobe.report.plans import OUTSIDE, resolved
from sensprobe.report.results import Entries, Search, Sensitivity
from sensprobe.report.tables import mark_of, notable
from sensprobe.report.tuned import Tuning
from sensprobe.report.values import in_bytes, level_text
from sensprobe.report.writing import csv_bytes
from sensprobe.runs import Run
from sensprobe_app import jobs
from sensprobe_app.controls import batch_of, chart, choice, command, gone, plain, profile_command
from sensprobe_app.store import EXAMPLE, Found

EXACT = "full precision"
NOT_PRICED = "not measured"
AGAINST = "Below it stands the change against full precision on the same samples."
EVERY = "1s"


class Known(NamedTuple):
    """A plan to start from: what it is called in files, what it is, whether `export` knows it."""

    entries: Entries
    name: str
    mark: str = ""
    searched: bool = False


def show(found: Found) -> None:
    """The plan chosen, its grid, an editor, and what to do with it."""
    st.title("Plan")
    if not found.sites:
        why = "This run did not keep the model's sites; the same command keeps them now:"
        profile_command(found.line, why)
        return
    known = _known(found.search)
    first, second = st.columns([3, 2])
    with first:
        name = choice("Plan", list(known), "plan", strict=True)
    with second:
        batch = batch_of(found.search.batch if found.search is not None else 1)
    if name is None:
        st.warning(
            f"This search has no plan {plain(gone('plan'))}, which the address asks for: choose "
            "one above, or another search on the left."
        )
        return
    base = known[name].entries
    if known[name].mark:
        st.caption(plain(known[name].mark))
    changes = _editor(found, name, base)
    try:
        entries = edited(base, changes, found.sites)
    except SensprobeError as error:
        st.error(plain(str(error)))
        return
    _costs(found, base, entries, batch, changed=bool(changes))
    if found.tuned is not None:
        _tuned(found, entries, found.tuned)
    title = "Bits by layer and part" + (" (edited)" if changes else "")
    grid_of_bits = charts.plan_grid(entries, found.sites, title)
    figure = chart(grid_of_bits, "grid", "Bits of every site, layers down, names across")
    own = f"{known[name].name}-edited" if changes else known[name].name
    own = _measure(found, entries, own)
    searched = known[name].name if known[name].searched and not changes else ""
    _take_home(found, entries, own, figure, searched)


def _known(search: Search | None) -> dict[str, Known]:
    """Label -> plan: what was chosen, the front, uniform plans and recipes, and full precision."""
    if search is None:
        return {EXACT: Known((), "exact")}
    ordered = sorted(search.candidates, key=lambda c: (c.name not in search.picks, not c.on_front))
    telling = {c.name for c in notable(search)}
    ordered.sort(key=lambda c: c.name not in telling)
    out = {c.title: Known(c.entries, c.name, mark_of(c, search), True) for c in ordered}
    out |= {
        b.name: Known(b.entries, b.name, "saved" if b.saved else "compared plan", not b.saved)
        for b in search.compared
        if b.entries
    }
    return out | {EXACT: Known((), "exact")}


def _editor(found: Found, name: str, base: Entries) -> dict[str, str]:
    """Sites whose scheme was changed in the tables -> the new scheme."""
    cells = grid(base, found.sites)
    profiles = found.results.profiles if found.results is not None else ()
    offered = options(profiles, base, found.sites)
    kept = [
        text
        for key in ("layers", "outside")
        for text in st.session_state.get(f"edits {found.line.name} {name} {key}", {}).values()
    ]
    offered += [text for text in dict.fromkeys(kept) if text not in offered]
    priced = priced_schemes(profiles[0], found.sites) if profiles else None
    extra = st.text_input(
        "Another scheme to choose from",
        key="extra",
        placeholder="int4/group32",
        help="FORMAT[/GRANULARITY][/sym|asym][/RANGE][/static|dynamic][/ROUNDING]",
    )
    if extra:
        try:
            offered.append(str(parse(extra)))
        except SensprobeError as error:
            st.error(plain(str(error)))
    changes: dict[str, str] = {}
    inside = {layer: row for layer, row in cells.items() if layer != OUTSIDE}
    for key, rows in (("layers", inside), ("outside", {OUTSIDE: cells.get(OUTSIDE, {})})):
        if any(rows.values()):
            changes |= _table(f"{found.line.name} {name} {key}", rows, offered, key, priced)
    return changes


def _table(
    key: str,
    rows: dict[str, dict[str, str]],
    offered: list[str],
    kind: str,
    priced: Mapping[str, frozenset[str]] | None,
) -> dict[str, str]:
    """Draw a table to edit, each column's priced schemes first, and return what was changed.

    What was changed is kept while other views are shown, and the table starts from it again.
    """
    edits, start = f"edits {key}", f"start {key}"
    if f"edit {key}" not in st.session_state:  # the view was not shown before
        st.session_state[start] = dict(st.session_state.get(edits, {}))
    begun = st.session_state[start]
    first = {
        layer: {n: begun.get(site_name(layer, n), text) for n, text in cells.items()}
        for layer, cells in rows.items()
    }
    frame = pd.DataFrame.from_dict(first, orient="index")
    frame.index = pd.Index(
        [f"layer {layer}" if layer != OUTSIDE else "no layer" for layer in rows], name="where"
    )
    st.caption("Schemes in the layers: edit a cell" if kind == "layers" else "Outside the layers")
    columns = {}
    for name in frame.columns:
        sites = [site_name(layer, name) for layer, cells in rows.items() if name in cells]
        known = set(offered) if priced is None else set().union(*(priced[site] for site in sites))
        columns[name] = st.column_config.SelectboxColumn(
            name,
            options=[t for t in offered if t in known] + [t for t in offered if t not in known],
            required=True,
            format_func=partial(_told, known),
        )
    after = st.data_editor(frame, column_config=columns, key=f"edit {key}", num_rows="fixed")
    now = dict(zip(rows, after.to_dict(orient="records"), strict=True))
    changed = {
        site_name(layer, name): str(now[layer][name])
        for layer, cells in rows.items()
        for name, before in cells.items()
        if str(now[layer][name]) != before
    }
    st.session_state[edits] = changed
    return changed


def _told(priced: Collection[str], scheme: str) -> str:
    return scheme if scheme in priced else f"{scheme} ({NOT_PRICED})"


def _costs(found: Found, base: Entries, entries: Entries, batch: int, *, changed: bool) -> None:
    """Bytes, exact; loss, predicted and (where the ledger has it) measured."""
    now, before = (
        cost(found.sites, resolved(e, found.sites), batch=batch) for e in (entries, base)
    )
    confirmed = _confirmed(found, entries)
    columns = list(st.columns(4 if confirmed is None else 5))
    if confirmed is not None:
        columns[0].metric(*confirmed, delta_color="off", delta_arrow="off", help=AGAINST)
    first, second, third, fourth = columns[-4:]
    profile = found.results.sensitivity if found.results is not None else None
    guess = None if profile is None else predicted(entries, found.sites, profile)
    first.metric(
        f"bytes at batch {batch}",
        in_bytes(now.total_bytes),
        f"{now.total_bytes - before.total_bytes:+,} bytes" if changed else None,
        # fewer bytes are good news where it is known what they cost
        delta_color="off" if guess is not None and guess.unpriced else "inverse",
    )
    second.metric("weights", in_bytes(now.weight_bytes))
    second.caption(f"state {in_bytes(now.state_bytes)}")
    if profile is not None and guess is not None:
        unit = profile.additive
        least = "at least " if guess.unpriced else ""
        nothing = NOT_PRICED if guess.unpriced else "0"
        third.metric(
            plain(f"predicted {unit.heading}"),
            f"{least}{level_text(unit, guess.loss)}" if guess.priced else nothing,
            help="The sum of what each group lost alone: a prediction, not a measurement.",
        )
        _unpriced(found, profile, guess)
    assert found.run is not None
    known = measured_plan(found.run, fingerprint(resolved(entries, found.sites)))
    if known is None:
        fourth.metric("measured", "not yet")
    else:
        q, score, change = known
        fourth.metric(
            plain(f"measured {q.heading}"),
            q.level(score),
            f"{q.change(change)} {plain(q.change_unit)}",
            delta_color="off",
            delta_arrow="off",
            help=AGAINST,
        )


def _confirmed(found: Found, entries: Entries) -> tuple[str, str, str] | None:
    """Heading, score and difference of a plan that was confirmed on samples nothing had seen."""
    known, search = found.confirmation, found.search
    if known is None or search is None:
        return None
    mine = resolved(entries, found.sites)
    for plan in known.plans:
        candidate = search.candidate(plan.candidate)
        if candidate is not None and resolved(candidate.entries, found.sites) == mine:
            q = known.quantity
            change = f"{q.change(plan.change)} {plain(q.change_unit)}"
            return plain(f"confirmed {q.heading}"), q.level(plan.metric), change
    return None


def _tuned(found: Found, entries: Entries, trained: Tuning) -> None:
    """The plan's tuned model, where there is one, and the command that exports it."""
    mark, q = fingerprint(resolved(entries, found.sites)), trained.quantity
    plan = next((p for p in trained.plans if p.asked_fingerprint == mark), None)
    if plan is None:
        return
    scores, change = plan.confirmation, plain(q.change_unit)
    st.markdown(
        f"**Tuned** ({plain(plan.name)}): {plain(q.heading)} {plain(q.level(scores.after))} on "
        f"{scores.n:,} confirmation samples, untuned {plain(q.level(scores.before))}: "
        f"{plain(q.change(scores.gained))} {change} by tuning, {plain(q.change(scores.left))} "
        f"{change} to full precision"
    )
    where = ["--run", found.line.path, "--plan", f"tuned/{plan.name}"]
    command(["sensprobe", "export", *where, "--out", "exported"], "Take the tuned model home:")


def _unpriced(found: Found, profile: Sensitivity, guess: Prediction) -> None:
    """What the prediction lacks, and a button that has it measured, where a profile can."""
    if not guess.unpriced:
        return
    names = list(guess.unpriced)
    few = ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
    st.warning(
        "The prediction is without what no profile priced as this plan has it, which may be most "
        f"of the loss: {plain(few)}"
    )
    schemes = list(dict.fromkeys(text for text in guess.unpriced.values() if text))
    if None in guess.unpriced.values() and profile.by == "part":
        st.caption("Parts whose layers differ are priced by a profile by site.")
    if schemes and found.run is not None and _writable(found):
        about = f"{', '.join(schemes)}: `sensprobe profile` with {profile.n:,} samples each"
        going = jobs.running(found.run, jobs.PRICING)
        if st.button("Price them", help=about, disabled=going):
            _start(lambda run: jobs.price(run, profile, schemes), found.run)


def _measure(found: Found, entries: Entries, own: str) -> str:
    """What the plan is called, buttons that save and measure it, and the progress of what they
    started. Returns the name."""
    assert found.run is not None
    st.subheader("Measure it")
    if not _writable(found):
        st.caption("The example run is read-only: make a run of your own to measure plans in it.")
        return own
    n = found.search.n if found.search is not None else _samples(found)
    name = st.text_input("Name", own, key=f"name {own}", max_chars=60)
    about = f"Scores it on {n:,} search samples with `sensprobe eval`, in the background."
    going = jobs.running(found.run, name)
    plan = Plan(tuple((s, parse(t)) for s, t in entries), name)
    first, second, _ = st.columns([1, 1, 4])
    if first.button("Measure it", help=about, disabled=going or not entries):
        _start(lambda run: jobs.measure(run, plan, n), found.run)
    save = second.button("Save it", help="Keeps it under its name", disabled=not entries)
    if save and _start(lambda run: jobs.save(run, plan), found.run):
        st.session_state["saved"] = name
        st.rerun()  # it is among the plans on offer
    if saved := st.session_state.pop("saved", ""):
        st.success(f"Saved as {plain(saved)}: it is among the plans above.")
    st.fragment(run_every=EVERY)(_jobs)(str(found.run.path))
    return name


def _start(job: Callable[[Run], object], run: Run) -> bool:
    """Starts a job, or says why it cannot; returns whether it did."""
    try:
        job(run)
        return True
    except jobs.RefusedError as error:
        st.error(plain(str(error)))
        st.caption("In a terminal:")
        st.code(error.command, language="bash", wrap_lines=True)
    except (SensprobeError, OSError) as error:
        st.error(plain(str(error)))
    return False


def _jobs(path: str) -> None:
    """Show the jobs that were started here for this run."""
    for (where, name), job in list(jobs.jobs().items()):
        if where != path:
            continue
        if job.running:
            st.info(f"{plain(name)}: running for {job.seconds:.0f} s")
            if job.said:
                st.code(job.said, language=None)
        elif job.process.returncode == 0:
            done = f"done-{name}-{job.began}"
            st.success(f"{plain(name)}: done")
            if done not in st.session_state:
                st.session_state[done] = True
                st.rerun()
        else:
            st.error(f"{plain(name)} failed with exit code {job.process.returncode}")
            st.code(job.said, language=None)


def _take_home(found: Found, entries: Entries, own: str, figure: go.Figure, searched: str) -> None:
    """Downloads: the plan, the grid as a page and as CSV, and an exported folder; the last of what
    is `searched`, the name that the search gave it."""
    assert found.run is not None
    st.subheader("Take it home")
    plan = Plan(tuple((s, parse(t)) for s, t in entries), own)
    first, second, third, fourth = st.columns(4)
    told = strict_json(plan.to_json())
    first.download_button("plan.json", told, f"{own}.json", "application/json")
    table = pd.DataFrame.from_dict(grid(entries, found.sites), orient="index")
    table = table.rename_axis("layer").reset_index()
    second.download_button(
        "Schemes as CSV", lambda: csv_bytes(table), f"{own}.csv", "text/csv", key="csv"
    )
    third.download_button(
        "Figure as HTML",
        lambda: figure.to_html(include_plotlyjs=True),
        f"{own}.html",
        "text/html",
    )
    if not searched or found.partial or not _writable(found):
        fourth.caption("A searched plan that is not edited can be exported as a folder that loads.")
        return
    going = jobs.running(found.run, f"export-{searched}")
    about = "packed weights, config.json, plan.json and a model card"
    if fourth.button("Export", help=about, disabled=going):
        _start(lambda run: jobs.export(run, searched), found.run)
    folder = found.run.path / "exported" / searched
    if (folder / "config.json").is_file():
        fourth.download_button(
            f"{searched}.zip", partial(_zipped, folder), f"{searched}.zip", "application/zip"
        )


def _zipped(folder: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return packed.getvalue()


def _samples(found: Found) -> int:
    assert found.run is not None
    count = found.run.manifest.splits.get("search", {}).get("count", 0)
    return int(count) or 1


def _writable(found: Found) -> bool:
    return not found.line.path.is_relative_to(EXAMPLE)
