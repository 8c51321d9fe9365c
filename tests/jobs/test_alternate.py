"""Search and training by turns: the steps of a budget, and what stands after them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shipped_run import copy_searched

from sensprobe import api
from sensprobe.data.dataset import Splits
from sensprobe.errors import BudgetError, DataError, RunError, UsageError
from sensprobe.jobs import alternate
from sensprobe.jobs.alternate import Standing, _Turns
from sensprobe.jobs.budgets import budgets_of
from sensprobe.jobs.fewer import PrunedTo
from sensprobe.jobs.search import SearchSettings
from sensprobe.jobs.train_under import TuneSettings
from sensprobe.jobs.tuned import opened_as
from sensprobe.plans.plan import Plan, fingerprint, parse_setting
from sensprobe.report.gather import gather
from sensprobe.runs import open_run
from sensprobe.session.open import open_session


def searched(folder: Path, budget: str, epochs: int) -> tuple[Path, Any]:
    """A run in which a budget was searched and tuned by turns, and its document."""
    run = folder / "run"
    if not run.exists():
        copy_searched(run)
    found = api.search(run, [budget], evaluations=8, confirm=False, tune=epochs)
    return run, found["turns"]


def test_what_gains_is_searched_again_as_it_was_tuned(tmp_path) -> None:
    run, turns = searched(tmp_path, "1338", 1)
    (row,) = turns["budgets"]
    steps = {step["step"]: step for step in row["steps"]}
    assert list(steps)[:3] == ["search", "tune", "search again"]
    tuned = {r["name"]: r for r in tuned_rows(run)}
    gained = tuned["1338"]["splits"]["search"]["gained"]
    assert steps["tune"]["gained"]["value"] == pytest.approx(gained["value"])
    assert steps["tune"]["score"] == tuned["1338"]["splits"]["search"]["after"]
    again = json.loads((run / "tuned" / "1338-again" / "search" / "run.json").read_text())
    assert again["model_fingerprint"] == tuned["1338"]["weights_fingerprint"]
    assert row["stands"].removeprefix("tuned/") in tuned
    assert json.loads((run / "results" / "turns.json").read_text())["budgets"][0] == row


@pytest.mark.thorough
def test_a_second_time_trains_nothing_anew(tmp_path, monkeypatch) -> None:
    _, before = searched(tmp_path, "1338", 1)
    monkeypatch.setattr("sensprobe.train.loop._leg", no_training)
    _, after = searched(tmp_path, "1338", 1)
    trained = (step for found in (before, after) for step in found["budgets"][0]["steps"])
    told = [(step["seconds"], step["a_minute"]) for step in trained if step["step"] == "tune"]
    assert told[0] == told[1]
    for a, b in zip(before["budgets"][0]["steps"], after["budgets"][0]["steps"], strict=True):
        assert (a["step"], a["plan_fingerprint"], a["score"]) == (
            b["step"],
            b["plan_fingerprint"],
            b["score"],
        )


def test_the_best_of_a_few_is_tuned_on(tmp_path) -> None:
    run, turns = searched(tmp_path, "1.5KiB", 2)
    steps = turns["budgets"][0]["steps"]
    brief = [step for step in steps if step["step"] == "tune briefly"]
    assert 2 <= len(brief) <= alternate.FEW
    best = max(brief, key=lambda step: step["score"]["value"])
    tuned = next(step for step in steps if step["step"] == "tune")
    assert tuned["plan_fingerprint"] == best["plan_fingerprint"]
    start = json.loads((run / "tuned" / "1.5KiB" / "tuned.json").read_text())["start"]
    assert Path(start).parent.name == f"brief-{best['plan']}"


def test_steps_are_scored_on_the_samples_that_the_search_used(turns: _Turns) -> None:
    session = turns.session
    plan = plan_of("*.out_proj=int3")
    before = Standing("p", plan, session)
    same = Standing("p", plan, opened_as(session, session.source.path))
    turns.settings = SearchSettings(limit=40)
    turns.found = {"n": session.samples.use("search", 40, raced=True)}
    order = session.samples.order("search")
    assert order is not None
    scores = turns._scores(before)
    session.samples.use("search")  # as tune does, which scores the whole split
    whole = session.measure(before.resolved, "search", 0, len(order))["correct"]
    assert (scores == whole[order[:40]]).all()
    assert (turns._scores(before) == scores).all()
    assert (turns._scores(same) == scores).all()
    assert (scores != whole[:40]).any()


def test_rivals_of_a_budget_of_loss_take_no_more_bytes(turns: _Turns) -> None:
    sizes = {"large": (900, 0.97), "chosen": (500, 0.95), "small": (400, 0.94), "tiny": (90, 0.2)}
    found = [
        {"name": name, "stopped_early": False, "weight_bytes": size - 10, "state_bytes": 10,
         "metric": {"value": value}}
        for name, (size, value) in sizes.items()
    ]  # fmt: skip
    turns.found = {"candidates": found}
    for limits, rivals in (([], ["small", "tiny"]), (["1KiB"], ["large", "small"])):
        budgets = budgets_of(limits, None, None, None if limits else 0.5)
        turns.settings = SearchSettings(budgets=budgets)
        turns.choice = {"budget": str(budgets[0]), "candidate": "chosen"}
        assert turns._rivals() == rivals


def test_a_plan_with_gptq_is_tuned_as_the_one_the_search_chose(turns: _Turns) -> None:
    """`tune` starts from GPTQ's values, says what the plan of the search scored before, and finds
    it among the candidates."""
    plans = {"a": plan_of("*.out_proj=int3/gptq"), "b": plan_of("*.out_proj=int2/gptq")}
    turns.tuning = TuneSettings(epochs=2, max_steps=1)
    turns.found = {"n": turns.session.samples.use("search"), "candidates": [
        {"name": name, "stopped_early": False, "weight_bytes": 1, "state_bytes": 1,
         "metric": {"value": 0.5}, "plan": plan.to_json()} for name, plan in plans.items()
    ]}  # fmt: skip
    turns.settings = SearchSettings(budgets=budgets_of(["1KiB"], None, None, None))
    turns.choice = {"budget": "1KiB", "candidate": "a"}
    best = turns._best_of_few(turns._untuned("a"))
    assert best.weights is not None
    turns._tuned(best, "1KiB")
    sites = turns.session.source.model.sites.values()
    (row,) = (r for r in tuned_rows(turns.session.run.path) if r["name"] == "1KiB")
    assert row["asked_fingerprint"] == fingerprint(plans[best.name].resolve(sites))


def test_budgets_that_choose_one_plan_share_its_tuned_model(turns: _Turns) -> None:
    """A run keeps one tuned model of a plan: another would take the place of the first."""
    turns.tuning = TuneSettings(epochs=1, max_steps=1)
    turns.found = {"n": turns.session.samples.use("search")}
    plan = plan_of("*.out_proj=int3")
    names = [turns._tuned(Standing("p", plan, turns.session), name).name for name in ("a", "b")]
    assert names == ["a", "a"]
    assert [row["name"] for row in tuned_rows(turns.session.run.path)].count("a") == 1
    assert [step["seconds"] > 0 for step in turns.steps] == [True, False]


def test_what_cannot_be_tuned_is_said_before_it_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(**asked: Any) -> Any:
        session = open_session(**asked)
        kept = {n: session.dataset.splits[n] for n in session.dataset.splits if n != "train"}
        session.dataset = replace(session.dataset, splits=Splits(kept))
        return session

    copy_searched(tmp_path / "run")
    monkeypatch.setattr("sensprobe.session.open.open_session", opened)
    monkeypatch.setattr("sensprobe.jobs.search.search", no_training)
    with pytest.raises(DataError, match="no train split"):
        api.search(tmp_path / "run", ["1338"], tune=1)


def test_other_epochs_start_afresh_where_that_is_asked(tmp_path) -> None:
    run, _ = searched(tmp_path, "1338", 1)
    with pytest.raises(RunError, match="start afresh with `--restart`"):
        api.search(run, ["1338"], evaluations=8, confirm=False, tune=2)
    found = api.search(run, ["1338"], evaluations=8, confirm=False, tune=2, restart=True)
    (row,) = found["turns"]["budgets"]
    assert {step["plan"] for step in row["steps"]} >= {"1338"}
    assert found["turns"]["epochs"] == 2


PRUNED = [4, "kernels=12"]


@pytest.fixture(scope="module")
def competed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run in which models with 4 of 8 states and 12 of 16 kernels competed, and what `search`
    returned."""
    run = tmp_path_factory.mktemp("competed") / "run"
    copy_searched(run)
    return run, api.search(run, ["1338"], evaluations=4, confirm=False, tune=1, prune=PRUNED)


def test_fewer_states_at_more_bits_compete(competed: tuple[Path, Any]) -> None:
    """At the least bytes of 8 states half of them leave room for bits that are worth more."""
    run, found = competed
    (budget,) = found["turns"]["budgets"]
    name = "1338-4-states"
    best = max(budget["steps"], key=lambda step: step["score"]["value"])
    assert budget["stands"] == f"tuned/{best['plan']}"
    (step,) = (step for step in budget["steps"] if step["step"] == "4 states")
    assert step["plan"] == name
    assert step["gained"]["value"] > 0.3
    row = next(row for row in tuned_rows(run) if row["name"] == name)
    assert row["total_bytes"] <= 1338
    assert step["score"] == row["splits"]["search"]["after"]
    full = api.evaluate(None, None, None, run=run, split="search")
    assert row["splits"]["search"]["full"]["value"] == full["value"]  # of all states


def test_fewer_kernels_compete_in_the_same_budget(competed: tuple[Path, Any]) -> None:
    run, found = competed
    (budget,) = found["turns"]["budgets"]
    step = next(step for step in budget["steps"] if step["step"] == "12 kernels")
    row = next(row for row in tuned_rows(run) if row["name"] == step["plan"])
    assert row["name"] == "1338-12-kernels"
    assert row["total_bytes"] <= 1338


def test_what_competed_is_taken_home(competed: tuple[Path, Any], tmp_path: Path) -> None:
    run, _ = competed
    row = next(row for row in tuned_rows(run) if row["name"] == "1338-4-states")
    made = api.export(run, "tuned/1338-4-states", tmp_path / "out")
    assert made["weight_bytes"] == row["weight_bytes"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| full precision, nothing pruned | 7,144 | 97.25 " in card
    scored = api.evaluate(tmp_path / "out", "digits", None)
    assert scored["value"] == row["splits"]["confirmation"]["after"]["value"]
    (beside,) = (t for t in gather(open_run(run)).tuned.plans if t.name == "1338-4-states")
    assert beside.total_bytes == row["total_bytes"]


def test_budgets_that_one_plan_of_fewer_states_is_for_share_its_tuned_model(
    competed: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run keeps one tuned model of a plan: each budget names one that is there."""
    run = shutil.copytree(competed[0], tmp_path / "run")
    inner = open_session(run=run / "tuned" / "4-states" / "search")
    (row,) = inner.run.read_result("turns")["budgets"]
    rows = [{**row, "budget": "1338"}, {**row, "budget": "1339"}]
    monkeypatch.setattr(alternate, "_search_alike", lambda *asked: (inner, {}))
    monkeypatch.setattr(alternate, "alternate", lambda *asked, **more: {"budgets": rows})
    found = with_fewer(run, 4, "1338", "1339")
    assert list(found) == ["1338", "1339"]
    assert {after.name for after, _ in found.values()} <= {r["name"] for r in tuned_rows(run)}


def test_a_budget_that_fewer_states_fit_as_they_are_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_searched(tmp_path / "run")
    asked = []

    def search_alike(outer: Any, model: Any, folder: Path, settings: SearchSettings) -> Any:
        asked.extend(map(str, settings.budgets))
        raise BudgetError("every plan fits")

    monkeypatch.setattr(alternate, "_search_alike", search_alike)
    assert with_fewer(run, 1, "4KiB", "1338") == {}
    assert asked == ["1338"]
    assert with_fewer(run, 1, "4KiB") == {}
    assert asked == ["1338"]


def with_fewer(run: Path, states: int, *budgets: str) -> dict[str, Any]:
    """What competes in a run with so many states."""
    settings = SearchSettings(budgets=budgets_of(budgets, None, None, None))
    return alternate._with_fewer(
        open_session(run=run),
        PrunedTo(states),
        settings,
        TuneSettings(epochs=1),
        lambda progress: None,
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"tune": 0}, "--prune: a model that is pruned is trained; give --tune EPOCHS too."),
        ({"tune": 1, "max_loss": 1.0}, "what is pruned loses something before any plan does"),
        ({"tune": 1, "prune": [4, 9]}, "9 states: s4d-digits has 8; give a number from 1 to 7."),
    ],
)
def test_what_cannot_compete_is_said_before_the_search(tmp_path, words, says) -> None:
    run = tmp_path / "run"
    copy_searched(run)
    before = (run / "results" / "search.json").read_bytes()
    with pytest.raises(UsageError, match=re.escape(says)):
        api.search(run, ["1338"], **{"prune": [4], **words})
    assert (run / "results" / "search.json").read_bytes() == before


@pytest.fixture
def turns(tmp_path: Path) -> _Turns:
    """The steps of a budget of a run, none of them taken."""
    copy_searched(tmp_path / "run")
    session = open_session(run=tmp_path / "run")
    return _Turns(session, {}, SearchSettings(), TuneSettings(), lambda progress: None, {})


def plan_of(setting: str) -> Plan:
    return Plan((parse_setting(setting),))


def tuned_rows(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "results" / "tuned.json").read_text())["plans"]


def no_training(*arguments: Any) -> Any:
    raise AssertionError("something was trained anew")
