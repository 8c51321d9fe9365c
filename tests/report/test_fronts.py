"""Searches at other batches, growing fronts, and searches read from the ledger."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from math import isfinite, isnan, nan
from pathlib import Path

import numpy as np
import pytest
import sensprobe_app

from sensprobe import api
from sensprobe.plans.plan import Plan, fingerprint
from sensprobe.plans.scheme import parse
from sensprobe.report import charts
from sensprobe.report.course import Course, about_course, course, going, seconds
from sensprobe.report.drawing import paper, screen
from sensprobe.report.fronts import (
    FrontView,
    at_batch,
    best_within,
    by_batch,
    harmed,
    largest_batch,
    smallest_unharmed,
    whole,
)
from sensprobe.report.gather import gather, sites_of
from sensprobe.report.live import measured_plan, search_so_far
from sensprobe.report.names import told
from sensprobe.report.overview import overview
from sensprobe.report.plans import bits_by_part, resolved
from sensprobe.report.prose import about_agreement, about_batches, about_predictions
from sensprobe.report.results import Compared
from sensprobe.report.values import Measured, digits, in_bytes
from sensprobe.report.writing import write_report
from sensprobe.runs import open_run
from sensprobe.scores.pareto import hypervolume
from sensprobe.search.history import histories
from sensprobe.units import limit_bytes

EXAMPLE = Path(sensprobe_app.__file__).parent / "example" / "s4d-digits"


@pytest.fixture(scope="module")
def run():
    return open_run(EXAMPLE)


@pytest.fixture(scope="module")
def found(run):
    return gather(run)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_bytes_at_another_batch_are_the_cost_models(found, batch, tmp_path):
    search = at_batch(found.search, batch)
    for c in search.candidates[::7]:
        plan = Plan(tuple((pattern, parse(scheme)) for pattern, scheme in c.entries))
        want = api.cost("s4d-digits", plan, batch=batch)
        assert (c.weight_bytes, c.state_bytes) == (want["weight_bytes"], want["state_bytes"])
        assert c.effective_bits == pytest.approx(want["effective_bits"])


def test_the_front_is_made_anew_at_another_batch(found):
    search = at_batch(found.search, 1024)
    kept = [c for c in search.candidates if c.on_front]
    for c in kept:
        better = [
            o for o in search.candidates
            if o.total_bytes <= c.total_bytes and o.metric.value > c.metric.value
            and not o.stopped_early
        ]  # fmt: skip
        assert not better
    names = {c.name for c in found.search.candidates if c.on_front}
    assert {c.name for c in kept} != names, "the batch changes which plans are best"


def test_the_best_within_a_budget_fits_and_is_stable(found):
    search = found.search
    unstable = replace(search.candidates[0], radius=1.5, metric=replace(search.full, value=2.0))
    search = replace(search, candidates=(unstable, *search.candidates[1:]))
    best = best_within(search, FrontView())
    assert best is not None
    assert best.metric.value == max(c.metric.value for c in search.candidates[1:])
    assert best_within(search, FrontView(budget=10)) is None
    few = FrontView(weights=best.weight_bytes - 1)
    assert best_within(search, few).weight_bytes < best.weight_bytes
    assert best_within(search, FrontView(state=1)) is None
    unharmed = smallest_unharmed(search, FrontView())
    for c in search.candidates:
        if c.total_bytes < unharmed.total_bytes and not c.stopped_early and not c.radius > 1:
            assert c.change.differs
            assert c.change.value < 0


def test_what_a_search_chose_for_a_budget_is_the_best_within_it(found):
    assert len(found.search.chosen) > 1
    for choice in found.search.chosen:
        view = FrontView(budget=limit_bytes(choice.budget, found.search.full_bytes))
        assert best_within(found.search, view).name == choice.candidate


def test_a_plan_that_was_confirmed_to_lose_is_not_without_a_difference(found):
    search, again = found.search, found.confirmation
    plan = again.plans[0]
    one = search.candidate(plan.candidate)
    assert plan.change.differs
    assert plan.change.value < 0
    budget = FrontView(budget=one.total_bytes, weights=one.weight_bytes, state=one.state_bytes)
    alone = replace(search, candidates=(one,))
    assert not one.change.differs
    assert smallest_unharmed(alone, budget) is one
    assert smallest_unharmed(alone, budget, again) is None


def test_the_plan_farthest_from_its_prediction_is_named(found):
    search = found.search
    said = about_predictions(search)
    both = [c for c in search.candidates if isfinite(c.extra_nats)]
    gaps = {told(c, search): abs(c.predicted - c.extra_nats) for c in both}
    assert f"prediction: {max(gaps, key=gaps.get)}, predicted" in said
    assert about_predictions(replace(search, candidates=())) == ""


def test_where_estimate_and_measurement_are_farthest_apart_is_named(found):
    pairs = found.agreement.pairings
    far = max(pairs, key=lambda p: abs(p.taylor.additive.value - p.measured.additive.value))
    said = about_agreement(found.agreement)
    assert f"farthest apart for {far.measured.group} in {far.measured.scheme}: " in said
    assert digits(far.taylor.additive.value, 2) in said


def test_the_course_ends_at_the_hypervolume(found):
    search = found.search
    whole = [c for c in search.candidates if not c.stopped_early]
    want = hypervolume(
        [c.total_bytes for c in whole],
        [c.metric.value for c in whole],
        reference_bytes=search.full_bytes,
        reference_score=search.chance,
    )
    grown = course(search).volume
    assert grown[-1] == pytest.approx(want, rel=1e-12)
    assert list(grown) == sorted(grown)


def test_a_search_read_from_the_ledger_is_the_one_it_wrote(run, found):
    live = search_so_far(run, found.sites)
    wrote = {c.name: c for c in found.search.candidates}
    seen = {c.name: c for c in live.candidates}
    assert len(seen) >= len(wrote) - 1  # full precision is the baseline here
    both = wrote.keys() & seen.keys()
    assert len(both) >= len(wrote) - 1
    for name in both:
        assert seen[name].total_bytes == wrote[name].total_bytes
        assert seen[name].n == wrote[name].n
        assert seen[name].metric.value == pytest.approx(wrote[name].metric.value)
        assert seen[name].metric.stderr == pytest.approx(wrote[name].metric.stderr)
        assert seen[name].change.value == pytest.approx(wrote[name].change.value)


def test_a_search_on_fewer_samples_than_the_profile_has_a_front(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "evaluations")
    for name in ("search", "confirmation"):
        (tmp_path / "run" / "results" / f"{name}.json").unlink()
    api.profile("s4d-digits", "digits", tmp_path / "run", ["int8/dynamic", "int4/dynamic"])
    api.search(tmp_path / "run", ["2KiB"], limit=100, evaluations=4, confirm=False)
    run = open_run(tmp_path / "run")
    live = search_so_far(run, gather(run).sites)
    assert live.n == max(c.n for c in live.candidates) == 100
    assert any(c.on_front for c in live.candidates)


def test_a_run_of_text_is_scored_in_bits_a_byte(tmp_path):
    at = tmp_path / "run"
    api.evaluate("mamba-bytes", "pydoc", {"*.A": "int8"}, split="search", limit=2, run=at)
    api.evaluate("mamba-bytes", "pydoc", {}, split="search", limit=2, run=at)
    run = open_run(at)
    live = search_so_far(run, sites_of(run))
    assert live.quantity.name == "bits per byte"


def test_no_search_is_read_where_nothing_was_measured(tmp_path, found):
    shutil.copytree(EXAMPLE, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "evaluations")
    assert search_so_far(open_run(tmp_path / "run"), found.sites) is None


def test_a_plan_of_the_ledger_is_found_by_what_it_computes(run, found):
    chosen = found.search.candidate(found.search.chosen[0].candidate)
    mark = fingerprint(resolved(chosen.entries, found.sites))
    quantity, score, _ = measured_plan(run, mark)
    assert quantity.name == "accuracy"
    assert score.value == pytest.approx(chosen.metric.value)
    assert measured_plan(run, "nothing") is None


def test_a_plan_is_found_that_a_metric_of_the_users_own_scored(tmp_path):
    source = "def right(outputs, targets):\n    return (outputs.argmax(-1) == targets).float()\n"
    (tmp_path / "own.py").write_text(source, encoding="utf-8")
    metric = f"python:{tmp_path / 'own.py'}:right"
    api.profile("s4d-digits", "digits", tmp_path / "run", ["int4"], limit=64, metric=metric)
    plan = Plan((("layers.0.A", parse("int8/head/asym")),))
    told = api.evaluate(
        "s4d-digits", "digits", plan, limit=64, metric=metric, split="search", run=tmp_path / "run"
    )
    quantity, score, _ = measured_plan(open_run(tmp_path / "run"), fingerprint(dict(plan.entries)))
    assert quantity.name == "right"
    assert score.value == pytest.approx(told["value"])


def test_the_history_is_read_without_writing(tmp_path):
    path = tmp_path / "optuna.db"
    shutil.copy(EXAMPLE / "optuna.db", path)
    path.chmod(0o444)
    before = path.read_bytes()
    study = histories(path)[0]
    assert study.trials > 10
    assert sum(study.importance.values()) == pytest.approx(1, abs=0.2)
    assert path.read_bytes() == before
    assert not histories(tmp_path / "none.db")


def test_every_evaluation_says_how_long_it_took(run):
    assert len(seconds(run)) == run.count
    assert min(seconds(run)) > 0


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_result_that_is_a_pipe_or_a_link_is_not_waited_for(tmp_path, kind):
    run = shutil.copytree(EXAMPLE, tmp_path / "run")
    path = run / "results" / "search.json"
    path.rename(tmp_path / "elsewhere.json")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "elsewhere.json")
    (line,) = overview(tmp_path)
    assert "search" not in line.seeds


def test_the_overview_orders_runs_by_their_last_change(tmp_path):
    for name in ("a", "b"):
        shutil.copytree(EXAMPLE, tmp_path / "deep" / name)
    (tmp_path / "deep" / "b" / "results" / "search.json").touch()
    lines = overview(tmp_path)
    assert lines[0].name == "deep/b"
    assert all(line.state == "finished" for line in lines)
    assert all(len(line.best) == 3 for line in lines)  # two budgets, and a tuned model


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    (tmp_path / "runs").mkdir()
    shutil.copytree(EXAMPLE, tmp_path / "elsewhere")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert overview(tmp_path / "runs") == []


def test_the_front_marks_what_was_picked_and_the_budget(found):
    name = found.search.candidates[9].name
    view = FrontView(budget=2000.0, selected=(name,), loss=True)
    drawn = screen.draw(charts.frontier(found.search, view=view))
    marks = [t for t in drawn.data if t.legendgroup == "selected"]
    assert [t.customdata[0][0] for t in marks if t.customdata is not None] == [name]
    assert drawn.layout.shapes[0].x0 == 2000.0
    assert drawn.layout.yaxis.type == "log"
    heights = np.concatenate([np.asarray(t.y, float) for t in drawn.data if t.y is not None])
    assert (heights > 0).all()


def test_plans_that_answer_a_budget_lie_within_the_axes(found):
    search = found.search
    far = search.candidates[0]
    far = replace(far, total_bytes=20 * search.full_bytes, on_front=False, uniform=None)
    search = replace(search, candidates=(far, *search.candidates[1:]), chosen=())
    without, named = (
        charts.frontier(search, FrontView(named=names)) for names in ((), (far.name,))
    )
    assert without.x.ends[1] < far.total_bytes < named.x.ends[1]
    assert not any(series.name == "selected" and series.points for series in named.series)


def test_budgets_of_weights_and_state_say_how_many_plans_fit(found):
    every = [c for c in found.search.candidates if c.total_bytes]
    middle = sorted(c.weight_bytes for c in every)[len(every) // 2]
    fit = sum(c.weight_bytes <= middle and c.radius <= 1 for c in every)
    assert 0 < fit < len(every)
    drawn = charts.frontier(found.search, FrontView(weights=middle))
    assert drawn.notes[0] == f"{fit} of {len(every)} plans fit and are stable"
    assert "fit" not in charts.frontier(found.search).notes[0]


@pytest.mark.parametrize("memory", [1500.0, 7144.0, 2.0**20])
def test_the_largest_batch_fits_and_one_more_does_not(found, memory):
    for plan in found.search.candidates:
        batch = largest_batch(plan, found.search, memory)
        seen = at_batch(found.search, max(batch, 1)).candidate(plan.name)
        assert (seen.total_bytes <= memory) == (batch > 0)
        assert at_batch(found.search, batch + 1).candidate(plan.name).total_bytes > memory


def test_the_best_plan_for_a_batch_is_the_first_mark_at_it_or_beyond(found):
    memory = 64 * 1024.0
    best = by_batch(found.search, memory)
    assert len(best) > 2
    for batch in (1, 10, 100, best[-1][0]):
        fits = best_within(at_batch(found.search, batch), FrontView(budget=memory))
        shown = next(c for most, c in best if most >= batch)
        assert shown.metric.value == fits.metric.value
    assert best_within(at_batch(found.search, best[-1][0] + 1), FrontView(budget=memory)) is None


def test_sentences_tell_the_largest_batch_with_and_without_a_loss(found):
    memory, search = 64 * 1024.0, found.search
    any_plan, unharmed = about_batches(search, memory, found.confirmation)
    most, plan = by_batch(search, memory)[-1]
    assert any_plan.startswith(f"The most sequences at once in 64.00 KiB: {most:,}, under ")
    assert told(plan, search) in any_plan
    kept = [c for c in whole(search) if not harmed(c, search, found.confirmation)]
    best = max(largest_batch(c, search, memory) for c in kept)
    assert 0 < best < most
    assert f": {best:,}, under " in unharmed
    assert [line.partition(": ")[2] for line in about_batches(search, 10.0)] == ["none", "none"]


def test_plans_by_batch_are_drawn_at_their_largest(found):
    drawn = charts.batches(found.search, 64 * 1024.0)
    best = by_batch(found.search, 64 * 1024.0)
    marks = next(series for series in drawn.series if series.name == "best")
    assert [(p.x, p.name) for p in marks.points] == [(batch, c.name) for batch, c in best]
    for batch, c in best:  # hovers tell the bytes of that many sequences
        about = next(p.about for p in marks.points if p.name == c.name)
        total = c.weight_bytes + batch * c.state_bytes // found.search.batch
        assert f"{in_bytes(total)} in all" in about
        assert total <= 64 * 1024
    assert "64.00 KiB" in drawn.title
    line = screen.draw(drawn).data[1].line
    assert line.shape == "vh"
    assert paper.draw(drawn)
    assert charts.batches(found.search, 10.0).nothing


def test_a_uniform_plan_without_a_score_is_not_drawn_by_batch(found):
    lost = next(c for c in found.search.candidates if c.uniform == "fp16")
    none = replace(lost, metric=Measured(nan, nan))
    rows = tuple(none if c is lost else c for c in found.search.candidates)
    drawn = charts.batches(replace(found.search, candidates=rows), 64 * 1024.0)
    assert all(isfinite(end) for end in drawn.y.ends)
    assert lost.name not in {p.name for series in drawn.series for p in series.points}
    assert paper.draw(drawn)


def test_no_loss_has_a_place_of_its_own_below_all_losses(found):
    axis = charts.frontier(found.search, FrontView(loss=True)).y
    none, *others = axis.ticks
    assert none.name == "none"
    assert none.place < min(tick.place for tick in others)
    drawn = screen.draw(charts.frontier(found.search, FrontView(loss=True)))
    full = next(c for c in found.search.candidates if c.uniform == "fp32")
    heights = {mark[0]: y for t in drawn.data if t.customdata is not None
               for mark, y in zip(t.customdata, t.y, strict=True)}  # fmt: skip
    assert heights[full.name] == none.place == min(heights.values())


def test_of_marks_on_each_other_the_one_on_top_is_pointed_at(found):
    drawn = screen.draw(charts.frontier(found.search))
    pointed = [t for t in drawn.data if t.customdata is not None]
    assert {t.marker.size for t in pointed} == {screen.FINGER}
    assert [t.legendgroup for t in pointed] == ["dominated", "front", "uniform", "chosen"]
    assert {t.hoverinfo for t in drawn.data if t.legendgroup and t not in pointed} == {"skip"}


def test_only_feasible_plans_are_drawn_where_asked(found):
    drawn = screen.draw(charts.frontier(found.search, view=FrontView(budget=1600.0, feasible=True)))
    sizes = [x for t in drawn.data if t.customdata is not None for x in t.x]
    assert sizes
    assert max(sizes) <= 1600


def test_fronts_of_runs_that_measure_different_things_are_not_drawn_together(found):
    other = replace(found.search, quantity=replace(found.search.quantity, name="mse", unit=""))
    drawn = screen.draw(charts.fronts({"one": found.search, "other": other}))
    assert not drawn.data
    assert "different things" in drawn.layout.annotations[0].text
    same = screen.draw(charts.fronts({"one": found.search, "two": found.search}, "share"))
    assert len(same.data) == 2
    assert not any(isnan(x) for x in same.data[0].x)


def test_compared_plans_are_marked_by_name_on_screen_and_paper(found):
    measured = found.search.candidates[3]
    recipe = Compared(
        "quamba", measured.weight_bytes, measured.state_bytes, measured.total_bytes,
        measured.metric, measured.change, 0.9,
    )  # fmt: skip
    search = replace(found.search, compared=(recipe,))
    marks = [t for t in screen.draw(charts.frontier(search)).data if t.name == "compared plan"]
    assert [list(t.text) for t in marks] == [["quamba"]]
    assert at_batch(search, 64).compared[0].state_bytes == 64 * recipe.state_bytes
    assert paper.draw(charts.frontier(search)) != paper.draw(charts.frontier(found.search))


@pytest.mark.thorough
def test_a_report_draws_the_plans_and_how_the_search_went(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "run")
    files = write_report(open_run(tmp_path / "run"))
    names = {path.name for path in files.images}
    assert {
        "plan-0.png",
        "plan-1.png",
        "convergence.png",
        "importances.png",
        "durations.png",
    } <= names
    assert "How the search went" in files.html.read_text(encoding="utf-8")


def test_a_damaged_storage_is_said_and_costs_nothing_else(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "run")
    (tmp_path / "run" / "optuna.db").write_bytes(b"not a database, for " * 99)
    run = open_run(tmp_path / "run")
    went = going(run, gather(run).search)
    assert "optuna.db cannot be read" in went.problem
    assert went.course.volume
    assert not went.importance


def test_the_course_says_what_was_gained_and_whether_going_on_is_worth_it():
    def said(*volume: float, **more: bool) -> str:
        names = tuple(str(k) for k in range(len(volume)))
        return " ".join(about_course(Course(names, volume, "10 %, 7 KiB"), **more))

    grown = (0.0, 60.0, 70.0, 80.0, 99.5, 99.5, 99.5, 99.5, 99.5, 99.5, 100.0, 100.0)
    assert said(*grown) == (
        "12 plans were measured. The front last grew with plan 11, by 0.50 %; the plan since "
        "gained nothing. The last 3 plans brought 0.50 % of it: going on is hardly worth it."
    )
    assert "going on may be worth it" in said(*grown[:4], *(80.0,) * 6, 90.0, 100.0)
    assert said(*grown[:4], going_on=True) == (
        "4 plans measured so far. The front last grew with plan 4, by 12 %, the latest. Fewer than "
        "12 plans say nothing of whether going on is worth it."
    )
    assert said(0.0, 0.0) == "2 plans were measured; none was better than 10 %, 7 KiB."


def test_every_plan_stands_by_what_it_was_predicted_and_measured_to_lose(found):
    drawn = charts.predictions(found.search)
    points = {p.name: p for s in drawn.series if s.marks for p in s.points}
    known = [c for c in found.search.candidates if c.predicted > 0 and c.extra_nats > 0]
    assert len(known) > 30
    assert points.keys() == {c.name for c in known}
    assert all((points[c.name].x, points[c.name].y) == (c.predicted, c.extra_nats) for c in known)
    (line,) = (s for s in drawn.series if s.name == "equal")
    assert all(point.x == point.y for point in line.points)
    unknown = replace(found.search, candidates=(replace(known[0], predicted=nan),))
    assert charts.predictions(unknown).nothing


def test_parallel_axes_place_every_plan_by_the_bits_of_its_parts(found):
    drawn = charts.parallel(found.search, found.sites)
    names = [tick.name for tick in drawn.x.ticks]
    assert names[-2:] == ["in all", "accuracy\nlost (points)"]
    lines = {}
    for series in drawn.series:
        for point in series.points if series.name else ():
            if point.name:
                lines.setdefault(point.name, []).append(point.y)
    most = max(c.total_bytes for c in found.search.candidates if c.uniform is None)
    assert lines.keys() == {c.name for c in found.search.candidates if c.total_bytes <= most}
    plans = {c.name: c for c in found.search.candidates if c.name in lines}
    at = names.index("state")
    bits = {name: bits_by_part(c.entries, found.sites)["state"] for name, c in plans.items()}
    assert sorted(plans, key=lambda n: lines[n][at]) == sorted(plans, key=lambda n: bits[n])
    heaviest = max(plans, key=lambda name: plans[name].total_bytes)
    assert lines[heaviest][-2] == 1
    assert all(0 <= y <= 1 for line in lines.values() for y in line)
    assert charts.parallel(found.search, ()).nothing
    assert len(paper.draw(drawn)) > 10_000


def test_bits_of_a_part_are_the_mean_over_its_values(found):
    half = next(s for s in found.sites if s.name.endswith("out_proj"))
    bits = bits_by_part(((half.name, "int4/channel"), ("*.bias", "int8")), found.sites)
    assert (bits["out_proj"], bits["bias"], bits["A"]) == (4, 8, 32)
