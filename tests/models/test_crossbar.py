"""Models whose matrices lie on a crossbar: with ideal converters the plain simulation."""

from __future__ import annotations

from dataclasses import replace

import mimo
import pytest
import selective
import torch
import torch.nn.functional as F
from builders import PLAIN, tiny, vector
from torch import Tensor

from sensprobe.errors import UnsupportedError, UsageError
from sensprobe.evaluate.batches import tap_of
from sensprobe.models import Model
from sensprobe.models.apply import Applier, observe
from sensprobe.models.crossbar import find_ranges, mapped
from sensprobe.models.forward import At
from sensprobe.plans.crossbar import parse
from sensprobe.plans.noise import Draw, Gaussian, Pcm
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.scheme import parse as scheme_of

IDEAL = "rows=3,columns=64,adc_bits=24"
CASES = [
    *(("s4d", name) for name in ("encoder", "layers.0.out_proj", "head")),
    *(("s5", name) for name in ("encoder", "layers.0.B", "layers.0.C", "layers.0.out_proj")),
    *(("mamba", f"layers.0.{name}") for name in ("in_proj.x", "x_proj.B", "dt_proj", "out_proj")),
    *(("mamba2", f"layers.0.{name}") for name in ("in_proj.dt", "out_proj")),
]


def model(family: str) -> Model:
    if family == "s4d":
        return tiny(PLAIN)
    if family == "s5":
        return mimo.tiny(mimo.CONFIGS["stored"])
    config = selective.MAMBAS["bare"] if family == "mamba" else selective.MAMBA2S["bare"]
    return selective.tiny(config)


def inputs(model: Model) -> Tensor:
    return vector(3, 9, model.config.d_input, seed=5).float()


def laid(model: Model, plan: dict[str, Scheme], sizes: str) -> Applier:
    applier = Applier(model, observe(model, inputs(model)))
    applier.lay_on(parse(sizes))
    find_ranges(applier, plan, inputs(model))
    return applier


def plan_of(model: Model, name: str) -> dict[str, Scheme]:
    """A matrix in integers, and what it reads in those that its DACs take."""
    reads = next(operand for weight, operand, _ in model.products if weight == name)
    return {name: scheme_of("int5"), reads: scheme_of("int8")}


@pytest.mark.parametrize(("family", "name"), CASES)
def test_ideal_converters_are_the_plain_simulation(family: str, name: str) -> None:
    it = model(family)
    plan, x = plan_of(it, name), inputs(it)
    want = it(x, Applier(it, observe(it, x)).tap(plan))
    ideal, coarse = (laid(it, plan, f"rows=3,columns=64,adc_bits={bits}") for bits in (24, 3))
    assert list(mapped(ideal, plan)) == [name]
    got = it(x, tap_of(ideal, plan, None))
    bound = 100 * torch.finfo(torch.float32).eps * want.abs().max()
    assert (got - want).abs().max() < bound
    assert (it(x, tap_of(coarse, plan, None)) - want).abs().max() > 10 * bound


def test_a_dac_takes_the_codes_of_a_plan_and_rounds_other_inputs() -> None:
    it, name = model("s4d"), "layers.0.out_proj"
    reads = {"int6": "int6", "int8": "int8", "int9": "int8", "int6/asym": "int8", None: "int8"}
    for asked, rounded in reads.items():
        plan = {name: scheme_of("int5")}
        both = plan | {f"{name}_in": scheme_of(rounded)}
        plan = plan | ({f"{name}_in": scheme_of(asked)} if asked else {})
        ours, theirs = laid(it, plan, IDEAL), laid(it, both, IDEAL)
        found, want = (next(iter(one.arrays.values()))[name] for one in (ours, theirs))
        assert (found.dac_scale, found.dac_peak) == (want.dac_scale, want.dac_peak)


def test_a_matrix_that_reads_two_states_has_one_range() -> None:
    it = mimo.tiny(replace(mimo.CONFIGS["stored"], bidirectional=True))
    plan, x = {"layers.0.C": scheme_of("int8")}, inputs(it)
    applier = laid(it, plan, IDEAL)
    array = next(iter(applier.arrays.values()))["layers.0.C"]
    assert array.placed.reads == ("layers.0.state", "layers.0.state_back")
    largest = max(
        max(s.low.abs().max(), s.high.abs().max())
        for s in (applier.statistics[n] for n in array.placed.reads)
    )
    assert array.dac_scale == pytest.approx(float(largest) / 127, rel=1e-3)
    assert it(x, tap_of(applier, plan, None)).isfinite().all()


def test_noise_on_a_mapped_weight_is_on_its_cells() -> None:
    it, name = model("s4d"), "layers.0.out_proj"
    plan, x = plan_of(it, name), inputs(it)
    applier = laid(it, plan, IDEAL)
    plain = it(x, tap_of(applier, plan, None))

    def under(*noises: tuple[str, Gaussian | Pcm], index: int = 0) -> Tensor:
        return it(x, tap_of(applier, plan, Draw(dict(noises), 0, index)))

    noisy = under((name, Gaussian(0.02)))
    assert not torch.allclose(noisy, plain)
    assert torch.equal(under((name, Gaussian(0.02))), noisy)
    assert not torch.equal(under((name, Gaussian(0.02)), index=1), noisy)
    assert not torch.allclose(under((name, Pcm(levels=4))), plain)
    assert torch.equal(under(("head", Gaussian(0.0))), plain)
    with pytest.raises(UsageError, match=r"cells of 2 bits have 4 levels\. Leave out levels"):
        under((name, Pcm(levels=16)))


def test_what_a_forward_pass_multiplies_by_itself_is_refused(monkeypatch) -> None:
    def product(self: At, weight: str, bias: str, x: Tensor) -> Tensor:
        return F.linear(x, self(weight), self(bias))

    monkeypatch.setattr(At, "product", product)
    it = model("s4d")
    with pytest.raises(UnsupportedError, match="do not multiply by head through"):
        laid(it, plan_of(it, "head"), IDEAL)
