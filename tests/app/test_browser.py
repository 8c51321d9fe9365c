"""The dashboard as a person meets it, in a real Chromium.

Where there is no Chromium these tests say so and are not run; `SENSPROBE_REQUIRE_BROWSER=1`, which
CI sets, makes its absence a failure. `SENSPROBE_CHROMIUM` names one that is not on the PATH.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from urllib.parse import unquote

import pytest
import report_documents as documents
from playwright.sync_api import expect, sync_playwright

from sensprobe import api
from sensprobe.cli.dashboard import served as served_at
from sensprobe.plans.plan import from_json
from sensprobe.report.gather import gather
from sensprobe.report.names import told
from sensprobe.report.theme import DARK
from sensprobe.runs import open_run

NAMES = ("chromium", "chromium-browser", "google-chrome")
VIEWS = ("", "sensitivity", "pareto", "plan", "model", "search", "compare", "kernels")
PATIENCE = 60_000
CHART = ".js-plotly-plot .main-svg"
METRIC = '[data-testid="stMetricValue"]'
TABLE = '[data-testid="stDataFrame"]'


def chromium() -> str:
    found = os.environ.get("SENSPROBE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), "")
    if not found:
        missing = "not run: no Chromium here; install one, or name it in SENSPROBE_CHROMIUM"
        if os.environ.get("SENSPROBE_REQUIRE_BROWSER"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@pytest.fixture(scope="module")
def browser():
    path = chromium()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1400, "height": 1200})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    yield opened
    context.close()


@pytest.fixture
def served(runs):
    """The address of `sensprobe dashboard` over a folder with the run `digits`, with a bench and
    two tuned models."""
    documents.keep_bench(runs / "digits", documents.bench())
    run = open_run(runs / "digits")
    run.write_result("tuned", documents.tuned(run.read_result("search")))
    with served_at(runs) as dashboard:
        yield dashboard.address


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.thorough)])
def test_every_view_is_drawn(browser, served, scheme):
    context = browser.new_context(viewport={"width": 1400, "height": 1200}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    for view in VIEWS:
        page.goto(f"{served}/{view}")
        expect(page.locator("h1")).to_have_text(view.capitalize() or "Runs", timeout=PATIENCE)
        page.locator(CHART if view else TABLE).first.wait_for()
        assert page.locator('[data-testid="stException"]').count() == 0
        if view == "pareto":
            names = page.locator(".legendtext").filter(has_text=re.compile("^tuned$"))
            expect(names).to_have_count(2)  # among the plans, and before and after
        if view and scheme == "dark":
            ground = page.locator(CHART).first.evaluate("svg => svg.style.background")
            assert ground == "rgb(20, 23, 28)", DARK.paper
    context.close()


def test_labels_of_the_model_are_whole_on_a_narrow_screen(browser, served):
    context = browser.new_context(viewport={"width": 390, "height": 1200})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{served}/model?run=digits")
    drawn_whole(page)
    chart = page.locator(".js-plotly-plot").first
    plot, axes = chart.bounding_box(), chart.locator(".nsewdrag").first.bounding_box()
    for label in chart.locator(".textpoint").all():
        box = label.bounding_box()
        assert box["x"] >= axes["x"], label.text_content()
        assert box["x"] + box["width"] <= axes["x"] + axes["width"], label.text_content()
    assert plot["width"] > 390, "the figure is wider than the screen"
    assert page.locator(".st-key-model").evaluate("e => e.scrollWidth > e.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "the page is not"
    context.close()


WIDTHS = [pytest.param(1280, marks=pytest.mark.thorough), 390]


@pytest.mark.parametrize("width", WIDTHS)
def test_titles_legends_and_axes_do_not_cover_each_other(browser, served, width):
    context = browser.new_context(viewport={"width": width, "height": 1200})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    for view in ("sensitivity", "pareto"):
        page.goto(f"{served}/{view}?run=digits")
        page.locator(".js-plotly-plot .gtitle").nth(1).wait_for()
        drawn_whole(page)
        for plot in page.locator(".js-plotly-plot").all():
            boxes = {"plot": plot.bounding_box()}
            for name in (".gtitle", ".legend", ".xtitle", ".nsewdrag"):
                found = plot.locator(name)
                if found.count():
                    boxes[name] = found.first.bounding_box()
            title, axes = boxes[".gtitle"], boxes[".nsewdrag"]
            assert title["y"] >= boxes["plot"]["y"]
            assert title["x"] + title["width"] <= boxes["plot"]["x"] + boxes["plot"]["width"]
            assert title["y"] + title["height"] <= axes["y"]
            assert axes["height"] > 100
            assert axes["width"] > 90
            if ".legend" in boxes:
                title, legend = boxes[".xtitle"], boxes[".legend"]
                assert axes["y"] + axes["height"] <= title["y"]
                assert title["y"] + title["height"] <= legend["y"]
    context.close()


@pytest.mark.thorough
def test_a_bench_that_is_made_appears_and_is_put_beside_another(page, served, runs):
    page.goto(f"{served}/kernels")
    page.locator(".scatterlayer .points path").first.wait_for()
    assert page.get_by_text("Side by side", exact=True).count() == 0
    later = documents.bench(2e-4) | {"created": "2026-03-02T09:00:00+00:00"}
    documents.keep_bench(runs / "digits", later)
    page.get_by_label("Beside it").click()
    page.get_by_role("option", name="2026-03-02 09:00, cpu, batch 1").click()
    page.get_by_text("Side by side", exact=True).wait_for()
    page.wait_for_url(re.compile(r"beside=2026-03-02"))
    expect(page.locator(".gtitle").first).to_contain_text("open: 2026-03-02")


@pytest.mark.thorough
def test_a_click_on_a_mark_puts_its_plan_beside_others_and_into_the_address(page, served):
    page.goto(f"{served}/pareto?run=digits")
    page.locator(CHART).first.wait_for()
    front = page.locator(".js-plotly-plot").first  # what tuning gained is a second chart
    marks = front.locator(".scatterlayer .trace .points path")
    marks.first.wait_for()
    drawn_whole(page)
    box = marks.nth(marks.count() - 1).bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url(re.compile(r"plans=p"))
    page.get_by_text("Side by side", exact=True).wait_for()
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    page.get_by_text("Side by side", exact=True).wait_for()


def test_a_click_on_a_star_picks_its_plan_whatever_lies_below_it(page, served):
    page.goto(f"{served}/pareto?run=digits")
    front = page.locator(".js-plotly-plot").first
    front.locator(".scatterlayer .points path").first.wait_for()
    drawn_whole(page)
    star = front.evaluate(
        """plot => {
            const star = plot.data.find(trace => trace.name === 'chosen');
            const {xaxis, yaxis} = plot._fullLayout;
            const at = (axis, value) => axis.d2p(value) + axis._offset;
            return [at(xaxis, star.x[0]), at(yaxis, star.y[0])];
        }"""
    )
    front.click(position={"x": star[0], "y": star[1] + 4})  # on the edge of a dominated plan
    page.wait_for_url(re.compile(r"plans=pcfb6"))


def test_the_first_address_after_another_view_names_run_and_plan(page, served):
    for first in ("search?run=digits", ""):
        page.goto(f"{served}/{first}")
        page.locator("h1").wait_for()
        page.get_by_role("link", name="Plan", exact=True).click()
        page.wait_for_url(re.compile(r"/plan\?run=digits&plan="))


def test_a_link_to_what_is_gone_opens_nothing_else(page, served):
    page.goto(f"{served}/pareto?run=another")
    page.get_by_text("a run another, which is not in this folder").wait_for()
    assert page.get_by_role("heading", name="Pareto").count() == 0
    page.goto(f"{served}/plan?run=digits&plan=p00000")
    page.get_by_text("This search has no plan p00000").wait_for()
    assert page.locator(METRIC).count() == 0


def test_text_is_spoken_of_in_bits_and_drawn_by_what_is_lost(page, served, runs):
    shutil.copytree(runs / "digits", runs / "text")
    documents.in_bits_per_byte(runs / "text")
    page.goto(f"{served}/plan?run=text")
    page.get_by_text("measured bits per byte").first.wait_for()
    assert page.get_by_text("accuracy").count() == 0
    page.goto(f"{served}/pareto?run=text")
    drawn_whole(page)
    title = page.locator(".ytitle").first.text_content()
    assert title.startswith("bits per byte lost to full")
    assert "paired with full precision" in page.locator(".gtitle").first.text_content()


def test_a_confirmed_score_stands_first(page, served):
    page.goto(f"{served}/plan?run=digits")
    page.locator(METRIC).nth(4).wait_for()
    first = page.get_by_test_id("stMetric").first
    assert first.inner_text().startswith("confirmed accuracy (%)")
    page.goto(f"{served}/pareto?run=digits&budget=1.75KiB")
    page.get_by_text(
        re.compile(r"Best measured within 1\.75 KiB: confirmed .* searched ")
    ).wait_for()


def test_a_search_that_was_half_written_is_not_called_finished(page, served, runs):
    path = runs / "digits" / "results" / "search.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    page.goto(served)
    page.get_by_text("search.json ends in the middle").wait_for()
    expect(page.locator(TABLE).first.locator("td").filter(has_text="⚠ damaged")).to_have_count(1)


def test_a_profile_of_many_sites_begins_with_layers_by_parts(page, served, runs):
    about = json.loads((runs / "digits" / "run.json").read_text(encoding="utf-8"))
    about["sites"] = {row["site"]: [1] for row in documents.site_rows()}
    (runs / "digits" / "run.json").write_text(json.dumps(about), encoding="utf-8")
    run = open_run(runs / "digits")
    run.write_result("sensitivity-measured", documents.sensitivity(by="site"))
    page.goto(f"{served}/sensitivity?run=digits")
    page.locator(CHART).nth(2).wait_for()
    drawn_whole(page)
    charts = page.locator(".js-plotly-plot")
    titles = [charts.nth(k).locator(".gtitle").text_content() for k in range(2)]
    assert "by layer and part" in titles[0], titles
    heights = [chart.bounding_box()["height"] for chart in charts.all()]
    assert max(heights[:2]) < 1000, heights
    for name in ("Kinds", "Parts", "Layers"):
        assert page.get_by_text(name, exact=True).count() == 1, name


def test_a_batch_renames_plans_and_leaves_those_that_were_picked(page, served):
    page.goto(f"{served}/pareto?run=digits&plans=pcfb6&budget=64KiB&batch=64")
    page.get_by_text("17.25 KiB · 97.0 %").first.wait_for()
    page.get_by_text("The best plan by batch in 64.00 KiB").wait_for()
    page.get_by_text("Side by side", exact=True).wait_for()
    page.get_by_role("slider").first.press("Home")
    page.get_by_text("1.50 KiB · 97.0 %").first.wait_for()
    page.get_by_text("Side by side", exact=True).wait_for()
    assert "plans=pcfb6" in page.url


def test_cells_that_are_edited_or_changed_by_a_button_are_framed_until_undone(page, served):
    page.goto(f"{served}/plan?run=digits&plan=pcfb6")
    page.locator(METRIC).nth(4).wait_for()
    drawn_whole(page)
    frames = page.locator(".js-plotly-plot .shapelayer path")
    put_in_column_of_a(page, "fp16")
    expect(frames).to_have_count(1, timeout=PATIENCE)
    drawn_whole(page)
    page.get_by_role("button", name="Make it: encoder to int6").click()
    expect(frames).to_have_count(2, timeout=PATIENCE)
    drawn_whole(page)
    page.get_by_role("button", name="Undo all changes").click()
    expect(frames).to_have_count(0, timeout=PATIENCE)
    first = page.locator(TABLE).first.get_by_test_id("glide-cell-2-0")
    expect(first).to_have_text("int8/head/asym", timeout=PATIENCE)


@pytest.mark.thorough
def test_a_box_drawn_around_marks_picks_their_plans(page, served):
    page.goto(f"{served}/pareto?run=digits")
    page.locator(".scatterlayer .points path").first.wait_for()
    drawn_whole(page)  # until the chart has its tools
    page.locator(".js-plotly-plot").first.hover()
    page.locator('[data-title="Box Select"]').first.click()
    ground = page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
    assert ground is not None
    page.mouse.move(ground["x"] + 5, ground["y"] + 5)
    page.mouse.down()
    across, down = 0.7 * ground["width"], 0.9 * ground["height"]
    page.mouse.move(ground["x"] + across, ground["y"] + down, steps=8)
    page.mouse.up()
    page.wait_for_url(re.compile(r"plans=.*plans="))


def test_a_click_on_a_cell_of_a_map_picks_its_group(page, served):
    page.goto(f"{served}/sensitivity?run=digits")
    page.locator(CHART).first.wait_for()
    drawn_whole(page)
    group = page.locator(".js-plotly-plot .ytick text").first
    row, area = group.bounding_box(), page.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
    page.mouse.click(area["x"] + 20, row["y"] + row["height"] / 2)
    page.wait_for_url(re.compile(r"targets="))
    assert group.text_content() in unquote(page.url)


@pytest.mark.thorough
def test_a_plan_is_edited_measured_and_taken_home(page, served, runs, tmp_path):
    search = gather(open_run(runs / "digits")).search
    assert search is not None
    start = search.chosen[1].candidate
    page.goto(f"{served}/plan?run=digits&plan={start}")
    page.locator(METRIC).nth(3).wait_for()
    before = page.locator(METRIC).all_inner_texts()[-4:]  # what was confirmed is before them
    put_in_column_of_a(page, "fp16")
    expect(page.locator(METRIC).nth(3)).to_have_text("not yet", timeout=PATIENCE)
    after = page.locator(METRIC).all_inner_texts()
    assert after[0] != before[0], "bytes follow the edit"

    name = page.get_by_role("textbox", name="Name")
    expect(name).to_have_value(f"{start}-edited", timeout=PATIENCE)
    drawn_whole(page)
    with page.expect_download() as told:
        page.get_by_role("button", name="plan.json").click()
    told.value.save_as(tmp_path / "plan.json")
    plan = from_json(json.loads((tmp_path / "plan.json").read_text(encoding="utf-8")))
    schemes = {pattern: str(scheme) for pattern, scheme in plan.entries}
    assert schemes["layers.0.A"] == "fp16"
    assert f"{api.cost('s4d-digits', plan)['total_bytes'] / 1024:.2f} KiB" == after[0]

    count = open_run(runs / "digits").count
    page.get_by_role("button", name="Measure it").click()
    expect(page.locator(METRIC).nth(3)).to_contain_text("±", timeout=2 * PATIENCE)
    assert open_run(runs / "digits").count == count + 1
    assert f"plan={start}" in page.url
    assert page.locator(METRIC).all_inner_texts()[0] == after[0], "the edit is still there"

    page.get_by_role("link", name="Search", exact=True).click()
    page.get_by_role("heading", name="What failed").wait_for()
    page.get_by_role("link", name="Plan", exact=True).click()
    expect(page.locator(METRIC).first).to_have_text(after[0], timeout=PATIENCE)

    name.fill("my-try")
    name.press("Enter")
    page.get_by_text("plans/my-try.json").first.wait_for()
    drawn_whole(page)
    page.get_by_role("button", name="Save it").click()
    page.get_by_text("Saved as my-try").wait_for()
    page.goto(f"{served}/plan?run=digits&plan=my-try")
    expect(page.locator(METRIC).first).to_have_text(after[0], timeout=PATIENCE)
    page.goto(f"{served}/pareto?run=digits")
    page.locator(CHART).first.wait_for()
    assert (runs / "digits" / "plans" / "my-try.json").is_file()


QUIET = """
    () => {
        const state = document.querySelector('[data-testid="stApp"]')?.dataset.testScriptState;
        if (state !== 'notRunning' || window.restsAt !== location.pathname) {
            window.restsAt = state === 'notRunning' ? location.pathname : null;
            window.restsSince = performance.now();
        }
        return performance.now() - window.restsSince > 1000;
    }
"""
"""True once a page has run nothing for a second: what follows its first chart is there by then."""


def drawn_whole(page) -> None:
    """Wait until the page has run to its end: what stands below is then of what stands above, and
    what stands still may be clicked."""
    page.wait_for_function(QUIET, polling=100, timeout=PATIENCE)


def test_what_was_never_priced_has_no_prediction_until_it_is(page, served, runs):
    page.goto(f"{served}/plan?run=digits&plan=full precision")
    page.locator(METRIC).nth(3).wait_for()
    drawn_whole(page)
    put_in_column_of_a(page, "int6/asym (not measured)")
    guess, delta = page.locator(METRIC).nth(2), page.locator('[data-testid="stMetricDelta"]').first
    expect(guess).to_have_text("not measured", timeout=PATIENCE)
    expect(delta).to_contain_text("bytes")
    told = page.get_by_text("without what no profile priced")
    expect(told).to_contain_text("layers.*.A")
    page.get_by_role("button", name="Price them").click()
    expect(guess).to_contain_text("±", timeout=2 * PATIENCE)
    expect(told).to_have_count(0)
    found = gather(open_run(runs / "digits")).measured
    assert found.schemes[-1] == "int6/asym"
    price = found.grid["layers.*.A", "int6/asym"].additive
    assert f"{price.value:.2g}"[:3] in guess.inner_text()


def put_in_column_of_a(page, scheme: str) -> None:
    """Type a scheme, with what is said of it where it is offered, into the first layer's cell of A:
    by keyboard alone once the table has the focus, and each key only when the one before it has
    shown its effect."""
    table = page.locator(TABLE).first
    first, second = (table.get_by_test_id(f"glide-cell-{column}-0") for column in (1, 2))
    box = table.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 110, box["y"] + 52)
    expect(first).to_have_attribute("aria-selected", "true", timeout=PATIENCE)
    page.keyboard.press("ArrowRight")
    expect(second).to_have_attribute("aria-selected", "true", timeout=PATIENCE)
    page.keyboard.press("Enter")
    editor = page.get_by_test_id("portal").locator("input")
    editor.wait_for()
    page.keyboard.type(scheme)
    expect(editor).to_have_value(scheme, timeout=PATIENCE)
    page.keyboard.press("Enter")
    expect(second).to_have_text(scheme.partition(" (")[0], timeout=PATIENCE)


SLOW = """
import time

def right(outputs, targets):
    time.sleep(0.3)
    return (outputs.argmax(-1) == targets).float()
"""
"""A metric that takes its time, so that there is a search to follow on any machine."""


def has_a_front(page, address) -> None:
    """A run that is searched, with fewer samples than its profile had, shows plans that no other
    beats, in a page of its own."""
    other = page.context.new_page()
    other.goto(address)
    other.get_by_text("plans are as measured so far").wait_for(timeout=PATIENCE)
    legend = other.locator(".legendtext").filter(has_text=re.compile("^front$"))
    expect(legend).to_have_count(1, timeout=PATIENCE)
    other.close()


@pytest.mark.thorough
def test_a_search_is_followed_from_start_to_end(page, runs, tmp_path):
    """A new run appears, counts up while it is searched, and ends with what was chosen; what the
    reader picked stays picked."""
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    metric = f"python:{tmp_path / 'slow.py'}:right"
    with served_at(runs) as dashboard:
        address = dashboard.address
        page.goto(f"{address}/")
        page.locator(TABLE).first.wait_for()
        schemes = ["int8/head/asym", "int4/head/asym"]
        api.profile("s4d-digits", "digits", runs / "live", schemes, limit=64, metric=metric)
        page.goto(f"{address}/search?run=live")
        page.get_by_text("Nothing was searched for yet").wait_for()
        command = [
            sys.executable, "-m", "sensprobe", "search", "--run", str(runs / "live"),
            "--budget", "1.5KiB", "--evaluations", "40", "--limit", "48",
        ]  # fmt: skip
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=quiet, stderr=quiet) as search:
            seen: list[str] = []
            told = page.get_by_text(re.compile(r"plans measured so far|plans were evaluated"))
            until = time.monotonic() + 180
            while time.monotonic() < until and not any("were evaluated" in text for text in seen):
                text = told.first.inner_text() if told.count() else ""
                if text and text not in seen:
                    seen.append(text)
                    if len(seen) == 3:
                        has_a_front(page, f"{address}/pareto?run=live")
                page.wait_for_timeout(100)
            assert search.wait(timeout=60) == 0
        assert "were evaluated" in seen[-1], seen
        assert len(seen) > 2, f"it counts up while the search goes on: {seen}"
        page.goto(f"{address}/pareto?run=live")
        page.locator(CHART).first.wait_for()
        page.get_by_text("Best measured").wait_for()


@pytest.mark.thorough
def test_an_empty_folder_says_what_to_run_and_shows_the_example(page, tmp_path):
    with served_at(tmp_path / "nothing") as dashboard:
        address = dashboard.address
        page.goto(address)
        page.get_by_text("sensprobe profile s4d-digits").first.wait_for()
        page.goto(f"{address}/pareto")
        page.locator(CHART).first.wait_for()
    assert not (tmp_path / "nothing").exists()


def test_a_search_is_explained_and_a_kind_of_plan_is_hidden_in_its_axes(page, served):
    page.goto(f"{served}/search?run=digits")
    page.get_by_text("The front last grew with plan").wait_for()
    page.get_by_text("Hypervolume is").wait_for()
    drawn_whole(page)
    axes = page.locator(".js-plotly-plot").filter(has_text="Where each plan spends its bits")
    lines = axes.locator(".scatterlayer .js-line")
    expect(lines).not_to_have_count(0, timeout=PATIENCE)
    before = lines.count()
    axes.locator(".legendtoggle").first.click()
    expect(lines).not_to_have_count(before, timeout=PATIENCE)
    assert lines.count() < before
    predicted = page.locator(".js-plotly-plot").filter(has_text="Predicted and measured loss")
    predicted.locator(".scatterlayer .points path").nth(30).wait_for()
    assert page.locator('[data-testid="stException"]').count() == 0


def test_a_figure_is_saved_as_svg_and_png_with_what_its_bars_are(page, served, tmp_path):
    page.goto(f"{served}/pareto?run=digits")
    page.locator(CHART).first.wait_for()
    drawn_whole(page)
    page.get_by_role("button", name="Save figure").first.click()
    page.get_by_text("What accuracy the memory buys; bars: one standard error").wait_for()
    begins = {"SVG": b"<?xml", "PNG": b"\x89PNG"}
    for kind, begin in begins.items():
        with page.expect_download() as told:
            page.get_by_role("button", name=kind, exact=True).click()
        told.value.save_as(tmp_path / kind)
        assert told.value.suggested_filename == f"front.{kind.lower()}"
        assert (tmp_path / kind).read_bytes().startswith(begin)
    assert b"bars: one standard error" in (tmp_path / "SVG").read_bytes()


def test_runs_of_unlike_metrics_stand_on_one_chart_and_their_plans_are_told_apart(page, runs):
    shutil.copytree(runs / "digits", runs / "bytes")
    documents.in_bits_per_byte(runs / "bytes")
    with served_at(runs) as dashboard:
        page.goto(f"{dashboard.address}/compare?runs=digits&runs=bytes")
        page.get_by_text("each is held against its own full precision").wait_for()
        page.locator(".ytitle").filter(has_text="loss relative to").first.wait_for()
        names = page.locator(".legendtext")
        expect(names.filter(has_text=re.compile("^(digits|bytes)$"))).to_have_count(2)
        page.get_by_text("They are the same.").wait_for()
        drawn_whole(page)
        page.get_by_role("combobox", name="Against").click()
        found = gather(open_run(runs / "digits")).search
        called = f"digits: {told(found.candidate('pca26'), found)}"
        page.keyboard.type(called)  # a long list shows what is near its choice
        page.get_by_role("option", name=called).click()
        page.get_by_text("6 groups of sites differ.").wait_for()
        page.wait_for_url(re.compile("other=digits"))


def test_the_head_of_a_long_table_of_the_report_stays_in_sight(page, runs, tmp_path):
    api.report(runs / "digits", tmp_path / "report")
    page.set_viewport_size({"width": 1000, "height": 260})
    page.goto((tmp_path / "report" / "report.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    tables = page.locator(".wide").all()
    heights = [t.evaluate("t => t.scrollHeight - t.clientHeight") for t in tables]
    table = tables[heights.index(max(heights))]
    assert max(heights) > 100, "no table is longer than the window"
    table.evaluate("t => t.scrollTo(0, t.scrollHeight)")
    head, frame = table.locator("th").first.bounding_box(), table.bounding_box()
    assert abs(head["y"] - frame["y"]) < 2
    assert table.locator("td").first.bounding_box()["y"] < frame["y"]


def test_a_run_is_tagged_and_noted_and_tells_its_seeds(page, served, runs):
    page.goto(served)
    page.get_by_text("1 run: 1 finished.").wait_for()
    page.get_by_text("Tags and notes").click()
    page.get_by_role("textbox", name="Tags, by commas").fill("paper, good")
    page.get_by_role("textbox", name="Notes").fill("first <b>try</b>")
    page.get_by_role("button", name="Keep").click()
    page.get_by_text("Only with the tag").wait_for()
    assert json.loads((runs / "digits" / "notes.json").read_text(encoding="utf-8")) == {
        "tags": ["paper", "good"], "text": "first <b>try</b>",
    }  # fmt: skip
    told = page.locator(TABLE).first.locator("td")
    for text in ("first <b>try</b>", "data 0, search 0"):
        expect(told.filter(has_text=text)).to_have_count(1, timeout=PATIENCE)


def test_what_stops_the_command_stops_the_server(runs):
    with served_at(runs) as dashboard:
        dashboard.process.terminate()
        assert dashboard.process.wait(timeout=120) is not None
        port = int(dashboard.address.rpartition(":")[2])
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("localhost", port)) != 0:
                    return
            time.sleep(0.1)
        raise AssertionError("it still answers")


def test_only_this_machine_is_listened_to(served):
    port = int(served.rpartition(":")[2])
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
    for address in others - {"127.0.0.1", "127.0.1.1", "::1"}:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.settimeout(2)
            assert probe.connect_ex((address, port)) != 0, address
