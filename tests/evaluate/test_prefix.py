"""Layers before the first one a plan touches: run once, with the same outputs."""

from __future__ import annotations

import pytest
import torch
from selective import MAMBA2S, MAMBAS, inputs, tiny

from sensprobe.evaluate import prefix
from sensprobe.evaluate.prefix import Prefixes
from sensprobe.models import forward
from sensprobe.models.apply import Applier
from sensprobe.numerics.taps import EXACT
from sensprobe.plans.fitting import why_not
from sensprobe.plans.scheme import parse

CONFIGS = {f"mamba {k}": c for k, c in MAMBAS.items()} | {
    f"mamba2 {k}": c for k, c in MAMBA2S.items()
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_site_gives_the_same_bits_as_from_the_start(name: str) -> None:
    model = tiny(CONFIGS[name])
    x, prefixes, scheme = inputs(model.config), Prefixes(model), parse("int4/dynamic")
    for site in model.sites.values():
        chosen = parse("int4") if why_not(scheme, site) else scheme
        if why_not(chosen, site):
            continue
        plan = {site.name: chosen}
        tap = Applier(model).tap(plan)
        got = prefixes.outputs(x, tap, plan, (0, len(x)))
        assert torch.equal(got, model(x, tap)), site.name
    assert torch.equal(prefixes.outputs(x, EXACT, {}, (0, len(x))), model(x))


def test_the_layers_before_are_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(MAMBAS["tokens"])
    assert model.config.layers == 2
    x, prefixes, ran = inputs(model.config), Prefixes(model), []
    mix = type(model).mix
    monkeypatch.setattr(
        type(model), "mix", lambda model, i, *rest: (ran.append(i), mix(model, i, *rest))[1]
    )
    applier = Applier(model)

    def run(*names: str) -> list[int]:
        plan = {name: parse("int8/dynamic") for name in names}
        del ran[:]
        prefixes.outputs(x, applier.tap(plan), plan, (0, len(x)))
        return list(ran)

    assert run("layers.1.x") == [0, 1, 1]  # the first plan fills the cache
    assert run("layers.1.y") == [1]
    assert run("layers.0.y", "layers.1.x") == [0, 1]
    assert run("head_in") == []
    assert run() == []


def test_what_precedes_the_layers_runs_from_the_start() -> None:
    config = MAMBAS["tied"]
    assert forward.first_layer(["embedding", "layers.0.x"], config) is None
    assert forward.first_layer(["head.bias", "final.norm"], config) == config.layers


def test_a_full_cache_runs_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(MAMBAS["tokens"])
    x, prefixes = inputs(model.config), Prefixes(model)
    batch = 3 * x.numel() * model.config.d_model * 4
    monkeypatch.setattr(prefix, "KEPT_BYTES", 2 * batch)
    for i in range(3):
        assert torch.equal(prefixes.outputs(x, EXACT, {}, (i, i + 1)), model(x))
    assert list(prefixes._kept) == [(0, 1), (1, 2)]
