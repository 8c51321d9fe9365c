"""GPTQ: against the definition of what it minimises, and where it stands."""

from __future__ import annotations

import pytest
import selective
import torch
from builders import CONFIGS, SITES, inputs, site, tiny, vector

from sensprobe.errors import SchemeError
from sensprobe.models.apply import Applier, inputs_of, observe, wanted_by
from sensprobe.numerics.calibrate import weight_range
from sensprobe.numerics.gptq import BLOCK, DAMPENING, compensated
from sensprobe.numerics.rounding import decode, encode
from sensprobe.plans.fitting import adapt, check, reads_activation
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind

TEXTS = ["int4/channel", "int3/group16/asym", "int8", "e2m1/channel", "int4/group32/hadamard"]


def correlated(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """Inputs (count, size) of a few strong directions, as activations are."""
    few = vector(count, size // 8, seed=seed) @ vector(size // 8, size, seed=seed + 1)
    return few + 0.1 * vector(count, size, seed=seed + 2)


def rounded(w: torch.Tensor, text: str, moment: torch.Tensor | None) -> torch.Tensor:
    """The decoded weight, float64."""
    where, scheme = site(shape=tuple(w.shape)), parse(text)
    range_ = weight_range(w, scheme, where)
    x = compensated(w, scheme, where, moment, range_) if "gptq" in text else w
    return decode(encode(x, scheme, where, range_), scheme, where).double()


@pytest.mark.parametrize("text", TEXTS)
def test_outputs_are_closer_than_by_rounding_to_nearest(text):
    """On inputs it has not seen, of the same distribution."""
    w, x = vector(24, 160), correlated(2000, 160)
    seen, fresh = x[:1000], x[1000:]

    def error(words: str) -> float:
        kept = rounded(w, words, seen.mT @ seen)
        return (fresh @ (kept - w).mT).square().mean().item()

    assert error(f"{text}/gptq") < 0.5 * error(text)


@pytest.mark.parametrize("text", [*TEXTS, "bf16"])
@pytest.mark.parametrize("factor", [1.0, 3e5])
def test_uncorrelated_inputs_make_it_nearest_exactly(text, factor):
    w = vector(7, 2 * BLOCK + 32)
    moment = factor * torch.eye(w.shape[1], dtype=torch.float64)
    assert torch.equal(rounded(w, f"{text}/gptq", moment), rounded(w, text, None))


def test_inputs_that_are_always_zero_make_it_nearest():
    w = vector(3, 8)
    assert torch.equal(
        rounded(w, "int4/gptq", torch.zeros(8, 8, dtype=torch.float64)), rounded(w, "int4", None)
    )


def naive(w: torch.Tensor, text: str, moment: torch.Tensor) -> torch.Tensor:
    """Equations 2 and 3 as printed: the inverse of what remains is recomputed for every column."""
    where, scheme = site(shape=tuple(w.shape)), parse(text)
    size, w, q = w.shape[1], w.clone(), w.clone()
    H = moment + DAMPENING * moment.diagonal().mean() * torch.eye(size, dtype=w.dtype)
    range_ = weight_range(w, scheme, where)
    for j in range(size):
        q[:, j] = decode(encode(w, scheme, where, range_), scheme, where)[:, j].double()
        inverse = torch.linalg.inv(H[j:, j:])
        error = (w[:, j] - q[:, j]) / inverse[0, 0]
        w[:, j + 1 :] -= error[:, None] * inverse[0, 1:]
    return q


@pytest.mark.parametrize("text", ["int4/channel/s32", "int3/group8/asym/s32", "e4m3/s32"])
def test_it_is_the_recursion_of_the_paper(text):
    w, x = vector(5, 24), correlated(200, 24)
    moment = x.mT @ x
    assert torch.equal(rounded(w, f"{text}/gptq", moment), naive(w, text, moment))


def test_blocks_of_columns_change_nothing(monkeypatch):
    w, x = vector(5, 2 * BLOCK + 16), correlated(900, 2 * BLOCK + 16)
    moment = x.mT @ x
    whole = rounded(w, "int4/channel/gptq", moment)
    monkeypatch.setattr("sensprobe.numerics.gptq.BLOCK", 10_000)
    assert torch.equal(whole, rounded(w, "int4/channel/gptq", moment))


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_stored_has_the_same_form_and_scales(text):
    w, x = vector(6, 64), correlated(300, 64)
    where = site(shape=(6, 64))
    plain, ours = parse(text), parse(f"{text}/gptq")
    range_ = weight_range(w, ours, where)
    fields = encode(compensated(w, ours, where, x.mT @ x, range_), ours, where, range_)[""]
    nearest = encode(w, plain, where, weight_range(w, plain, where))[""]
    assert torch.equal(fields.scale, nearest.scale)
    assert fields.bits == nearest.bits
    assert fields.codes.shape == nearest.codes.shape
    assert not torch.equal(fields.codes, nearest.codes)


def test_it_repeats_to_the_bit():
    w, x = vector(6, 64), correlated(300, 64)
    again = [rounded(w, "int4/gptq", x.mT @ x) for _ in range(2)]
    assert torch.equal(*again)


# -- in a model -----------------------------------------------------------------------------------

MODELS = {
    "s4d": tiny(CONFIGS["deep"]),
    "mamba": selective.tiny(selective.MAMBAS["deep"]),
    "mamba2": selective.tiny(selective.MAMBA2S["groups"]),
}


def seen_by(family: str) -> torch.Tensor:
    model = MODELS[family]
    return inputs(model.config, 6, 9) if family == "s4d" else selective.inputs(model.config, 6, 9)


@pytest.mark.parametrize("family", MODELS)
def test_every_projection_of_an_activation_has_its_input(family):
    model = MODELS[family]
    reads = inputs_of(model)
    assert set(reads) == {n for n, s in model.sites.items() if reads_activation(s)}
    for weight, operand in reads.items():
        assert model.sites[operand].kind is Kind.ACTIVATION
        assert model.sites[operand].reals == model.sites[weight].shape[1]


@pytest.mark.parametrize("family", MODELS)
def test_a_moment_is_that_of_what_the_projection_reads(family):
    model, x = MODELS[family], seen_by(family)
    plan = {"layers.0.out_proj": parse("int4/gptq")}
    seen = observe(model, x, wanted_by(plan, model))
    read: list[torch.Tensor] = []

    class Look:
        def __call__(self, site, value):
            if site.name == "layers.0.out_proj_in":
                read.append(value.reshape(-1, site.reals).double())
            return value.to(torch.complex64 if value.is_complex() else torch.float32)

        def storage(self, site):
            return None

    model(x, Look())
    rows = torch.cat(read)
    assert torch.allclose(seen["layers.0.out_proj_in"].moment, rows.mT @ rows, rtol=1e-4)
    assert seen["head_in"].moment is None


@pytest.mark.parametrize("family", MODELS)
def test_a_plan_with_it_runs_and_differs_from_nearest(family):
    model, x = MODELS[family], seen_by(family)
    outputs = []
    for text in ("int3/channel", "int3/channel/gptq"):
        plan = {n: parse(text) for n in inputs_of(model)}
        applier = Applier(model, observe(model, x, wanted_by(plan, model)))
        assert applier.calibrated(plan)
        outputs.append(model(x, applier.tap(plan)))
    assert not torch.equal(*outputs)


def test_without_calibration_the_error_says_what_to_do():
    with pytest.raises(SchemeError, match="Give data to calibrate on, or leave out gptq"):
        Applier(MODELS["s4d"]).tap({"head": parse("int4/gptq")})


def test_inputs_that_are_not_finite_are_refused():
    model, x = MODELS["s4d"], seen_by("s4d").clone()
    plan = {"head": parse("int4/gptq")}
    x[0, 0, 0] = torch.nan
    applier = Applier(model, observe(model, x, wanted_by(plan, model)))
    with pytest.raises(SchemeError, match="not finite on the calibration data"):
        applier.tap(plan)


def test_new_statistics_mean_new_codes():
    model, x = MODELS["mamba2"], seen_by("mamba2")
    plan = {"layers.0.out_proj": parse("int3/gptq")}
    applier = Applier(model, observe(model, x, wanted_by(plan, model)))
    before = applier.tap(plan).weights["layers.0.out_proj"]
    applier.statistics = observe(model, x.flip(0)[:1] * 5, wanted_by(plan, model))
    applier.forget_scales()
    assert not torch.equal(before, applier.tap(plan).weights["layers.0.out_proj"])


@pytest.mark.parametrize("where", SITES, ids=lambda s: s.name)
def test_only_projections_of_activations_take_it(where):
    if reads_activation(where):
        check(parse("int4/gptq"), where)
        return
    with pytest.raises(SchemeError, match="gptq is for projections"):
        check(parse("int4/gptq"), where)
    assert adapt(parse("int4/gptq"), where) == parse("int4")


@pytest.mark.parametrize("name", ["encoder", "embedding"])
def test_what_reads_the_data_itself_does_not_take_it(name):
    sites = selective.tiny(selective.MAMBAS["tokens"]).sites | MODELS["s4d"].sites
    with pytest.raises(SchemeError, match="gptq is for projections"):
        check(parse("int4/gptq"), sites[name])
