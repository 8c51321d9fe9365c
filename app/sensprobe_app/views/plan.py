"""One plan: bits by layer and part, what a change would cost, measured on request, taken home."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import plotly.graph_objects as go
import streamlit as st

from sensprobe.cli.options import RUNTIMES
from sensprobe.documents.files import strict_json
from sensprobe.errors import SensprobeError
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import Plan, fingerprint
from sensprobe.plans.presets import PRESETS, presets_for, selective
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Site
from sensprobe.report import changes as next_changes
from sensprobe.report import charts
from sensprobe.report.benchmark_tables import step_table
from sensprobe.report.benchmarks import steps_of
from sensprobe.report.dataframes import pd
from sensprobe.report.editing import (
    Prediction,
    edited,
    grid,
    predicted,
)
from sensprobe.report.fronts import at_batch
from sensprobe.report.live import measured_plan
from sensprobe.report.names import told_apart
from sensprobe.report.plans import EXACT_TEXT, resolved
from sensprobe.report.ranges import read_values
from sensprobe.report.results import Entries, Search, Sensitivity
from sensprobe.report.tables import mark_of, notable
from sensprobe.report.tuned import Tuning
from sensprobe.report.values import Measured, Quantity, in_bytes, level_text
from sensprobe.report.writing import csv_bytes
from sensprobe.runs import Run
from sensprobe_app import jobs, store
from sensprobe_app.controls import batch_of, chart, choice, command, gone, plain, profile_command
from sensprobe_app.editor import NOT_PRICED, Editor
from sensprobe_app.store import EXAMPLE, Found

EXACT = "full precision"
AGAINST = "Below it stands the change against full precision on the same samples."
EVERY = "1s"
CROSSBAR = "crossbar"


class Known(NamedTuple):
    """A plan to start from: its name in files, what it is called here, what it is, and whether a
    search measured it, so that `export` knows it by its name."""

    entries: Entries
    name: str
    told: str
    mark: str
    searched: bool = False


def show(found: Found) -> None:
    """The plan chosen, what it costs, its grid, an editor, and what to do with it."""
    st.title("Plan")
    if not found.sites:
        why = "This run did not keep the model's sites; the same command keeps them now:"
        profile_command(found.line, why)
        return
    first, second = st.columns([3, 2])
    with second:
        batch = batch_of(found.search.batch if found.search is not None else 1)
    known = _known(found, batch)
    with first:
        told = {name: plan.told for name, plan in known.items()}
        name = choice("Plan", list(known), "plan", strict=True, told=told)
    if name is None:
        st.warning(
            f"This search has no plan {plain(gone('plan'))}, which the address asks for: choose "
            "one above, or another search on the left."
        )
        return
    plan, base = known[name], known[name].entries
    mark = st.empty()
    above, grid_place = st.container(), st.container()
    editor = Editor(found, name, base)
    changes = editor.drawn()
    try:
        entries = edited(base, changes, found.sites)
    except SensprobeError as error:
        st.error(plain(str(error)))
        return
    what = f"edited, from a plan that is: {plan.mark}" if changes else plan.mark
    mark.caption(plain(what), help=f"In files and commands it is {plan.name}.")
    with above:
        _costs(found, base, entries, batch, changed=bool(changes))
        if found.tuned is not None:
            _tuned(found, entries, found.tuned)
    title = "Bits by layer and part" + (" (edited)" if changes else "")
    grid_of_bits = charts.plan_grid(entries, found.sites, title, base)
    with grid_place:
        figure = chart(grid_of_bits, "grid", "Bits of every site, layers down, names across")
    _next_changes(found, entries, batch, editor)
    _ranges(found, entries)
    own = f"{plan.name}-edited" if changes else plan.name
    own = _measure(found, entries, own)
    _kernel_times(found, entries, own)
    _take_home(found, entries, own, figure, searched=plan.searched and own == plan.name)


def _known(found: Found, batch: int) -> dict[str, Known]:
    """Name -> plan: what was chosen, the front, uniform plans, presets, and full precision."""
    out = {}
    if found.search is not None:
        search = at_batch(found.search, batch)
        first = {c.name for c in notable(found.search)}
        ordered = sorted(
            search.candidates, key=lambda c: (c.name not in search.picks, c.name not in first)
        )
        measured = [b for b in search.compared if b.entries]
        told = told_apart([*ordered, *measured], search)
        for c in ordered:
            mark = mark_of(c, search) or "dominated"
            out[c.name] = Known(c.entries, c.name, told[c.name], mark, True)
        for b in measured:
            mark = "saved" if b.saved else "compared plan"
            out[b.name] = Known(b.entries, b.name, told[b.name], mark, not b.saved)
    for name, preset in _presets(found.sites).items():
        entries = tuple((site, str(scheme)) for site, scheme in preset.entries)
        size = in_bytes(cost(found.sites, resolved(entries, found.sites), batch=batch).total_bytes)
        known = Known(entries, name, f"{name} · {size}", f"preset: {PRESETS[name].about}")
        out.setdefault(name, known)
    return out | {EXACT: Known((), "exact", EXACT, "every tensor in float32")}


@lru_cache(maxsize=4)
def _presets(sites: tuple[Site, ...]) -> dict[str, Plan]:
    """`presets_for`, once a model: it fits every preset to every site."""
    return presets_for(sites)


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
        f"{more:+,} bytes" if (more := now.total_bytes - before.total_bytes) and changed else None,
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
    mark = fingerprint(resolved(entries, found.sites))
    known = _searched(found.search, mark) or measured_plan(found.run, mark)
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


def _searched(search: Search | None, mark: str) -> tuple[Quantity, Measured, Measured] | None:
    """The score and change of the plan with that fingerprint as the search has them: unlike the
    ledger, it knows which samples belong together."""
    if search is None:
        return None
    plan = next((c for c in search.candidates if c.plan_fingerprint == mark), None)
    return None if plan is None else (search.quantity, plan.metric, plan.change)


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


def _next_changes(found: Found, entries: Entries, batch: int, editor: Editor) -> None:
    """Which change of one group saves most for what it loses, and which wins back most."""
    profile = found.results.sensitivity if found.results is not None else None
    if profile is None or found.run is None:
        return
    every = next_changes.changes(entries, found.sites, profile, batch)
    st.subheader("The next change")
    st.caption(
        f"Groups of the {profile.method} profile, each in its best other scheme, by loss a byte at "
        f"batch {batch}. A loss is of the change alone, on the same samples; ± one "
        "standard error, where it is known."
    )
    for title, kept in (
        ("Saves most for what it loses", next_changes.saving(every)),
        ("Wins back most for what it takes", next_changes.spending(every)),
    ):
        st.markdown(f"**{title}**")
        if not kept:
            st.caption("None that the profile priced.")
            continue
        kept = next_changes.with_paired_errors(kept, found.run)
        picked = st.dataframe(
            next_changes.table(kept, profile),
            hide_index=True,
            on_select="rerun",
            selection_mode="single-row",
            key=title,
        ).selection.rows
        chosen = kept[picked[0]] if picked and picked[0] < len(kept) else kept[0]
        about = f"{chosen.group} to {chosen.after}"
        st.button(f"Make it: {about}", on_click=editor.put, args=(chosen.schemes,), key=about)


def _ranges(found: Found, entries: Entries) -> None:
    """How large the values of a tensor are, where a job has looked; else a button that does."""
    assert found.run is not None
    st.subheader("Range of a tensor")
    rows = jobs.told(found.run, jobs.RANGES).get("rows")
    values = read_values(rows if isinstance(rows, list) else ())
    if values:
        site = st.selectbox("Tensor", list(values), key="tensor")
        scheme = str(resolved(entries, found.sites).get(site, EXACT_TEXT))
        chart(charts.octaves(values[site], scheme), "octaves", "How large values are, by octave")
    elif _writable(found):
        about = (
            "Weights as stored; states and activations on the calibration split, by sensprobe sites"
        )
        look = st.button("Look", help=about, disabled=jobs.running(found.run, jobs.RANGES))
        if look and _start(jobs.ranges, found.run):
            st.rerun()
    else:
        st.caption("The example run is read-only: make a run of your own to look at ranges.")


def _kernel_times(found: Found, entries: Entries, own: str) -> None:
    """What a step takes under the plan, by kind of operation, where it was timed."""
    assert found.run is not None
    st.subheader("Time of a step")
    every = store.benchmarks([found.line]).values()
    timed = steps_of(every, fingerprint(resolved(entries, found.sites)))
    if timed:
        st.dataframe(step_table(timed), hide_index=True)
        return
    try:
        words: list[object] = ["sensprobe", "bench", *jobs.subject(found.run)]
    except SensprobeError as error:
        st.error(plain(str(error)))
        return
    if entries:
        words += ["--plan", found.run.path / jobs.FOLDER / f"{own}.json"]
    why = "This plan was not timed. Once it is saved, this times it and keeps the result here:"
    command([*words, "--batch", "1,64", "--run", found.run.path], why)


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


JOBS = {jobs.PRICING: "Pricing what no profile had", jobs.RANGES: "Ranges of the tensors"}
"""What jobs that no plan is the name of are called."""


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
        name = JOBS.get(name, name)
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


def _take_home(
    found: Found, entries: Entries, own: str, figure: go.Figure, *, searched: bool
) -> None:
    """Downloads: the plan, the grid as a page and as CSV, and an exported folder."""
    assert found.run is not None
    st.subheader("Take it home")
    plan = Plan(tuple((s, parse(t)) for s, t in entries), own)
    first, second, third = st.columns(3)
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
    if entries and _writable(found):
        _export(found, found.run, plan, searched=searched and not found.partial)


def _export(found: Found, run: Run, plan: Plan, *, searched: bool) -> None:
    """Write the plan's model as a folder, here or for a runtime, and say what that one drops."""
    served = RUNTIMES if selective(found.sites) else ()
    first, second, third = st.columns([2, 1, 2], vertical_alignment="bottom")
    runtime = first.selectbox(
        "Export for",
        ["", *served, CROSSBAR],
        key="runtime",
        format_func=lambda name: name or "sensprobe: packed weights, plan.json, a model card",
        help="`sensprobe export --for`; what a runtime cannot express is said below.",
    )
    folder = jobs.exported(plan.name, runtime)
    if not jobs.NAME.fullmatch(folder):
        st.caption("It is exported under a name of letters, digits, - and _: give it one above.")
        return
    job = f"export-{folder}"
    if second.button("Export", disabled=jobs.running(run, job)):
        _start(lambda run: jobs.export(run, plan, runtime, searched=searched), run)
    path, found_out = run.path / "exported" / folder, jobs.told(run, job)
    linked = path.is_symlink() or path.parent.is_symlink()
    if path.is_dir() and not linked and not jobs.running(run, job):
        third.download_button(
            f"{folder}.zip", partial(_zipped, path), f"{folder}.zip", "application/zip"
        )
    try:
        if "dropped" in found_out:
            _dropped(found_out)
        if "digital" in found_out:
            digital = pd.DataFrame(found_out["digital"])
            st.markdown("Not on a crossbar:")
            st.dataframe(digital, hide_index=True)
    except (AttributeError, KeyError, TypeError, ValueError):
        st.warning("What that export said of itself cannot be read: export it again.")


def _dropped(told: Mapping[str, Any]) -> None:
    """What a runtime keeps of a plan, and what becomes of the rest."""
    rows = [*told["dropped"], *told["narrowed"]]
    weights, states = told["weight_bytes"], told["state_bytes"]
    st.markdown(
        f"**{plain(told['target'])}** keeps {told['quantized']} matrices quantized: weights "
        f"{in_bytes(weights['here'])} ({in_bytes(weights['plan'])} in the plan), state "
        f"{in_bytes(states['here'])} ({in_bytes(states['plan'])})"
        + (f". It drops {len(told['dropped'])}:" if rows else ", and drops nothing.")
    )
    if rows:
        st.dataframe(pd.DataFrame(rows), hide_index=True)
    for line in told["warnings"]:
        st.warning(plain(line))
    st.code("\n".join(told["use"]), language="python")


def _zipped(folder: Path) -> bytes:
    """The files of a folder, and none that a link in it leads to."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.is_symlink():
                archive.write(file, file.name)
    return packed.getvalue()


def _samples(found: Found) -> int:
    assert found.run is not None
    count = found.run.manifest.splits.get("search", {}).get("count", 0)
    return int(count) or 1


def _writable(found: Found) -> bool:
    return not found.line.path.is_relative_to(EXAMPLE)
