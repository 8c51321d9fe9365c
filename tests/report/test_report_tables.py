"""Tables, numbers, plans and the agreement of rankings."""

from __future__ import annotations

from io import StringIO
from math import isnan, sqrt
from typing import Any

import numpy as np
import pytest
import report_documents as documents
from rich.console import Console

from sensprobe.errors import RunError
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import from_json
from sensprobe.report import rows, tables
from sensprobe.report.agreement import agreement, agreement_table, kendall
from sensprobe.report.fronts import at_batch
from sensprobe.report.plans import bytes_by_part, group_of, schemes_by_group
from sensprobe.report.prose import about_search
from sensprobe.report.read import read_confirmation, read_search, read_sensitivity, read_sites
from sensprobe.report.terminal import sensitivity_table


def only(**changes: Any) -> dict[str, Any]:
    """A profile of one observation."""
    row = {
        "target": "layers.*.A",
        "part": "A",
        "kind": "weight",
        "layer": None,
        "scheme": "int8",
        "applied": ["int8"],
        "weight_bytes": 9,
        "state_bytes": 0,
        "kl": {"value": 0.2, "stderr": 0.01},
        "metric": {"value": -0.1, "stderr": 0.02},
        "radius": 0.99,
        "n": 400,
        "clusters": 400,
    }
    return documents.sensitivity() | {"schemes": ["int8"], "rows": [row | changes]}


def cell(document: dict[str, Any], of: str = "metric") -> str:
    return str(tables.sensitivity(read_sensitivity(document), of).iloc[0, 0])


def test_a_loss_of_accuracy_is_shown_in_points_with_its_error() -> None:
    table = tables.sensitivity(read_sensitivity(only()))
    assert table.index.name == "accuracy change (points)"
    assert list(table.columns) == ["int8"]
    assert table.loc["layers.*.A", "int8"] == "−10.0 ± 2.0"
    assert cell(only(), "additive") == "0.200 ± 0.010"


def test_noise_and_instability_are_marked() -> None:
    assert cell(only(metric={"value": -0.01, "stderr": 0.01})) == "· −1.0 ± 1.0"
    assert cell(only(radius=1.0039)) == "▲ −10.0 ± 2.0"
    assert cell(only(radius=1.0)) == "−10.0 ± 2.0"
    assert cell(only(metric=None)) == "–"
    assert cell(only(metric={"value": None, "stderr": None}, radius=2)) == "–"


def test_pairs_that_were_not_measured_are_dashes() -> None:
    document = documents.sensitivity()
    del document["rows"][0]
    assert tables.sensitivity(read_sensitivity(document)).iloc[0, 0] == "–"


def test_schemes_that_differ_in_their_middle_have_headings_that_differ() -> None:
    schemes = ["logpolar(m2,p8)/head", "logpolar(m3,p8)/head", "int8"]
    document = only()
    row = document["rows"][0]
    document |= {
        "schemes": schemes,
        "rows": [
            row | {"scheme": s, "metric": {"value": -k / 10, "stderr": 0.01}}
            for k, s in enumerate(schemes, 1)
        ],
    }
    shown = drawn(sensitivity_table(read_sensitivity(document)), width=60)
    assert "m2,p8" in shown
    assert "m3,p8" in shown
    assert "int8" in shown
    assert all(number in shown for number in ("−10.0", "−20.0", "−30.0"))


def drawn(what: Any, width: int) -> str:
    """What a terminal of that width shows."""
    console = Console(width=width, file=StringIO())
    console.print(what)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_numbers_agree_with_the_document() -> None:
    table = rows.sensitivity_rows(read_sensitivity(only(radius=1.5)))
    row = table.iloc[0]
    assert row["accuracy change (points)"] == pytest.approx(-10)
    assert row["± accuracy change (points)"] == pytest.approx(2)
    assert row["KL divergence (nats)"] == 0.2
    assert bool(row["is a difference"])
    assert bool(row["unstable"])


def test_an_estimate_has_no_accuracy_columns() -> None:
    found = read_sensitivity(documents.sensitivity(method="taylor"))
    assert not found.has_metric
    assert "is a difference" not in rows.sensitivity_rows(found)


@pytest.mark.parametrize("of", ["metric", "additive"])
def test_the_worst_is_ranked_first_and_noise_has_no_rank(of: str) -> None:
    found = read_sensitivity(documents.sensitivity())
    ranking = tables.ranking(found, of)
    assert ranking.loc[0, "target"] == "layers.*.A"
    noisy = ranking[ranking.iloc[:, 3].str.contains("·")]
    assert (noisy["rank"] == "–").all()
    within = [r for r in found.rows if abs(r.change.value) <= 1.96 * r.change.stderr]
    assert len(noisy) == (0 if of == "additive" else len(within))
    assert within
    one = tables.ranking(found, of, "fp16")
    assert set(one["scheme"]) == {"fp16"}


def test_plans_measured_beside_the_search_say_what_the_search_gains_on_them() -> None:
    row = {
        "name": "quamba",
        "total_bytes": 2048,
        "weight_bytes": 2000,
        "state_bytes": 48,
        "metric": {"value": 0.9, "stderr": 0.01},
        "loss": {"value": -0.05, "stderr": 0.01},
        "radius": 0.9,
        "chosen": {"candidate": "p1", "difference": {"value": 0.04, "stderr": 0.01}},
    }
    found = read_confirmation(documents.confirmation() | {"also": [row, row | {"chosen": None}]})
    table = tables.compared(found)
    assert list(table["plan"]) == ["quamba", "quamba"]
    assert list(table["total (KiB)"]) == ["2.00", "2.00"]
    assert list(table["chosen of no more bytes"]) == ["p1", "–"]
    assert list(table["gains"]) == ["+4.0 ± 1.0", "–"]
    numbers = rows.compared_rows(found)
    assert list(numbers["weights (bytes)"]) == [2000, 2000]
    assert numbers.iloc[0, -2:].tolist() == pytest.approx([4.0, 1.0])
    assert isnan(numbers.iloc[1, -2])
    bare = read_search(documents.search() | {"also": [row | {"chosen": None}]})
    assert list(tables.compared(bare)["gains"]) == ["–"]
    assert tables.compared(read_search(documents.search())).empty


def test_in_regression_a_rise_of_the_error_is_worst() -> None:
    found = read_sensitivity(documents.regression())
    worst, best = tables.ranked(found)[0], tables.ranked(found)[-1]
    assert worst.change.value > best.change.value
    assert tables.sensitivity(found).index.name == "mse change"
    assert tables.sensitivity(found, "additive").index.name == "output distance"


def test_tables_of_nothing_are_empty() -> None:
    found = read_sensitivity(documents.sensitivity() | {"rows": []})
    assert tables.sensitivity(found).shape == (0, 4)
    assert tables.ranking(found).empty
    assert rows.sensitivity_rows(found).empty
    search = read_search(documents.search_of([]))
    assert tables.frontier(search).empty
    assert tables.chosen(search).empty
    confirmed = read_confirmation(documents.confirmation() | {"plans": []})
    assert tables.confirmation(confirmed).empty
    assert rows.confirmation_rows(confirmed).empty


def test_a_document_that_lacks_what_it_needs_says_what_to_run() -> None:
    with pytest.raises(RunError, match=r"`sensprobe search`.*writes it again"):
        read_search({"method": "gains"})
    with pytest.raises(RunError, match="`sensprobe profile`"):
        read_sensitivity({"rows": 3})


# -- the search ---------------------------------------------------------------------------------


def test_the_frontier_is_in_growing_bytes_and_ends_with_full_precision() -> None:
    search = read_search(documents.search())
    table = tables.frontier(search)
    sizes = [float(text) for text in table["total (KiB)"]]
    assert sizes == sorted(sizes)
    assert table.iloc[-1]["plan"] == "full precision"
    assert set(table[""]) == {"★", "◇", "●", ""}
    assert (table[""] == "★").sum() == len(search.picks)


def test_full_precision_is_what_the_file_stores_and_float32_beside_it() -> None:
    """The ratio is to what the user has: a half-precision file is half of float32's weights."""
    document = documents.search()
    full = document["full"]
    half = {"stored_weight_bytes": full["weight_bytes"] // 2, "stored_dtype": "bfloat16"}
    search = read_search(document | {"full": full | half})
    stored = full["weight_bytes"] // 2 + full["state_bytes"]
    last = tables.frontier(search)[["plan", "total (KiB)"]].iloc[-2:]
    assert last["plan"].tolist() == ["full precision, bfloat16", "full precision, float32"]
    assert [float(t) for t in last["total (KiB)"]] == pytest.approx(
        [stored / 1024, full["total_bytes"] / 1024], abs=0.05
    )
    chosen = search.candidate(search.chosen[0].candidate)
    assert chosen is not None
    ratio = tables.chosen(search)["times smaller"].iloc[0]
    assert float(ratio) == pytest.approx(stored / chosen.total_bytes, rel=1e-2)
    assert "as stored (bfloat16)," in about_search(search)[0]
    more = at_batch(search, 3)
    assert more.stored_bytes == full["weight_bytes"] // 2 + 3 * full["state_bytes"]


def test_every_candidate_is_in_the_numbers() -> None:
    search = read_search(documents.search())
    table = rows.frontier_rows(search)
    assert len(table) == len(search.candidates)
    stopped = table[table["samples"] < 400]
    assert len(stopped) == 6
    assert stopped["note"].str.contains("stopped after 100 samples").all()


def test_each_budget_shows_the_chosen_and_the_uniform_plan() -> None:
    table = tables.chosen(read_search(documents.search()))
    assert list(table["budget"]) == ["20KiB"] * 2 + ["24KiB"] * 2 + ["32KiB"] * 2
    assert table["plan"].str.startswith("uniform").tolist() == [False, True] * 3


def test_a_budget_nothing_fits_says_so() -> None:
    document = documents.search()
    document["chosen"] = [{"budget": "1KiB", "candidate": None, "uniform": None}]
    table = tables.chosen(read_search(document))
    assert list(table["plan"]) == ["chosen: none fits", "best uniform: none fits"]


def test_the_confirmed_difference_to_uniform_is_shown_only_as_such() -> None:
    document = documents.confirmation()
    document["plans"] = document["plans"][:1]
    against = document["plans"][0]["against_uniform"]
    against["difference"] = {"value": 0.01, "stderr": 0.02}
    table = tables.confirmation(read_confirmation(document))
    assert table.iloc[0]["against uniform"] == "· +1.0 ± 2.0"
    document["plans"][0]["against_uniform"] = None
    table = tables.confirmation(read_confirmation(document))
    assert len(table) == 2
    assert isnan(rows.confirmation_rows(read_confirmation(document)).iloc[0, -1])


def test_a_cloud_of_dominated_plans_is_thinned_evenly() -> None:
    few = list(read_search(documents.search()).candidates)
    assert tables.thinned(few) == few
    many = tables.thinned(few * 400)
    assert len(many) == tables.MOST_DOMINATED
    assert {c.total_bytes for c in many} == {c.total_bytes for c in few}


# -- plans --------------------------------------------------------------------------------------


def test_bytes_by_part_sum_to_the_cost() -> None:
    sites, batch = documents.sites(), 3
    for candidate in documents.search()["candidates"][:12]:
        resolved = from_json(candidate["plan"]).resolve(sites)
        entries = tuple((p, s) for p, s in candidate["plan"]["schemes"])
        spent = bytes_by_part(entries, sites, batch)
        want = cost(sites, resolved, batch=batch)
        assert sum(part.total for part in spent) == want.total_bytes
        assert sum(part.carried for part in spent) == want.state_bytes


def test_sites_survive_their_json_form() -> None:
    assert list(read_sites(documents.site_rows())) == documents.sites()


def test_layers_are_grouped_and_counted() -> None:
    assert group_of("layers.12.out_proj.bias") == "layers.*.out_proj.bias"
    assert group_of("head.bias") == "head.bias"
    assert group_of("layers.*.A") == "layers.*.A"
    names = ["encoder", "layers.0.A", "layers.1.A", "layers.2.A"]
    entries = (("layers.*.A", "int8"), ("layers.1.A", "int4"))
    assert schemes_by_group(entries, names) == {"encoder": "fp32", "layers.*.A": "int8 ×2, int4"}
    assert schemes_by_group(entries) == {"layers.*.A": "int8, int4"}


def test_plans_side_by_side() -> None:
    plans = {"one": (("layers.*.A", "int8/head"),), "two": (("*.A", "int8/head"), ("head", "int4"))}
    table = tables.side_by_side(plans, sites=documents.sites())
    assert table.loc["layers.*.A"].tolist() == ["int8/head", "int8/head"]
    assert table.loc["head"].tolist() == ["fp32", "int4"]
    assert "encoder" not in table.index
    assert table.loc["head (bytes)"].tolist() == ["640", "82"]
    total = cost(documents.sites(), from_json({"sensprobe_plan": 1, "schemes": []}).resolve([]))
    exact = tables.side_by_side({"none": ()}, sites=documents.sites())
    assert exact.loc["total (bytes)", "none"] == f"{total.total_bytes:,}"


# -- agreement ----------------------------------------------------------------------------------


def test_tau_counts_pairs() -> None:
    """Of the 6 pairs of 4, one is turned round: (5 - 1) / 6."""
    assert kendall([1, 2, 3, 4], [1, 2, 4, 3]).value == pytest.approx(4 / 6)
    assert kendall([1, 2, 3], [1, 2, 3]).value == 1
    assert kendall([1, 2, 3], [3, 2, 1]).value == -1


def test_tau_of_too_little_is_not_known() -> None:
    assert isnan(kendall([], []).value)
    assert isnan(kendall([1], [1]).value)
    assert isnan(kendall([1, 1, 1], [1, 2, 3]).value)
    assert isnan(kendall([1, 2], [1, 2]).stderr)


def test_the_error_of_tau_is_the_spread_over_samples() -> None:
    """Correlated pairs drawn again and again: the mean variance is the variance of τ, for many."""
    draw = np.random.default_rng(0)
    taus, variances = [], []
    for _ in range(400):
        x = draw.normal(size=300)
        found = kendall(x, x + draw.normal(size=300))
        taus.append(found.value)
        variances.append(found.stderr**2)
    assert sqrt(np.mean(variances)) == pytest.approx(np.std(taus), rel=0.1)


def test_agreement_pairs_what_both_have() -> None:
    measured, taylor = documents.sensitivity(), documents.sensitivity(method="taylor")
    del taylor["rows"][0]
    taylor["rows"][0]["kl"] = {"value": None, "stderr": None}
    found = agreement(read_sensitivity(measured), read_sensitivity(taylor))
    assert found.overall.n == 46
    assert found.overall.value > 0.8
    table = agreement_table(found)
    assert table["scheme"].tolist() == [*documents.SCHEMES, "all schemes"]
    assert rows.agreement_rows(found)["observations"].tolist() == [11, 11, 12, 12, 46]


def test_agreement_of_profiles_with_nothing_in_common() -> None:
    nothing = read_sensitivity(documents.sensitivity() | {"rows": []})
    found = agreement(read_sensitivity(documents.sensitivity()), nothing)
    assert found.pairings == ()
    assert isnan(found.overall.value)
    assert found.by_scheme == {}
