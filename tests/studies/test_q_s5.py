"""Study 009: the tree of Q-S5 against its definition, a README that shows what was measured."""

from __future__ import annotations

from typing import Any

import pytest
import shown
import subject
import torch
from module_files import STUDIES, module_of
from torch import Tensor
from tree import Bits, TreeS5, joined, rounded, scanned

from sensprobe import api
from sensprobe.models.s5_layers import S5
from sensprobe.ops.modal_scan import reference
from sensprobe.plans.plan import Plan, parse_setting
from sensprobe.train import recipe_from
from sensprobe.train.loop import initial
from sensprobe.train.recipe import read_document

FEW = Bits(A=3, activations=4)


@pytest.fixture(scope="module")
def digits() -> subject.Subject:
    return subject.Subject(subject.STUDY["model"][0], "s5-digits", "digits")


def elements(length: int, modes: int = 3, batch: int = 2) -> tuple[Tensor, Tensor]:
    """a (l, n) within the unit circle and b (l, b, n)."""
    generator = torch.Generator().manual_seed(0)
    angle = 3 * torch.rand(length, modes, generator=generator)
    a = torch.polar(0.7 + 0.29 * torch.rand(length, modes, generator=generator), angle)
    return a, torch.randn(length, batch, modes, dtype=torch.complex64, generator=generator)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_a_factor_is_the_nearest_code_and_the_largest_is_the_last(bits: int) -> None:
    x, most = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)), 2 ** (bits - 1) - 1
    codes = torch.arange(-most, most + 1)
    scale = x.abs().amax(-1, keepdim=True) / (most + 0.5)
    values = scale[..., None] * codes
    nearest = (x[..., None] - values).abs().argmin(-1)
    want = torch.gather(values.expand(5, 7, -1), -1, nearest[..., None])[..., 0]
    assert torch.allclose(rounded(x, bits), want, rtol=1e-6, atol=0)
    assert torch.equal(rounded(torch.zeros(2, 3), bits), torch.zeros(2, 3))


def test_joined_is_two_steps_in_one_with_four_rounded_products() -> None:
    (a, b), real = elements(2), torch.view_as_real
    got_a, got_b = joined(a[:1], b[:1], a[1:], b[1:], FEW)
    (ir, ii), (jr, ji) = (real(rounded_parts(a[k], 3)).unbind(-1) for k in (0, 1))
    assert torch.allclose(real(got_a[0]), torch.stack([jr * ir - ji * ii, jr * ii + ji * ir], -1))
    hr, hi = real(rounded_parts(b[0], 4)).unbind(-1)
    product = torch.stack([jr * hr - ji * hi, jr * hi + ji * hr], -1)
    assert torch.allclose(real(got_b[0]), product + real(b[1]))


def rounded_parts(x: Tensor, bits: int) -> Tensor:
    return torch.complex(rounded(x.real, bits), rounded(x.imag, bits))


def test_neighbours_are_joined_in_pairs_and_what_lies_between_after_them() -> None:
    a, b = elements(5)
    leaf = [(a[k : k + 1], b[k : k + 1]) for k in range(5)]

    def join(i: tuple[Tensor, Tensor], j: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return joined(*i, *j, FEW)

    two = join(leaf[0], leaf[1])
    four = join(two, join(leaf[2], leaf[3]))
    want = [leaf[0], two, join(two, leaf[2]), four, join(four, leaf[4])]
    got_a, got_b = scanned(a, b, FEW)
    assert torch.allclose(got_a, torch.cat([one for one, _ in want]), atol=1e-5)
    assert torch.allclose(got_b, torch.cat([one for _, one in want]), atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_without_rounding_it_is_the_recurrence(length: int) -> None:
    a, b = elements(1)[0], elements(length)[1]
    v = torch.view_as_real(b.movedim(0, 1).contiguous()).flatten(2)
    states = torch.view_as_real(scanned(a.expand(length, -1), b, Bits())[1].movedim(0, 1))
    assert torch.allclose(states.flatten(2), reference(v, a)[0], atol=1e-5)
    few = torch.view_as_real(scanned(a.expand(length, -1), b, FEW)[1].movedim(0, 1))
    assert torch.allclose(few, states) == (length == 1)


def test_a_model_in_the_tree_is_the_model_but_for_rounding(digits: Any) -> None:
    model, x = digits.model, digits.splits["calibration"].x[:3]
    tree = TreeS5(model.config, model.weights)
    assert torch.allclose(tree(x), model(x), atol=1e-4)
    coarse = TreeS5(model.config, model.weights, bits=FEW)
    assert not torch.allclose(coarse(x), model(x), atol=1e-2)


def test_the_preset_is_measured_as_the_product_measures_it(digits: Any) -> None:
    run = module_of("009_qs5", "run")
    found = run.accuracy(digits, "as trained", "W8A8", "preset")
    product = api.evaluate("s5-digits", "digits", "qs5-w8a8")
    assert found["value"] == pytest.approx(100 * product["value"], abs=1e-3)
    assert found["stderr"] == pytest.approx(100 * product["stderr"], abs=1e-3)
    assert found["n"] == product["n"]


def test_ways_differ_in_the_state_and_A_alone(digits: Any) -> None:
    model = digits.with_functions("all three")
    assert model.config.norm_kind == "layer-product"
    assert isinstance(model, S5)
    static, dynamic = (of("qs5-w4a8", model) for of in (subject.static, subject.dynamic))
    assert static.keys() == dynamic.keys()
    assert {n for n in static if static[n] != dynamic[n]} == {
        *(f"layers.0.{name}" for name in ("x", "y", "out_proj_in", "out_proj_out")), "head_in"
    }  # fmt: skip
    exact = subject.without(dynamic, model, subject.Part.STATE, subject.Part.A)
    assert dynamic.keys() - exact.keys() == {"layers.0.state", "layers.0.A"}


def test_every_plan_of_the_study_fits(digits: Any) -> None:
    sites = digits.model.sites.values()
    cells = list(subject.cells())
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        if cell.schemes:
            assert Plan(tuple(parse_setting("=".join(s)) for s in cell.schemes)).resolve(sites)
    for setting in subject.STUDY["searched"]["freeze"]:
        assert Plan((parse_setting(setting),)).resolve(sites)


def test_the_recipe_is_of_the_papers_size() -> None:
    path = STUDIES / "009_qs5" / "smnist.toml"
    recipe = recipe_from(read_document(path), str(path))
    model = recipe.model
    assert (model.layers, model.d_model, 2 * model.d_state) == (4, 96, 128)
    assert sum(p.numel() for p in initial(recipe).values()) == 138_634


def test_the_tables_are_those_of_what_was_measured() -> None:
    text = shown.README.read_text(encoding="utf-8")
    for name, table in shown.sections().items():
        assert f"<!-- {name}: written by run.py -->\n\n{table({})}\n" in text, name


def test_an_error_over_seeds_counts_samples_and_seeds() -> None:
    rows = [{"value": 97.0, "stderr": 0.3}, {"value": 98.0, "stderr": 0.4}]
    assert shown.over_seeds(rows) == {"value": 97.5, "stderr": pytest.approx(0.612, abs=1e-3)}
    assert shown.over_seeds(rows[:1]) == rows[0]
