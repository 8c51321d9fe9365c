"""Normal numbers from counters, and the tap that adds them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from builders import ACTIVATION, CONFIGS, MATRIX, PROJECTION, STATE, inputs, tiny, values_of, vector
from scipy.stats import kstest, norm

from sensprobe.models.apply import Applier, observe
from sensprobe.models.noisy import noisy_tap
from sensprobe.numerics import noise as noise_module
from sensprobe.numerics.noise import NoiseTap, key_of_draw, noisy_weight, normals, numbers
from sensprobe.numerics.philox import Grid
from sensprobe.numerics.storage import Carry, Noisy, Rounded, fresh, passed, store
from sensprobe.numerics.taps import EXACT, RoundingTap
from sensprobe.plans.noise import Draw, Gaussian, parse
from sensprobe.plans.scheme import parse as scheme

pytestmark = pytest.mark.usefixtures("reference_scan")

DRAW = Draw({}, seed=5, index=1)


def drawn(model, data, plan=None, **noises):
    """The tap of a plan and Gaussian amounts by the names of the first layer, calibrated on x."""
    found = Draw({f"layers.0.{name}": Gaussian(a) for name, a in noises.items()}, seed=3)
    return noisy_tap(Applier(model, observe(model, data)), plan or {}, found)


# -- numbers --------------------------------------------------------------------------------------


def test_normals_are_the_transform_of_two_words():
    words = [torch.tensor(w) for w in ([0, 2**32 - 1, 123456789], [7, 2**31, 4000000000])]
    got = torch.stack(normals(words), dim=1).tolist()
    for (re, im), a, b in zip(got, *(w.tolist() for w in words), strict=True):
        r, angle = math.sqrt(-2 * math.log((a + 1) / 2**32)), 2 * math.pi * b / 2**32
        assert re == pytest.approx(r * math.cos(angle), rel=1e-13, abs=1e-13)
        assert im == pytest.approx(r * math.sin(angle), rel=1e-13, abs=1e-13)


def test_numbers_have_their_bits_on_every_machine():
    got = numbers(Grid((0, 0, 0, 0), (1, 1, 1, 3)), (1, 2), True)
    assert got.numpy().tobytes().hex() == KNOWN


KNOWN = "f82011c0b788cabf7b2eedbee62faabf56abcf3ef298ae3f"


@pytest.mark.parametrize("together", [1, 7, 1 << 16])
def test_numbers_depend_on_the_counter_alone(together, monkeypatch):
    monkeypatch.setattr(noise_module, "TOGETHER", together)
    whole = numbers(Grid((5, 2, 0, 1), (3, 4, 2, 5)), (1, 2), True)
    assert whole.shape == (3, 4, 2, 5, 2)
    for starts, sizes in (((6, 3, 0, 2), (2, 2, 1, 3)), ((5, 2, 1, 1), (1, 1, 1, 5))):
        part = numbers(Grid(starts, sizes), (1, 2), True)
        cut = tuple(
            slice(s - t, s - t + n) for s, t, n in zip(starts, (5, 2, 0, 1), sizes, strict=True)
        )
        assert torch.equal(part, whole[cut])
        assert torch.equal(part[..., 0], numbers(Grid(starts, sizes), (1, 2), False))
    assert numbers(Grid((0, 0, 0, 0), (1, 0, 2, 5)), (1, 2), False).shape == (1, 0, 2, 5)


def test_normals_are_normal():
    x = numbers(Grid((0, 0, 0, 0), (1, 1, 200, 100)), key_of_draw(DRAW, "x"), True)
    for part in x.unbind(-1):
        assert kstest(part.flatten().numpy(), norm.cdf).pvalue > 1e-3
    assert abs(torch.corrcoef(x.reshape(-1, 2).T)[0, 1]) < 5 / 20000**0.5


def test_no_two_streams_share_a_key():
    keys = [key_of_draw(Draw({}, s, k), n, d)
            for s in (0, 1) for k in (0, 1, 2**33) for n in ("a", "b") for d in (0, 1)]  # fmt: skip
    assert len(set(keys)) == len(keys)


# -- weights --------------------------------------------------------------------------------------


def test_the_deviation_is_a_share_of_the_largest_weight():
    w = vector(300, 200, dtype=torch.float32)
    site = replace(PROJECTION, shape=(300, 200))
    change = noisy_weight(w, Gaussian(0.02), site, DRAW) - w
    assert change.std().item() == pytest.approx(0.02 * w.abs().max().item(), rel=5 / 120000**0.5)
    z = torch.complex(w, 3 * w)
    parts = torch.view_as_real(noisy_weight(z, Gaussian(0.02), site, DRAW) - z)
    want = 0.02 * 3 * w.abs().max().item()
    assert [p.std().item() for p in parts.unbind(-1)] == pytest.approx([want] * 2, rel=0.02)


def test_nothing_is_added_to_weights_that_are_all_zero():
    w = torch.zeros(8, 5)
    for text in ("0.5", "pcm"):
        assert torch.equal(noisy_weight(w, parse(text), PROJECTION, DRAW), w)


def test_gradients_pass_straight_through():
    w = vector(8, 5, dtype=torch.float32).requires_grad_()
    given = vector(8, 5, seed=1, dtype=torch.float32)
    for text in ("0.5", "pcm"):
        (found,) = torch.autograd.grad(
            (noisy_weight(w, parse(text), PROJECTION, DRAW) * given).sum(), w
        )
        assert torch.equal(found, given)


def test_weights_are_perturbed_as_the_plan_left_them():
    """The range is that of the rounded weight, not of the exact one."""
    model = tiny()
    plan = {"layers.0.out_proj": scheme("int2")}
    tap = drawn(model, inputs(model.config), plan, out_proj=0.1)
    rounded = Applier(model).tap(plan).weights["layers.0.out_proj"]
    want = noisy_weight(rounded, Gaussian(0.1), model.sites["layers.0.out_proj"], tap.draw)
    assert torch.equal(tap(model.sites["layers.0.out_proj"], values_of((8, 4), False)), want)
    assert rounded.abs().max() != model.weights["layers.0.out_proj"].abs().max()


# -- activations and states -----------------------------------------------------------------------


def test_only_named_activations_change_by_the_share_of_the_range():
    site = replace(ACTIVATION, shape=(50,))
    tap, x = NoiseTap(EXACT, {site.name: 0.25}, DRAW), vector(40, 30, 50, dtype=torch.float32)
    change = tap(site, x) - x
    assert change.std().item() == pytest.approx(0.25, rel=5 / 120000**0.5)
    assert tap(replace(site, name="other"), x) is x
    assert tap.storage(STATE) is None


def test_sigmas_are_shares_of_what_calibration_saw():
    model = tiny()
    x = inputs(model.config, batch=4)
    seen = observe(model, x)["layers.0.state"]
    peak = max(seen.low.abs().max().item(), seen.high.abs().max().item())
    assert drawn(model, x, state=0.5).sigmas == {"layers.0.state": 0.5 * peak}


@pytest.mark.parametrize("rows", [1, 1 << 16])
def test_noise_is_that_of_the_sequence_whatever_the_batch(rows, monkeypatch):
    monkeypatch.setattr(noise_module, "TOGETHER", rows)
    model = tiny()
    x = inputs(model.config, batch=5)
    tap = drawn(model, x, state=0.1, x=0.1, out_proj=0.1)
    whole, parts = model(x, tap), [model(x[i:j], tap.at(i)) for i, j in ((0, 2), (2, 5))]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(model(x[2:5], tap), whole[2:5])


def test_steps_see_the_noise_of_the_sequence():
    model = tiny(CONFIGS["last"])
    x = inputs(model.config, batch=2, length=6)
    plan = {"layers.0.state": scheme("int6/dynamic")}
    tap = drawn(model, x, plan, state=0.1, y=0.1)
    state = model.start(2, tap)
    for t in range(6):
        last, state = model.step(x[:, t], state, tap)
    assert torch.equal(last, model(x, tap))


def test_draws_differ_in_weights_and_in_states():
    model = tiny()
    x = inputs(model.config)
    for names in ({"D": 0.1}, {"state": 0.1}):
        tap = drawn(model, x, **names)
        other = noisy_tap(Applier(model, observe(model, x)), {}, replace(tap.draw, index=1))
        assert torch.equal(model(x, tap), model(x, drawn(model, x, **names)))
        assert not torch.equal(model(x, tap), model(x, other))


def test_noise_of_nothing_is_the_plan():
    model = tiny()
    x, plan = inputs(model.config), {"layers.0.state": scheme("int5/dynamic")}
    assert torch.equal(model(x, drawn(model, x, plan)), model(x, Applier(model).tap(plan)))


def test_a_state_is_rounded_and_then_perturbed():
    rounded = Rounded(scheme("int4/range1"), STATE, torch.tensor([1 / 7]).view(1, 1, 1))
    noisy = Noisy(rounded, lambda x, step: torch.full_like(x, 0.01 * (step + 1)))
    x = values_of((2, *STATE.shape, 2), False).float()
    want = store(fresh(2, (*STATE.shape, 2), rounded), x, rounded).state
    carry = store(fresh(2, (*STATE.shape, 2), noisy), x, noisy)
    assert torch.equal(carry.state, want + 0.01)
    assert carry.step == 1
    assert torch.equal(store(Carry(x, None, 2), x, noisy).state, want + 0.03)
    assert torch.equal(passed(x, noisy, 1), want + 0.02)


def test_feedback_keeps_its_residual_under_noise():
    kept = Rounded(scheme("int4/range1/feedback"), STATE, torch.tensor([1 / 7]).view(1, 1, 1))
    noisy = Noisy(kept, lambda x, step: torch.zeros_like(x))
    x = values_of((2, *STATE.shape, 2), False).float()
    plain, carry = (fresh(2, (*STATE.shape, 2), s) for s in (kept, noisy))
    for _ in range(3):
        plain, carry = store(plain, x, kept), store(carry, x, noisy)
    assert carry.residual is not None
    assert torch.equal(carry.residual, plain.residual)
    assert torch.equal(carry.state, plain.state)


def test_gradients_pass_through_a_noisy_state():
    model = tiny()
    x = inputs(model.config).requires_grad_()
    tap = drawn(model, x.detach(), state=0.1, x=0.1)
    (found,) = torch.autograd.grad(model(x, tap).sum(), x)
    assert found.abs().min() > 0


def test_the_tap_moves_the_rounding_tap_it_stands_on():
    inner = RoundingTap({STATE.name: scheme("int8/dynamic")}, {}, {})
    tap = NoiseTap(inner, {}, DRAW).at(7).after(3)
    assert (tap.first, tap.step, tap.inner.first, tap.inner.step) == (7, 3, 7, 3)
    assert tap.storage(STATE).first == 7
    assert MATRIX.name not in tap.sigmas
