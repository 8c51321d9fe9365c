"""Every view in each of its states, without a browser."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import report_documents as documents
from app_pages import WAIT, drawn, opened, page, words
from sensprobe_app import jobs, store
from shipped_run import copy_searched
from streamlit.testing.v1 import AppTest

from sensprobe import api
from sensprobe.plans.plan import Plan, parse_setting
from sensprobe.report.gather import gather
from sensprobe.report.names import told
from sensprobe.runs import open_run
from sensprobe.runs.notes import Notes, read_notes, write_notes


@pytest.mark.parametrize(
    "view", ["runs", "sensitivity", "pareto", "plan", "model", "search", "compare", "kernels"]
)
def test_a_finished_run_is_drawn(runs, view):
    test = drawn(runs, view)
    assert not test.error
    assert not test.warning


def test_runs_are_listed_with_what_they_found(runs):
    table = drawn(runs, "runs").dataframe[0].value
    assert list(table["model"]) == ["s4d-digits"]
    assert "confirmed" in table["best plan per budget"][0]
    assert table["state"][0].endswith("finished")


def test_an_empty_folder_says_what_to_run_and_shows_the_example(tmp_path):
    test = drawn(tmp_path / "none", "runs")
    assert "sensprobe profile s4d-digits" in words(test)
    assert list(test.dataframe[0].value["model"]) == ["s4d-digits"]


def test_tuned_models_are_shown_beside_their_plans(runs):
    run = open_run(runs / "digits")
    document = documents.tuned(run.read_result("search"))
    run.write_result("tuned", document)
    test = drawn(runs, "pareto")
    table = next(t.value for t in test.dataframe if "trained for" in t.value)
    assert list(table["gained (points)"]) == ["+33.0 ± 1.0", "· +0.5 ± 1.0"]
    assert "tuned" in drawn(runs, "runs").dataframe[0].value["best plan per budget"][0]
    tuned, *_ = [row["candidate"] for row in document["plans"]]
    said = words(drawn(runs, "plan", plan=tuned)).replace("\\", "")
    assert "accuracy (%) 80.5 ± 1.0 on 400 confirmation samples, untuned 80.0 ± 1.0" in said
    assert f"--plan tuned/{tuned}" in said
    assert "confirmation samples" not in words(drawn(runs, "plan", plan="full precision"))


def test_a_run_without_results_says_what_makes_them(runs):
    shutil.rmtree(runs / "digits" / "results")
    assert "sensprobe profile" in words(drawn(runs, "sensitivity"))


def test_a_page_that_is_opened_holds_its_first_chart_and_then_the_rest(runs):
    for view in ("sensitivity", "pareto"):
        test = AppTest.from_function(page, args=(str(runs), view, "digits"), default_timeout=WAIT)
        first = len(test.run().get("plotly_chart"))
        every = [len(test.run().get("plotly_chart")) for _ in range(2)]
        assert first == 1 < every[0] == every[1], view


def test_a_search_that_was_cut_off_is_drawn_from_the_ledger(runs):
    for name in ("search", "confirmation"):
        (runs / "digits" / "results" / f"{name}.json").unlink()
    test = drawn(runs, "pareto")
    assert "measured so far" in words(test)
    assert len(test.multiselect(key="plans").options) > 30
    assert "plans measured so far" in words(drawn(runs, "search"))


def test_a_search_says_first_what_it_gained_and_lists_its_plans(runs):
    test = drawn(runs, "search")
    search = found_of(runs).search
    first = test.markdown[0].value.replace("\\", "")
    assert first.startswith(f"**{len(search.candidates)} plans were measured. The front last grew")
    assert "worth it" in first
    said = words(test).replace("\\", "")
    assert "Hypervolume is" in said
    assert "depth slope: moves bits from the first layers to the last" in said
    assert not test.dataframe, "the table is made when it is opened"
    test.session_state["trials"] = True
    table = test.run().dataframe[0].value
    assert list(table["plan"]) == [c.name for c in search.candidates]
    assert list(table.index) == list(range(1, len(table) + 1))
    assert list(table["measured loss"]) == [c.extra_nats for c in search.candidates]


def test_runs_of_unlike_metrics_are_compared_by_what_they_lose_relative_to_their_own(runs):
    shutil.copytree(runs / "digits", runs / "bytes")
    documents.in_bits_per_byte(runs / "bytes")
    alone = drawn(runs, "compare", runs="digits")
    assert "Best measured: digits, 98.2 ± 0.7 % in 1.65 KiB" in words(alone).replace("\\", "")
    assert alone.selectbox(key="as").value == "score"
    text = drawn(runs, "compare", runs="bytes")
    assert text.selectbox(key="as").value == "change to full precision"  # paired
    test = drawn(runs, "compare", runs=["digits", "bytes"])
    said = words(test).replace("\\", "")
    assert "measure different things, so each is held against its own full precision" in said
    assert test.selectbox(key="as").options == ["loss relative to full precision"]
    table = test.dataframe[0].value
    assert {*table["metric"]} == {"accuracy (%)", "bits per byte"}
    rows = table[table["budget"] == "1.5KiB"].set_index("run")
    assert rows["relative loss (%)"]["digits"] == "· 1.3 ± 0.8"  # 1.25 points of 98.25
    assert rows["relative loss (%)"]["bytes"] == "· 1.2 ± 0.8"  # 0.0125 bits of 1.0175
    assert "They are the same" in said
    other = next(c for c in found_of(runs).search.candidates if c.name == "pca26")
    called = told(other, found_of(runs).search)  # the page shows bytes and score, not hashes
    test.selectbox(key="other").select(f"digits: {called}").run()
    assert "KiB" in called
    assert test.selectbox(key="other").value == "digits: pca26"
    differ = test.dataframe[1].value
    plans = {c.name: dict(c.entries) for c in found_of(runs).search.candidates}
    pairs = {site: [plans[name][site] for name in ("pcfb6", "pca26")] for site in plans["pcfb6"]}
    pairs = {site: pair for site, pair in pairs.items() if pair[0] != pair[1]}
    assert len(pairs) == 6
    assert {site: list(row) for site, row in differ.iterrows()} == pairs


def test_compare_begins_with_the_run_that_was_looked_at(runs):
    for name in ("another", "more"):
        copy_searched(runs / name)
    assert drawn(runs, "compare").multiselect(key="runs").value == ["another", "digits"]
    test = AppTest.from_function(page, args=(str(runs), "compare", ""), default_timeout=WAIT)
    test.session_state["kept run"] = "more"
    assert test.run().multiselect(key="runs").value == ["more", "another"]


def test_a_plan_of_a_search_has_the_error_that_the_search_gives_it(runs):
    path = runs / "digits" / "results" / "search.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    for row in document["candidates"]:
        row["metric"]["stderr"] = 0.125  # as of samples that belong together, which a ledger lacks
    path.write_text(json.dumps(document), encoding="utf-8")
    shown = {m.label: m.value for m in drawn(runs, "plan").metric}
    found = next(value for label, value in shown.items() if label.startswith("measured"))
    assert found == "97 ± 12"


def test_a_model_is_a_graph_of_its_tensors_under_a_plan(runs):
    test = drawn(runs, "model", layer="0", under="full precision")
    said = words(test).replace("\\", "")
    assert "18 tensors in 1 layer; 5.98 KiB of weights and 1.00 KiB of state" in said
    assert test.selectbox(key="layer").options == ["0", "outside"]
    table = test.dataframe[0].value.set_index("site")
    assert list(table.loc["layers.0.A"]) == ["weight", "16 × 8 complex", "fp32"]
    (runs / "digits" / "results" / "sites.json").unlink()
    (runs / "digits" / "results" / "search.json").unlink()
    assert "did not keep the model" in words(drawn(runs, "model"))


def test_a_damaged_result_is_said_and_the_rest_is_shown(runs):
    (runs / "digits" / "results" / "search.json").write_text("{", encoding="utf-8")
    (runs / "digits" / "results" / "confirmation.json").unlink()
    assert "cannot be read" in words(drawn(runs, "runs"))
    assert drawn(runs, "sensitivity").multiselect(key="targets").options
    assert "measured so far" in words(drawn(runs, "pareto"))


def test_a_search_that_was_half_written_is_not_finished(runs):
    path = runs / "digits" / "results" / "search.json"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[: len(whole) // 2], encoding="utf-8")
    test = drawn(runs, "runs")
    assert test.dataframe[0].value["state"][0] == "⚠ damaged"
    assert "search.json ends in the middle" in words(test).replace("\\", "")


def test_a_damaged_run_hides_no_other(runs):
    (runs / "bad").mkdir()
    (runs / "bad" / "run.json").write_text("not JSON", encoding="utf-8")
    test = drawn(runs, "runs")
    assert len(test.dataframe[0].value) == 2
    assert "bad: " in words(test).replace("\\", "")
    assert "cannot be read" in words(drawn(runs, "pareto", "bad"))


def test_a_run_of_an_older_version_is_drawn(runs):
    """One without sites, of which search results say no sites either."""
    results = runs / "digits" / "results"
    (results / "sites.json").unlink()
    document = json.loads((results / "search.json").read_text(encoding="utf-8"))
    document.pop("sites", None)
    (results / "search.json").write_text(json.dumps(document), encoding="utf-8")
    for view in ("sensitivity", "pareto", "search", "compare"):
        assert not drawn(runs, view).error
    assert "did not keep the model" in words(drawn(runs, "plan"))


DAMAGE = {
    "search": [
        {"batch": 0}, {"batch": None}, {"full": {"metric": {}, "total_bytes": 1e999}},
        {"candidates": [{"name": "p1", "metric": {}, "weight_bytes": 0, "state_bytes": 0,
                         "total_bytes": -5}]},
    ],
    "sensitivity-measured": [{"schemes": []}, {"schemes": ["other"]}],
    "sites": [[{"site": "x", "part": "A", "kind": "weight", "shape": ["a"], "axes": ["head"],
                "complex": False}]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for name, changes in DAMAGE.items() for change in changes]
)
def test_damaged_values_are_said_or_passed_over(runs, name, change):
    path = runs / "digits" / "results" / f"{name}.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | change if isinstance(change, dict) else change))
    for view in ("runs", "sensitivity", "pareto", "plan", "search", "compare"):
        assert drawn(runs, view).title


@pytest.mark.parametrize(
    "change", [{"sites": [1]}, {"settings": []}, {"model": 7}, {"data": None}, {"created": "once"}]
)
def test_a_damaged_manifest_is_said_and_hides_no_other(runs, change):
    shutil.copytree(runs / "digits", runs / "good")
    path = runs / "digits" / "run.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | change), encoding="utf-8")
    for view in ("runs", "pareto", "compare"):
        assert not drawn(runs, view, "good").error
    listed = drawn(runs, "runs").dataframe[0].value
    assert len(listed) == 2
    assert (
        "created" in change
        or "cannot be read" in words(drawn(runs, "runs"))
        or "lacks" in words(drawn(runs, "runs"))
    )


def test_a_run_that_is_made_anew_is_read_anew(runs):
    assert "digits" in list(drawn(runs, "runs").dataframe[0].value["data"])
    shutil.rmtree(runs / "digits" / "evaluations")
    assert drawn(runs, "runs").dataframe[0].value["evaluations"][0] == 0
    shutil.rmtree(runs / "digits")
    drawn(runs, "runs")
    copy_searched(runs / "digits")
    assert drawn(runs, "runs").dataframe[0].value["evaluations"][0] > 100


def test_a_command_to_copy_is_quoted(runs):
    path = runs / "digits" / "run.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"model": "m; touch here"}), encoding="utf-8")
    shutil.rmtree(runs / "digits" / "results")
    assert "profile 'm; touch here' --data" in words(drawn(runs, "sensitivity"))


def test_another_command_on_the_run_leaves_the_finished_search(runs):
    run = open_run(runs / "digits")
    with run.working("eval"):
        assert "measured so far" not in words(drawn(runs, "pareto"))
    with run.working("search"):
        test = drawn(runs, "pareto")
        assert "measured so far" in words(test)
        options = test.multiselect(key="plans").options
        assert "uniform int8/head/asym/dynamic · 2.18 KiB · 98.2 %" in options


def test_text_of_a_run_stays_text(runs):
    path = runs / "digits" / "run.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["model"] = "**bold** <script>alert(1)</script> :red[x]"
    path.write_text(json.dumps(document), encoding="utf-8")
    from sensprobe_app.controls import plain

    assert plain(document["model"]) == (r"\*\*bold\*\* \<script\>alert\(1\)\</script\> \:red\[x\]")
    assert drawn(runs, "runs").dataframe[0].value["model"][0] == document["model"]


def test_the_address_opens_the_same_view(runs):
    first = drawn(runs, "pareto")
    assert "1.50 KiB · 97.0 %" in first.multiselect(key="plans").options
    name, uniform = "pcfb6", "uniform fp16"  # as an address of old calls it
    again = drawn(runs, "pareto", plans=[name, uniform], batch="64", feasible="true")
    shown = again.multiselect(key="plans")
    assert shown.value == [name, "p63e7"]
    assert "17.25 KiB · 97.0 %" in shown.options
    assert again.query_params["plans"] == [name, "p63e7"]
    assert again.select_slider(key="batch").value == 64
    assert again.toggle(key="feasible").value is True


def test_the_batch_changes_bytes_at_once(runs):
    one, many = (drawn(runs, "pareto", batch=batch) for batch in ("1", "1024"))
    assert "at batch 1024" in words(many)
    assert not one.dataframe, "the table is made when it is opened"
    for test in (one, many):
        test.session_state["table"] = True
        test.run()
    assert not one.dataframe[0].value.equals(many.dataframe[0].value)


def test_the_plan_says_bytes_prediction_and_measurement(runs):
    labels = [metric.label for metric in drawn(runs, "plan").metric]
    assert labels[0].startswith("confirmed accuracy")
    assert labels[1] == "bytes at batch 1"
    assert any(label.startswith("predicted") for label in labels)
    assert any(label.startswith("measured accuracy") for label in labels)


def test_an_unknown_scheme_is_said(runs):
    test = drawn(runs, "plan", extra="")
    test.text_input(key="extra").input("int99").run()
    assert test.error
    assert "int99" in test.error[0].value


def test_code_that_a_run_names_is_shown_and_not_run(runs, tmp_path):
    path, evil = runs / "digits" / "run.json", tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\ndef f(*_): ...\n")
    document = json.loads(path.read_text())
    document["settings"]["metric"] = f"python:{evil}:f"
    path.write_text(json.dumps(document))
    test = drawn(runs, "plan")
    next(button for button in test.button if button.label == "Measure it").click().run()
    assert not test.exception
    assert "names code to run: f() of" in test.error[0].value.replace("\\", "")
    assert test.code[0].value.startswith("sensprobe eval --run ")
    assert test.code[0].value.endswith(" --allow-code")
    assert not (tmp_path / "ran").exists()


def test_a_run_that_a_link_asks_for_and_is_gone_opens_no_other(runs):
    test = opened(runs, "pareto", run="another")
    assert "a run another, which is not in this folder" in test.warning[0].value
    assert not test.title
    test.selectbox(key="run").select("digits").run()
    assert not test.warning
    assert test.title[0].value == "Pareto"


def test_a_plan_that_a_link_asks_for_and_is_gone_opens_no_other(runs):
    test = opened(runs, "plan", run="digits", plan="p00000")
    assert "This search has no plan p00000" in test.warning[0].value
    assert not test.metric
    first = test.selectbox(key="plan").options[0]
    test.selectbox(key="plan").select(first).run()
    assert not test.warning
    assert test.metric[-4].label == "bytes at batch 1"


def test_another_run_begins_with_its_own_first_plan(runs):
    shutil.copytree(runs / "digits", runs / "other")
    test = opened(runs, "plan", run="digits")
    last = test.selectbox(key="plan").options[-1]
    test.selectbox(key="plan").select(last).run()
    test.selectbox(key="run").select("other").run()
    assert test.selectbox(key="plan").value == found_of(runs).search.chosen[0].candidate
    assert not test.warning


def test_an_earlier_search_is_chosen_at_the_side(runs):
    before = opened(runs, "plan", run="digits").selectbox(key="plan").options
    api.search(runs / "digits", ["2KiB"], evaluations=4, confirm=False)
    test = opened(runs, "pareto", run="digits")
    earlier = test.selectbox(key="of").options[1]
    assert test.selectbox(key="of").options[0] == "latest: 2KiB"
    assert earlier == "1: 1.5KiB, 1.75KiB"
    test = opened(runs, "plan", run="digits", of=earlier)
    assert test.selectbox(key="plan").options == before


@pytest.mark.parametrize("view", ["pareto", "plan", "compare"])
def test_what_was_confirmed_stands_before_what_was_searched(runs, view):
    found = gather(open_run(runs / "digits"))
    plan = found.confirmation.plans[0]
    level = found.confirmation.quantity.level(plan.metric)
    searched = found.search.candidate(plan.candidate)
    test = drawn(runs, view, plan=searched.name, plans=searched.name)
    if view == "plan":
        assert test.metric[0].value == level
        assert test.metric[0].label.startswith("confirmed accuracy")
    elif view == "compare":
        row = test.dataframe[0].value.iloc[0]
        assert list(row.index).index("confirmed") < list(row.index).index("searched")
        assert row["confirmed"] == level
    else:
        facts = test.dataframe[0].value["1.50 KiB · 97.0 %"]
        assert list(facts.index[:2]) == ["name in files", "confirmed accuracy (%)"]
        assert list(facts.iloc[:2]) == [searched.name, level]


def test_a_plan_that_was_saved_is_a_plan_like_others(runs):
    folder = runs / "digits" / "plans"
    folder.mkdir(exist_ok=True)
    plan = Plan((parse_setting("*.out_proj=int7/channel"),), "my-try")
    (folder / "my-try.json").write_text(json.dumps(plan.to_json()), encoding="utf-8")
    (folder / "away.json").symlink_to(folder / "my-try.json")
    (folder / "bad.json").write_text("{", encoding="utf-8")
    test = drawn(runs, "plan", plan="my-try")
    assert test.selectbox(key="plan").value == "my-try"
    assert not {"away", "bad"} & set(test.selectbox(key="plan").options)
    assert test.metric[-1].value == "not yet"
    file = folder / "my-try.json"
    api.evaluate(None, None, file, run=runs / "digits", split="search")
    (saved,) = (b for b in found_of(runs).search.compared if b.saved)
    assert (saved.name, saved.metric.n) == ("my-try", 400)
    assert drawn(runs, "plan", plan="my-try").metric[-1].value != "not yet"


def test_sensitivities_are_filtered_by_kind_part_and_layer(runs):
    document = documents.sensitivity(by="site")
    path = runs / "digits" / "run.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    about["sites"] = {row["site"]: [1] for row in documents.site_rows()}
    path.write_text(json.dumps(about), encoding="utf-8")
    open_run(runs / "digits").write_result("sensitivity-measured", document)
    test = drawn(runs, "sensitivity")
    kinds, parts, layers = (test.multiselect(key=key) for key in ("kinds", "parts", "layer"))
    assert kinds.value == ["weight", "state"]
    assert layers.options == ["0", "1", "2", "3"]
    assert set(test.multiselect(key="targets").options) == {
        row["target"] for row in document["rows"] if row["kind"] != "activation"
    }
    parts.select("state").run()
    layers.select("2").run()
    assert test.multiselect(key="targets").options == ["layers.2.state"]
    kinds.set_value([]).run()
    assert "No group of this profile" not in words(test)
    kinds.set_value(["weight", "state"]).run()
    kinds.unselect("state").run()
    assert "No group of this profile" in words(test)
    again = drawn(runs, "sensitivity", kinds="activation", layer="1")
    assert set(again.multiselect(key="targets").options) == {"layers.1.x", "layers.1.y"}


def test_the_table_of_sensitivities_is_made_when_it_is_opened(runs):
    test = drawn(runs, "sensitivity")
    assert not test.dataframe
    test.session_state["table"] = True
    test.run()
    assert list(test.dataframe[0].value.columns)[:2] == ["rank", "target"]


def test_a_search_that_was_killed_is_not_shown_for_one_that_ended(runs, monkeypatch):
    ended = found_of(runs).search
    going = replace(ended, method="", candidates=ended.candidates[:1])
    monkeypatch.setattr(store, "_so_far", lambda *asked: going)
    for searching, search in ((True, going), (False, ended)):
        monkeypatch.setattr(store, "searching", lambda run, now=searching: now)
        found = found_of(runs)
        assert (found.partial, found.search.candidates) == (searching, search.candidates)


def found_of(runs):
    return store.found(next(line for line in store.lines(runs) if line.name == "digits"))


def test_budgets_are_typed_in_all_and_apart(runs):
    test = drawn(runs, "pareto", budget="1.6KiB", state="25%")
    said = words(test).replace("\\", "")
    assert "within 1.60 KiB and 256 bytes of state" in said
    assert "Smallest without a difference to full precision within" in said
    assert "(weights " in said
    test.text_input(key="weights").input("12 apples").run()
    assert "12 apples" in test.error[0].value


def test_an_earlier_search_that_is_damaged_leaves_the_latest(runs):
    api.search(runs / "digits", ["2KiB"], evaluations=4, confirm=False)
    path = runs / "digits" / "results" / "confirmation-1.json"
    path.write_text("{", encoding="utf-8")
    test = opened(runs, "pareto", run="digits", of="1: 1.5KiB, 1.75KiB")
    assert "The latest search is shown." in test.warning[0].value
    assert test.title[0].value == "Pareto"


def test_runs_are_counted_first_and_show_tags_notes_and_seeds(runs):
    write_notes(runs / "digits", Notes(("paper", "good"), "first try"))
    shutil.copytree(runs / "digits", runs / "other")
    write_notes(runs / "other", Notes(("good",), ""))
    test = drawn(runs, "runs")
    first = test.markdown[0].value.replace("\\", "")
    assert first.startswith("**2 runs: 2 finished. ")
    assert "1.5KiB: 95.2 ± 1.1 %, 1.50 KiB, confirmed" in first
    table = test.dataframe[0].value.set_index("model")
    assert sorted(map(list, table["tags"])) == [["good"], ["paper", "good"]]
    assert sorted(table["notes"]) == ["", "first try"]
    assert list(table["seeds"]) == ["data 0, search 0"] * 2
    test.button_group(key="tag").select("paper").run()
    assert list(test.dataframe[0].value["notes"]) == ["first try"]


def test_a_note_is_kept_in_the_run(runs):
    test = drawn(runs, "runs")
    test.text_input(key="tags digits").input("one, two , one")
    test.text_area(key="text digits").input("**not bold**\nand more")
    next(button for button in test.button if button.label == "Keep").click().run()
    assert read_notes(runs / "digits") == Notes(("one", "two"), "**not bold**\nand more")
    assert list(test.dataframe[0].value["tags"][0]) == ["one", "two"]


def test_a_note_that_is_damaged_or_too_long_is_said_and_hides_no_run(runs):
    (runs / "digits" / "notes.json").write_text('{"tags": [1], "text": ""}', encoding="utf-8")
    test = drawn(runs, "runs")
    assert "notes.json cannot be read" in words(test).replace("\\", "")
    assert test.dataframe[0].value["state"][0] == "✓ finished"
    assert list(test.dataframe[0].value["tags"][0]) == []


def test_a_plan_is_called_what_it_is_and_its_hash_is_a_tooltip(runs):
    test = drawn(runs, "plan")
    chosen = found_of(runs).search.chosen[0].candidate
    picker = test.selectbox(key="plan")
    assert (picker.value, picker.options[0]) == (chosen, "1.50 KiB · 97.0 %")
    assert f"It is {chosen}" not in words(test)
    assert any(chosen in caption.help for caption in test.caption if caption.help)
    assert len(set(picker.options)) == len(picker.options)
    many = drawn(runs, "plan", batch="64").selectbox(key="plan")
    assert many.value == chosen
    assert many.options[0].startswith("17.25 KiB · ")


def test_whole_rows_and_columns_are_set_and_undone(runs):
    test = drawn(runs, "plan")
    before = test.metric[1].value
    test.selectbox(key="row").select("").run()
    test.selectbox(key="column").select("weights").run()
    test.selectbox(key="scheme of many").select("fp16").run()
    click(test, "Set them")
    layers, outside = (table.value for table in test.dataframe[:2])
    assert layers["A"].iloc[0] == outside["head"].iloc[0] == "fp16"
    assert layers["state"].iloc[0] != "fp16"
    assert test.metric[0].value != before
    click(test, "Undo all changes")
    assert test.metric[1].value == before


def test_the_next_change_is_named_and_made(runs):
    test = drawn(runs, "plan")
    tables = [t.value for t in test.dataframe if "a KiB" in t.value]
    saves, wins = tables
    assert set(saves["bytes"].str[0]) == {"−"}
    assert set(wins["bytes"].str[0]) == {"+"}
    assert all("±" in text for table in tables for text in table.iloc[:, 2])
    click(test, "Make it: layers.*.D to int4/head/asym/dynamic")
    assert test.metric[0].label == "bytes at batch 1"  # what is edited is not confirmed
    assert "edited, from a plan that is: chosen for" in words(test).replace("\\", "")
    assert test.dataframe[0].value["D"].iloc[0] == "int4/asym"
    assert test.metric[0].delta.endswith(f"{saves['bytes'][0].replace('−', '-')} bytes")


def test_presets_are_plans_to_start_from(tmp_path):
    api.profile(
        "s5-digits", "digits", tmp_path / "runs" / "s5", ["int8/channel"], limit=8, method="taylor"
    )
    test = drawn(tmp_path / "runs", "plan", "s5", plan="qs5-w4a8")
    assert "preset: weights int4" in words(test).replace("\\", "")
    assert test.dataframe[0].value["state"].iloc[0] == "int8/dynamic"


def test_steps_that_were_timed_under_the_plan_are_summed(runs):
    search = found_of(runs).search
    chosen = search.candidate(search.chosen[0].candidate)
    told = words(drawn(runs, "plan"))
    assert "sensprobe bench s4d-digits --data digits --plan" in told
    about = {"scheme": chosen.name, "size": "1 step", "batch": 2, "model": "s4d-digits, batch 2"}
    rows = [
        about | {"operation": "step", "seconds": 2e-5, "ratio": 8.0},
        about | {"operation": "recurrence", "seconds": 1.5e-5, "share": 0.75},
        about | {"operation": "step", "seconds": 1e-5, "scheme": "full precision"},
    ]
    plan = {"plan_name": chosen.name, "plan_fingerprint": chosen.plan_fingerprint}
    documents.keep_bench(runs / "digits", documents.bench() | plan | {"rows": rows})
    test = drawn(runs, "plan")
    (table,) = [t.value for t in test.dataframe if "% of the step" in t.value]
    assert table[["batch", "operation", "µs", "% of the step"]].to_numpy().tolist() == [
        ["2", "step", "20.0", "–"],
        ["2", "recurrence", "15.0", "75"],
    ]
    assert "This plan was not timed" not in words(test)
    assert "This plan was not timed" in words(drawn(runs, "plan", plan="full precision"))


def test_how_large_the_values_of_a_tensor_are_is_looked_at_and_drawn(runs):
    test = drawn(runs, "plan")
    click(test, "Look")
    job = jobs.jobs()[str(runs / "digits"), jobs.RANGES]
    assert job.process.wait(timeout=300) == 0, job.said
    test.run()
    assert "Look" not in {button.label for button in test.button}
    assert "layers.0.state" in test.selectbox(key="tensor").options
    test.selectbox(key="tensor").select("layers.0.state").run()
    assert not test.exception


def test_what_a_runtime_drops_of_the_plan_is_said(runs, monkeypatch):
    chosen = found_of(runs).search.chosen[0].candidate
    why = {"sites": "layers.*.A", "count": 6, "asked": "int8/head", "becomes": "fp32"}
    told = {
        "target": "torchao", "quantized": 6, "dropped": [why], "narrowed": [], "use": ["load()"],
        "weight_bytes": {"plan": 1024, "here": 2048}, "state_bytes": {"plan": 64, "here": 128},
        "warnings": ["the state of layers.0 leaves the range of float16"],
    }  # fmt: skip
    file = runs / "digits" / "plans" / f"export-{chosen}-torchao.out.json"
    file.write_text(json.dumps(told), encoding="utf-8")
    assert "torchao" not in drawn(runs, "plan").selectbox(key="runtime").options  # S4D has none
    monkeypatch.setattr("sensprobe_app.views.plan.selective", lambda sites: True)
    test = drawn(runs, "plan")
    assert "dropped" not in words(test)
    test.selectbox(key="runtime").select("torchao").run()
    said = words(test).replace("\\", "")
    assert "keeps 6 matrices quantized: weights 2.00 KiB (1.00 KiB in the plan)" in said
    assert "It drops 1:" in said
    assert test.warning[-1].value.replace("\\", "") == told["warnings"][0]
    assert why in test.dataframe[-1].value.to_dict(orient="records")
    for damaged in ("{", '{"dropped": []}'):
        file.write_text(damaged, encoding="utf-8")
        assert not test.run().exception


def click(test, label: str) -> None:
    next(button for button in test.button if button.label == label).click().run()
    assert not test.exception, test.exception
