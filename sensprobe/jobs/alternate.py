"""Search and training by turns: `search --tune`.

A search judges plans as the model stands, and training changes what each of them costs. So, for
each budget:

    the few   the chosen plan and those that came closest to it are tuned for an epoch
    tune      the best of them is tuned on
    again     the sensitivities of the tuned model are measured, as the run's were, and searched
              under the same budget, in a run of its own; the plan found there is tuned on from the
              tuned weights, and stands if that is better

    fewer     for each number of states or kernels that was asked for: a model with so few is
              profiled, searched and tuned by the same turns, in a run of its own, and stands if it
              is better

Each step is judged on the samples that the search used, paired with what stood before it. Where all
tuning together gains nothing beyond its error there is no search again. The tuned models are in the
run as `tune` leaves them, confirmed on unseen samples.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sensprobe.documents import read_json
from sensprobe.errors import BudgetError
from sensprobe.evaluate import mean, paired, score_document
from sensprobe.jobs.fewer import PrunedTo, fewer, searchable
from sensprobe.jobs.profile import profile
from sensprobe.jobs.search import SearchSettings, run_of, search, sensitivity_of
from sensprobe.jobs.train_under import RESULT as TUNED
from sensprobe.jobs.train_under import TuneSettings, train_under, without_gptq
from sensprobe.jobs.tune import tune
from sensprobe.jobs.tuned import (
    PREFIX,
    folder_of,
    keep_tuned,
    open_tuned,
    opened_as,
    tuned_arrays,
)
from sensprobe.plans.plan import Plan, Resolved, fingerprint, from_json, read
from sensprobe.plans.scheme import parse
from sensprobe.search import Size
from sensprobe.session.open import run_for
from sensprobe.session.session import Session
from sensprobe.train import Progress

RESULT = "turns"
FEW = 3
"""Plans of a budget that are tuned briefly."""
BRIEF, AGAIN = "brief", "again"


@dataclass(frozen=True)
class Standing:
    """A plan, and the session of the weights it stands on; `weights` are None before any tuning.
    `asked` is the plan as a search chose it, before training left GPTQ out or learned ranges."""

    name: str
    plan: Plan
    session: Session
    weights: Path | None = None
    asked: Plan | None = None

    @property
    def resolved(self) -> Resolved:
        return self.plan.resolve(self.session.source.model.sites.values())

    @property
    def to_tune(self) -> Plan:
        """The plan that is named to `tune`, which knows it by the search."""
        return self.plan if self.asked is None else self.asked


def alternate(
    session: Session,
    found: Mapping[str, Any],
    settings: SearchSettings,
    tuning: TuneSettings,
    *,
    pruned: Sequence[PrunedTo] = (),
    resume: bool = True,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Tune what a search of the session's run found, and search again what was tuned.

    `found` is the search's document. Models `pruned` to each of these compete: see above.
    What was trained before goes on, or stays, unless `resume` is False. Returns the document kept
    as `turns` in the run: for each budget the tuned model that stands, and a row a step with its
    plan, seconds, score on the search split, and what it gained in all and a minute.
    """
    tuned: dict[str, Standing] = {}
    turns = {
        choice["budget"]: _Turns(
            session, found, settings, tuning, progress, choice, tuned, resume=resume
        )
        for choice in found["chosen"]
    }
    for budget in turns.values():
        budget.take()
    for kept in pruned:
        rivals = _with_fewer(session, kept, settings, tuning, progress, resume)
        for name, (rival, seconds) in rivals.items():
            turns[name].compete(rival, str(kept), seconds)
    budgets = [
        {"budget": name, "stands": PREFIX + budget.stands.name, "steps": budget.steps}
        for name, budget in turns.items()
        if budget.stands is not None
    ]
    head = {key: found[key] for key in ("metric", "metric_info", "sign", "n")}
    document = {**head, "epochs": tuning.epochs, "budgets": budgets}
    run_of(session).write_result(RESULT, document)
    return document


def _search_alike(
    outer: Session, model: Session, folder: Path, settings: SearchSettings
) -> tuple[Session, dict[str, Any]]:
    """A search of another model as the outer run's was made, in a run of its own: the session of
    that run, and the search's document."""
    known, source = sensitivity_of(run_of(outer)), model.source
    remembered = {**run_of(outer).manifest.settings, "model": str(source.path)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    run = run_for(folder, source, outer.dataset, remembered)
    inner = Session(source, outer.dataset, run, outer.progress, outer.headline, outer.data_seed,
                    whole=model.whole)  # fmt: skip
    with run.working("search"):
        schemes = [parse(text) for text in known["schemes"]]
        profile(inner, schemes, by=known["by"], method=known["method"], limit=known["n"])
        return inner, search(inner, replace(settings, also=()))


def _with_fewer(
    outer: Session,
    kept: PrunedTo,
    settings: SearchSettings,
    tuning: TuneSettings,
    progress: Callable[[Progress], None],
    resume: bool = True,
) -> dict[str, tuple[Standing, float]]:
    """What stands of each budget after the turns of a model with so much kept, and the seconds of
    training. Its tuned models get rows in the outer run, one where budgets share one. Where the
    model leaves nothing to search within a budget that is said, and it does not compete."""
    run, out, known = run_of(outer), {}, dict[str, Standing]()
    folder = folder_of(run, kept.ending[1:])
    model = fewer(outer, kept, folder, resume)
    settings = replace(settings, budgets=searchable(model, kept, settings.budgets, settings.batch))
    if not settings.budgets:
        return {}
    try:
        inner, found = _search_alike(outer, model, folder / "search", settings)
    except BudgetError as error:
        outer.progress.note(f"{kept} do not compete: {error}")
        return {}
    turns = alternate(inner, found, settings, tuning, resume=resume, progress=progress)
    for row in turns["budgets"]:
        seconds = sum(step["seconds"] or 0 for step in row["steps"])
        if (same := known.get(row["stands"])) is not None:
            out[row["budget"]] = same, seconds
            continue
        tuned = open_tuned(inner, row["stands"])
        weights = tuned.session.source.path
        name = row["budget"] + kept.ending
        document = read_json(weights.parent / TUNED)
        asked = document["asked_fingerprint"] + kept.ending
        document |= {"name": name, "candidate": None, "asked_fingerprint": asked}
        keep_tuned(run, document, tuned.plan, weights.parent)
        known[row["stands"]] = Standing(name, tuned.plan, tuned.session, weights)
        out[row["budget"]] = known[row["stands"]], seconds
    return out


@dataclass
class _Turns:
    """The steps of one budget. `tuned` has what earlier budgets tuned, by the fingerprint of the
    plan: a run keeps one tuned model of a plan, so it is taken as it is."""

    session: Session
    found: Mapping[str, Any]
    settings: SearchSettings
    tuning: TuneSettings
    progress: Callable[[Progress], None]
    choice: Mapping[str, Any]
    tuned: dict[str, Standing] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    stands: Standing | None = None
    resume: bool = True

    @cached_property
    def candidates(self) -> dict[str, Mapping[str, Any]]:
        return {row["name"]: row for row in self.found["candidates"]}

    def take(self) -> None:
        """Take the steps, none of a budget for which no plan was found."""
        if self.choice["candidate"] is None:
            return
        budget, chosen = self.choice["budget"], self._untuned(self.choice["candidate"])
        self._step("search", chosen)
        best = self._best_of_few(chosen)
        stands = self._tuned(best, budget)
        scores = self._scores(stands), self._scores(chosen)
        gained = paired(*scores, self._groups, robust=self.session.headline.robust)
        if gained.value * self.session.headline.sign > 0 and gained.differs():
            stands = self._again(stands, f"{budget}-{AGAIN}")
        self.stands = stands

    def compete(self, rival: Standing, step: str, seconds: float) -> None:
        """Add the step of a rival that was tuned elsewhere; it stands if it scores better."""
        self._step(step, rival, self.stands, seconds)
        if self.stands is None or self._better(rival, self.stands):
            self.stands = rival

    def _better(self, after: Standing, before: Standing) -> bool:
        gained = paired(self._scores(after), self._scores(before), self._groups)
        return gained.value * self.session.headline.sign > 0

    def _untuned(self, name: str) -> Standing:
        plan = from_json(self.candidates[name]["plan"], f"the plan {name} of the search")
        return Standing(name, plan, self.session)

    def _best_of_few(self, chosen: Standing) -> Standing:
        """The chosen plan or a rival, whichever scores best after an epoch of tuning."""
        plans = [chosen, *map(self._untuned, self._rivals())]
        if len(plans) == 1 or self.tuning.epochs == 1:
            return chosen
        brief, tried = replace(self.tuning, epochs=1), []
        for before in plans:
            out = folder_of(run_of(self.session), self.choice["budget"]) / f"{BRIEF}-{before.name}"
            done = train_under(
                self.session, before.plan, brief, out, resume=self.resume, progress=self.progress
            )
            weights = done.trained.weights
            after = opened_as(self.session, weights)
            tried.append(Standing(before.name, done.plan, after, weights, before.plan))
            self._step("tune briefly", tried[-1], before, done.trained.seconds)
        scores = [row["score"]["value"] for row in self.steps[-len(plans) :]]
        return tried[int(np.argmax(self.session.headline.sign * np.array(scores)))]

    def _rivals(self) -> list[str]:
        """The plans that scored best within the budget after the chosen one; where the budget is
        of loss and looks for the fewest bytes, of those that take no more than it."""
        sign, chosen = self.session.headline.sign, self.choice["candidate"]
        own = self.candidates[chosen]
        most = own["weight_bytes"] + own["state_bytes"]
        budget = next(b for b in self.settings.budgets if str(b) == self.choice["budget"])
        fits = [
            row
            for row in self.found["candidates"]
            if row["name"] != chosen
            and not row["stopped_early"]
            and budget.admits(size := Size(row["weight_bytes"], row["state_bytes"]))
            and (budget.max_loss is None or size.total <= most)
        ]
        fits.sort(key=lambda row: -sign * row["metric"]["value"])
        return [row["name"] for row in fits[: FEW - 1]]

    def _tuned(self, before: Standing, name: str, step: str = "tune") -> Standing:
        """A plan tuned on from where it stands, as the run's tuned model of that name; or as an
        earlier budget tuned it, in no time."""
        mark = fingerprint(before.to_tune.resolve(self.session.source.model.sites.values()))
        if (after := self.tuned.get(mark)) is not None:
            self._step(step, after, before, 0.0)
            return after
        document = tune(
            self.session, before.to_tune, None, self.tuning, name=name, start=before.weights,
            resume=self.resume, progress=self.progress,
        )  # fmt: skip
        weights, plan = Path(document["weights"]), read(Path(document["plan"]))
        after = Standing(name, plan, opened_as(self.session, weights), weights)
        self._step(step, after, before, document["seconds"])
        self.tuned[mark] = after
        return after

    def _again(self, stands: Standing, name: str) -> Standing:
        """What a search of the tuned model finds, tuned on, where that is better than what
        stands."""
        began = time.monotonic()
        plan = self._searched(stands, folder_of(run_of(self.session), name) / "search")
        if plan is None:
            return stands
        found = Standing(name, plan, stands.session, stands.weights)
        self._step("search again", found, stands, time.monotonic() - began)
        sites = self.session.source.model.sites.values()
        if fingerprint(without_gptq(plan).resolve(sites)) == fingerprint(stands.resolved):
            return stands
        after = self._tuned(found, name, "tune again")
        return after if self._better(after, stands) else stands

    def _searched(self, stands: Standing, folder: Path) -> Plan | None:
        """The plan that a search of the tuned model chooses for the budget; None where it finds
        none."""
        wanted = next(b for b in self.settings.budgets if str(b) == self.choice["budget"])
        settings = replace(self.settings, budgets=(wanted,))
        if not self.resume:  # it is of weights that are trained anew
            shutil.rmtree(folder, ignore_errors=True)
        _, document = _search_alike(self.session, stands.session, folder, settings)
        chosen = document["chosen"][0]["candidate"]
        rows = {row["name"]: row for row in document["candidates"]}
        return None if chosen is None else from_json(rows[chosen]["plan"], f"the plan {chosen}")

    def _step(
        self, step: str, now: Standing, before: Standing | None = None, seconds: float | None = None
    ) -> None:
        """Add the row of a step; the search had been made before, in seconds that are not known.
        Seconds of training are those that a snapshot keeps, so that a
        step which is not repeated is not said to have taken none."""
        scores, groups = self._scores(now), self._groups
        row: dict[str, Any] = {
            "step": step,
            "plan": now.name,
            "plan_fingerprint": fingerprint(now.resolved),
            "seconds": seconds,
            "score": score_document(mean(scores, groups)),
        }
        if before is not None:
            robust = self.session.headline.robust
            gained = paired(scores, self._scores(before), groups, robust=robust)
            row["gained"] = score_document(gained)
            if seconds:
                row["a_minute"] = 60 * gained.value / seconds
        self.steps.append(row)

    @property
    def _groups(self) -> Any:
        return self.session.samples.groups("search", self.found["n"])

    def _scores(self, standing: Standing) -> np.ndarray:
        """The primary score of each sample that the search used; `tune` takes all of the split."""
        self.session.samples.use("search", self.settings.limit, raced=True)
        standing.session.samples = self.session.samples
        found = tuned_arrays(
            self.session, standing.session, standing.resolved, "search", self.found["n"]
        )
        return found[self.session.headline.primary]
