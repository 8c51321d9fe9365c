"""Numbers beyond the range of a float format: counted as they were to be stored, and told."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from language import MAMBA, MAMBA2, write_model
from selective import tiny

import sensprobe
from sensprobe.evaluate import rows_of, saturations, sentences
from sensprobe.models.apply import Applier
from sensprobe.numerics.taps import Recording
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind

STATE, RANGE = "layers.0.state", "e4m3/range0.001"


def tokens(batch: int = 3, length: int = 9) -> torch.Tensor:
    return torch.randint(0, 256, (batch, length), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[MAMBA, MAMBA2], ids=["mamba", "mamba2"])
def model(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


def test_states_are_counted_as_they_were_to_be_stored(model: Any) -> None:
    tap = Applier(model).tap({STATE: parse(RANGE), "embedding": parse("fp16")})
    [found] = saturations(model, tap, [tokens(), tokens(2, 5)])
    seen: list[torch.Tensor] = []

    def see(site: Any, x: torch.Tensor) -> None:
        seen.append(x.abs().flatten()) if site.name == STATE else None

    weights = {n: tap.weights[n] for n, s in model.sites.items() if s.kind is Kind.WEIGHT}
    same = type(model)(model.config, weights)
    for x in (tokens(), tokens(2, 5)):
        same(x, Recording(see))
    sizes = torch.cat(seen)
    limit = 448 * float(tap.scales[STATE][0])
    assert found.limit == pytest.approx(limit)
    assert (found.values, found.beyond) == (len(sizes), int((sizes > limit).sum()))
    assert found.largest == float(sizes.max()) > limit
    assert 0 < found.beyond < found.values


def test_only_steps_that_are_stored_count(model: Any) -> None:
    plans = [{STATE: parse(RANGE + more)} for more in ("", "/every4")]
    whole, every = (saturations(model, Applier(model).tap(p), [tokens()])[0] for p in plans)
    assert every.values == whole.values * 2 // 9


@pytest.mark.parametrize(
    "scheme", ["fp16", "bf16", "e4m3/dynamic", "e4m3/range0.001/clip5", "int8/range0.001"]
)
def test_what_stays_within_or_is_left_out_on_purpose_is_not_told(model: Any, scheme: str) -> None:
    tap = Applier(model).tap({STATE: parse(scheme)})
    assert saturations(model, tap, [tokens()]) == []


def test_activations_without_a_scale_are_counted(model: Any) -> None:
    wide = type(model)(
        model.config,
        {n: w * 1e6 if n.endswith("norm") else w for n, w in model.weights.items()},
    )
    tap = Applier(wide).tap({"layers.0.z": parse("fp16")})
    [found] = saturations(wide, tap, [tokens()])
    assert (found.site.name, found.limit) == ("layers.0.z", 65504)


def test_rows_join_layers_and_a_sentence_says_all(model: Any) -> None:
    [one] = saturations(model, Applier(model).tap({STATE: parse(RANGE)}), [tokens()])
    [row] = rows_of([one])
    assert row["share"] == one.beyond / one.values
    [text] = sentences([row], 3, "vLLM")
    assert text.startswith(f"{STATE} in {RANGE}: ")
    assert f"up to {one.largest:.3g}" in text
    assert "seen on 3 sequence(s)" in text
    assert "vLLM keeps inf there" in text
    other = type(one)(replace(one.site, name="layers.1.state"), one.scheme, 1.0, 10, 10, 7.0)
    [row] = rows_of([one, other])
    assert (row["sites"], row["count"], row["largest"]) == ("layers.*.state", 2, 7.0)
    assert row["share"] == (one.beyond + 10) / (one.values + 10)


def test_a_loaded_model_warns_at_its_first_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_model(tmp_path / "m.safetensors", MAMBA)
    loaded = sensprobe.load(path, plan={STATE: RANGE})
    with caplog.at_level(logging.WARNING, "sensprobe.session.loaded"):
        loaded(tokens()[:0])
        assert not caplog.messages
        loaded(tokens())
        loaded(tokens())
        assert [m.startswith(f"m: {STATE} in {RANGE}: ") for m in caplog.messages] == [True]
        sensprobe.load(path, plan={STATE: "fp16"})(tokens())
        assert len(caplog.messages) == 1
