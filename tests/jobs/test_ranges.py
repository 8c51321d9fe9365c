"""How large the values of every tensor are."""

from __future__ import annotations

import pytest

from sensprobe import api
from sensprobe.models.apply import observe
from sensprobe.session.open import open_session


@pytest.mark.parametrize("model", ["s4d-digits", "s5-digits"])
def test_every_value_of_every_tensor_is_counted(model):
    session = open_session(model, "digits")
    rows = {row["site"]: row for row in api.list_sites(model, data="digits")}
    exact = observe(session.source.model, session.calibration.sequences({}))
    assert rows.keys() == session.source.model.sites.keys()
    for name, site in session.source.model.sites.items():
        row = rows[name]
        counted = row["zeros"] + sum(count for _, count in row["octaves"])
        if site.kind == "weight":
            assert counted == site.reals
        else:
            assert counted % site.reals == 0
            assert row["low"] == exact[name].low.min()
            assert row["high"] == exact[name].high.max()
        most = max(abs(row["low"]), abs(row["high"]))
        k, _ = row["octaves"][-1]
        assert 2.0**k <= most < 2.0 ** (k + 1)


def test_octaves_hold_the_values_of_their_size():
    session = open_session("s4d-digits", "digits")
    sizes = session.source.model.weights["head"].detach().abs().flatten()
    (row,) = [r for r in api.list_sites("s4d-digits", data="digits") if r["site"] == "head"]
    for k, count in row["octaves"]:
        assert count == ((sizes >= 2.0**k) & (sizes < 2.0 ** (k + 1))).sum()


def test_without_data_no_range_is_told():
    assert all("octaves" not in row for row in api.list_sites("s4d-digits"))
