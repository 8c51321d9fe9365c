"""Commands that run in the background of a run: measure a plan, price schemes, count how large
values are, export a plan. No others.

A run may name code (data or a metric as `python:…`). It is never allowed from here: where the user
has not allowed it before, nothing is started, and the command that would is shown.

Everything lies in the run's own folder `plans/`:

    NAME.json       the plan
    NAME.log        what the command says while it works (stderr)
    NAME.out.json   what it found
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from sensprobe.documents import DocumentError, read_json
from sensprobe.documents.files import require_no_link, strict_json, write_whole
from sensprobe.errors import CodeError, UsageError
from sensprobe.jobs.plan_files import is_saved
from sensprobe.plans.plan import Plan
from sensprobe.report.results import Sensitivity
from sensprobe.runs import Run
from sensprobe.usercode.trust import Remembered, check_settings

FOLDER = "plans"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")


class RefusedError(CodeError):
    """A job would run code which the user has not allowed; `command` is what they may type."""

    def __init__(self, reason: str, command: str) -> None:
        super().__init__(reason)
        self.command = command


@dataclass(slots=True)
class Job:
    """A command that was started here."""

    name: str
    log: Path
    out: Path
    process: subprocess.Popen[bytes]
    began: float

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def said(self) -> str:
        """The last lines of its log."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-12:])

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


@st.cache_resource(show_spinner=False)
def jobs() -> dict[tuple[str, str], Job]:
    """(run folder, name) -> the job of that name."""
    return {}


def named(name: str) -> str:
    """A name that is safe for a file; UsageError for any other."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a plan here: use letters, digits, - and _, at most 60."
        )
    return name


def running(run: Run, name: str) -> bool:
    """Return whether a job of that name still runs."""
    job = jobs().get((str(run.path), name))
    return job is not None and job.running


def measure(run: Run, plan: Plan, n: int) -> Job:
    """Score a plan, and full precision, on n search samples, as `--limit n` takes them; both
    evaluations land in the run's ledger."""
    _require_idle(run, named(plan.name))
    path = save(run, plan)
    words = ["eval", "--run", str(run.path), "--plan", str(path), "--split", "search"]
    words += ["--limit", str(n), "--compare", "--json"]
    return _start(run, plan.name, words)


def save(run: Run, plan: Plan) -> Path:
    """Keep a plan in the run under its name; UsageError where a search keeps one under it, or what
    is there cannot be read."""
    path = _folder(run) / f"{named(plan.name)}.json"
    if path.exists() and not is_saved(path):
        raise UsageError(
            f"{path} is the file of a plan that a search chose, or no plan: take another name."
        )
    write_whole(path, strict_json(plan.to_json()))
    return path


PRICING = "price"
"""The name of the job that prices schemes."""


def price(run: Run, profile: Sensitivity, schemes: Sequence[str]) -> Job:
    """Profile the run's groups in more schemes; the profile keeps those that it has."""
    words = ["profile", *subject(run, metric="--metric")]
    words += ["--by", profile.by, "--method", profile.method, "--limit", str(profile.n)]
    words += [word for text in (*profile.schemes, *schemes) for word in ("--scheme", text)]
    return _start(run, PRICING, [*map(str, words), "--run", str(run.path), "--json"])


def subject(run: Run, **more: str) -> list[str]:
    """The model and the data of a run as the command line takes them; `more` are settings that the
    command knows besides, each with its option."""
    known, settings = {"norm": "--norm", "data_seed": "--data-seed"} | more, run.manifest.settings
    values = {key: str(settings[key]) for key in ("model", "data", *known) if settings.get(key)}
    if odd := [value for value in values.values() if value.startswith("-")]:
        raise UsageError(
            f"{run.path} was made of {odd[0]!r}, which a command would take otherwise."
        )
    words = [values["model"], "--data", values["data"]]
    return words + [w for key, flag in known.items() if key in values for w in (flag, values[key])]


RANGES = "ranges"
"""The name of the job that looks at how large values are."""


def ranges(run: Run) -> Job:
    """Count how large the values of every tensor are, on the calibration split."""
    return _start(run, RANGES, ["sites", *subject(run), "--json"])


def exported(plan: str, runtime: str) -> str:
    """The name of the folder, and of the job that writes it, of a plan for a runtime."""
    return f"{plan}-{runtime.replace('.', '-')}" if runtime else plan


def export(run: Run, plan: Plan, runtime: str = "", *, searched: bool) -> Job:
    """Write a plan as a folder that loads anywhere, or for a runtime, into `exported/` of the run.

    One that a search has `searched` goes by its name there and brings its scores; another is saved
    first, and its command needs no search."""
    name = named(f"export-{exported(plan.name, runtime)}")
    out = run.path / "exported" / exported(plan.name, runtime)
    require_no_link(out.parent)
    words = ["export", "--out", str(out), "--overwrite", *(["--for", runtime] if runtime else [])]
    if searched:
        words += ["--run", str(run.path), "--plan", plan.name]
    else:
        words += [*subject(run), "--plan", str(save(run, plan))]
    return _start(run, name, [*words, "--json"])


def told(run: Run, name: str) -> dict[str, Any]:
    """What the job of that name found, as it printed it, a list as `rows`; nothing where it has not
    ended well."""
    path = run.path / FOLDER / f"{name}.out.json"
    if running(run, name) or path.is_symlink():
        return {}
    try:
        document = read_json(path)
    except DocumentError:
        return {}
    return document if isinstance(document, dict) else {"rows": document}


def _start(run: Run, name: str, words: list[str]) -> Job:
    _require_idle(run, name)
    _require_allowed(run, words)
    folder = _folder(run)
    log, out = folder / f"{name}.log", folder / f"{name}.out.json"
    command = [sys.executable, "-m", "sensprobe", *words]
    for file in (log, out):
        file.unlink(missing_ok=True)  # not what a link may lead to
    with log.open("xb") as said, out.open("xb") as told:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=told, stderr=said, start_new_session=True
        )
    job = Job(name, log, out, process, time.monotonic())
    jobs()[str(run.path), name] = job
    return job


def _require_idle(run: Run, name: str) -> None:
    """UsageError where a job of that name still runs: two would write the same files."""
    if running(run, name):
        raise UsageError(f"{name} is being worked on already; wait for it, or take another name.")


def _require_allowed(run: Run, words: list[str]) -> None:
    """RefusedError where the run names code that this user has not allowed as it is now."""
    try:
        check_settings(run.manifest.settings, Remembered(str(run.path)))
    except CodeError as error:
        command = shlex.join(["sensprobe", *words, "--allow-code"])
        raise RefusedError(str(error), command) from error


def _folder(run: Run) -> Path:
    folder = run.path / FOLDER
    folder.mkdir(exist_ok=True)
    require_no_link(folder)
    return folder
