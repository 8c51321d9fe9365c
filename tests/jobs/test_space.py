"""From a profile to a search problem."""

from __future__ import annotations

from math import isnan
from typing import Any

import pytest

from sensprobe.errors import DataError
from sensprobe.jobs.problem import build_space
from sensprobe.session.source import open_model

SITES = open_model("s4d-digits").model.sites
SCHEMES = ["int8/head/asym/dynamic", "int4/head/asym/dynamic"]


def sensitivity(sign: int, *, scored: bool = True) -> dict[str, Any]:
    """B and C in two schemes; the metric moves by 0.25 and 0.5 toward the worse."""

    def row(part: str, k: int) -> dict[str, Any]:
        moved = {"metric": {"value": -sign * 0.25 * (k + 1), "stderr": 0.1}} if scored else {}
        names = {"target": f"layers.*.{part}", "sites": [f"layers.0.{part}"], "scheme": SCHEMES[k]}
        return names | moved | {"kl": {"value": 0.1, "stderr": 0.01}}

    rows = [row(part, k) for part in ("B", "C") for k in range(2)]
    return {"sign": sign, "additive": "kl", "schemes": SCHEMES, "rows": rows}


@pytest.mark.parametrize("sign", [1, -1])
def test_an_option_knows_what_the_score_loses_to_it_alone(sign: int) -> None:
    space = build_space(SITES, sensitivity(sign))
    for decision in space.problem.decisions:
        assert [option.drop for option in decision.options[:2]] == [0.25, 0.5]


def test_a_drop_that_was_not_measured_is_nan() -> None:
    estimated = build_space(SITES, sensitivity(1, scored=False)).problem
    tied = build_space(SITES, sensitivity(1), tie=["layers.0.[BC]"]).problem
    drops = [o.drop for p in (estimated, tied) for d in p.decisions for o in d.options[:2]]
    assert len(tied.decisions) == 1
    assert all(isnan(drop) for drop in drops)


def test_losses_without_an_error_are_refused() -> None:
    """As a profile on the samples of one group writes them."""
    profile = sensitivity(1)
    profile["rows"][0]["kl"]["stderr"] = None
    with pytest.raises(DataError, match="one group of samples, which gives no standard error"):
        build_space(SITES, profile)
