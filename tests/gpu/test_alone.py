"""Operations that pass numbers on, each alone: against float64, or the reference of rounding to the
bit, into memory that holds NaN wherever nothing was put.

Sums of n numbers in any order are within n · eps of the exact one, relative to the sum of
magnitudes; exponentials within four units in the last place, erf within 5e-7.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from math import inf, nan
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from packed_memory import CONFIGS, packed
from selective import tiny
from sensprobe_kernels.launch import Launch
from sensprobe_kernels.launch import run as run_launch
from sensprobe_kernels.ops.elementwise.gpu import tick
from sensprobe_kernels.packing.tensor import SINGLE, Packed
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.gpu.device import States, Weights
from sensprobe_kernels.program.gpu.run import GpuProgram
from sensprobe_kernels.program.ir import NO_CODES, NONE, Operation, Register
from sensprobe_kernels.program.program import Program
from torch import Tensor
from torch.nn import functional as F
from triton import knobs

from sensprobe.numerics.rounding import scale_and_zero
from sensprobe.numerics.taps import rounded as reference
from sensprobe.packed import describe
from sensprobe.plans.scheme import parse, scale_shape
from sensprobe.plans.sites import Axis, Kind, Part, Site

EPS = torch.finfo(torch.float32).eps
SIZES = [1, 5, 37, 130, 1100]
EPSILON = 1e-5


class Alone:
    """A program of a few operations, whose registers are the test's to fill."""

    def __init__(self, device: str, batch: int, *tensors: Tensor) -> None:
        self.device, self.batch = device, batch
        data = [t.contiguous().float().numpy().reshape(-1).view(np.uint8) for t in tensors]
        self.data = np.concatenate([np.zeros(16, np.uint8), *data])
        self.program, at = Program(self.data, batch), 16
        for t in tensors:
            rows, columns = (1, t.numel()) if t.ndim == 1 else t.shape
            self.program.tensor(
                Packed(at, 32, SINGLE, rows, columns, -1, 0, -1, 0, columns, 0, 0, 1)
            )
            at += 4 * t.numel()
        self.given: list[tuple[Register, Tensor]] = []

    def put(self, x: Tensor) -> Register:
        register = self.program.register(x.shape[1])
        self.given.append((register, x))
        return register

    def room(self, size: int) -> Register:
        return self.program.register(size)

    def add(self, operation: Operation) -> None:
        self.program.add(operation)

    def made(self) -> GpuProgram:
        states = States(self.program, 0, self.batch, Weights(self.data, self.device))
        return GpuProgram(self.program, 1, states)

    def run(self, *outputs: Register) -> list[Tensor]:
        """What the operations leave in these registers; nothing else may have changed, but for what
        fills up their rows, on which elementwise operations work too."""
        made = self.made()
        work = made.buffers.work
        work.fill_(nan)
        for register, x in self.given:
            self._rows(work, register)[:] = x.to(self.device)
        before = work.clone()
        made.launch()
        found = [self._rows(work, register).cpu().clone() for register in outputs]
        for register in outputs:
            rows = work[register.at : register.at + self.batch * register.pitch]
            padding = rows.view(self.batch, register.pitch)[:, register.size :]
            assert padding.isnan().all()
            rows[:] = before[register.at : register.at + self.batch * register.pitch] = 0
        assert torch.equal(work.view(torch.int32), before.view(torch.int32))
        return found

    def _rows(self, work: Tensor, register: Register) -> Tensor:
        rows = work[register.at : register.at + self.batch * register.pitch]
        return rows.view(self.batch, register.pitch)[:, : register.size]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def within(got: Tensor, want: Tensor, bound: Tensor) -> None:
    wrong = (got.double() - want).abs() > bound
    assert not wrong.any(), (got[wrong][:5], want[wrong][:5])


FILLS: dict[str, Callable[[Tensor], Tensor]] = {
    "random": lambda x: x,
    "zero": torch.zeros_like,
    "large": lambda x: x.sign() * 1e15,
    "shifted": lambda x: x + 100,
}


@pytest.mark.skipif(not knobs.runtime.interpret, reason="only the interpreter is watched")
def test_places_outside_are_found(device):
    times = torch.zeros(16, dtype=torch.int32)
    ticks = Launch(tick, (1,), (torch.tensor([15]), times, 1), {}, 1)
    run_launch(ticks)
    assert times[15] == 1
    beyond = ticks._replace(args=(torch.tensor([16]), times, 1))
    with pytest.raises(Exception, match="outside all arguments"):
        run_launch(beyond)


# -- norms ----------------------------------------------------------------------------------------


def rms(device: str, x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
    a = Alone(device, len(x), weight)
    at, to = a.put(x), a.room(x.shape[1])
    a.add(ir.Rms(at, to, groups, a.program.constants(EPSILON), 0))
    return a.run(to)[0]


def rms_bound(x: Tensor, want: Tensor, groups: int = 1) -> Tensor:
    return (x.shape[1] // groups + 8) * EPS * want.abs()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("size", SIZES)
def test_rms_norms(device, size, fill):
    x, weight = FILLS[fill](numbers(3, size)), numbers(size, seed=1)
    v = x.double()
    want = v / (v.square().mean(1, keepdim=True) + EPSILON).sqrt() * weight
    within(rms(device, x, weight), want, rms_bound(x, want))


def test_rms_norms_of_groups(device):
    x, weight = numbers(2, 36), numbers(36, seed=1)
    v = x.double().view(2, 3, 12)
    want = (v / (v.square().mean(2, keepdim=True) + EPSILON).sqrt()).view(2, 36) * weight
    within(rms(device, x, weight, 3), want, rms_bound(x, want, 3))


def test_the_bound_of_norms_can_fail(device):
    x, weight = numbers(2, 37), numbers(37, seed=1)
    v, wrong = x.double(), weight.double()
    wrong[5] *= 1 + 2e-5
    want = v / (v.square().mean(1, keepdim=True) + EPSILON).sqrt() * wrong
    with pytest.raises(AssertionError):
        within(rms(device, x, weight), want, rms_bound(x, want))


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("size", SIZES)
def test_layer_norms(device, size, fill):
    x, weight, bias = FILLS[fill](numbers(2, size)), numbers(size, seed=1), numbers(size, seed=2)
    a = Alone(device, 2, weight, bias)
    at, to = a.put(x), a.room(size)
    a.add(ir.LayerNorm(at, to, a.program.constants(EPSILON), 0, 1))
    v = x.double()
    spread = v.var(1, unbiased=False, keepdim=True) + EPSILON
    want = F.layer_norm(v, (size,), weight.double(), bias.double(), EPSILON)
    largest = v.abs().amax(1, keepdim=True) / spread.sqrt()  # what the mean takes off is lost
    bound = (size + 8) * EPS * (want.abs() + bias.abs() + weight.abs() * (1 + largest))
    within(a.run(to)[0], want, bound)


def test_the_bound_of_layer_norms_can_fail(device):
    x, weight, bias = numbers(2, 37), numbers(37, seed=1), numbers(37, seed=2)
    a = Alone(device, 2, weight, bias)
    at, to = a.put(x), a.room(37)
    a.add(ir.LayerNorm(at, to, a.program.constants(EPSILON), 0, 1))
    want = F.layer_norm(x.double(), (37,), weight.double(), bias.double(), 10 * EPSILON)
    bound = 45 * EPS * (want.abs() + bias.abs() + weight.abs() * (1 + x.abs().amax()))
    with pytest.raises(AssertionError):
        within(a.run(to)[0], want, bound)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("size", SIZES)
def test_the_factors_of_a_layer_norm(device, size, fill):
    x, weight = FILLS[fill](numbers(2, size)), numbers(size, seed=1)
    a = Alone(device, 2, weight)
    at, centred, factor, to = a.put(x), a.room(size), a.room(size), a.room(size)
    a.add(ir.Centre(at, centred))
    a.add(ir.Factor(at, factor, a.program.constants(EPSILON), 0))
    a.add(ir.Multiply(at, factor, to))
    less, by, product = a.run(centred, factor, to)
    v = x.double()
    within(less, v - v.mean(1, keepdim=True), (size + 2) * EPS * v.abs().amax(1, keepdim=True))
    want = weight.double() / (v.square().mean(1, keepdim=True) + EPSILON).sqrt()
    within(by, want, (size + 8) * EPS * want.abs())
    within(product, v * want, (size + 9) * EPS * (v * want).abs())


def test_a_norm_takes_the_sum_before_it_in(device):
    x, y, weight = numbers(3, 37), numbers(3, 37, seed=1), numbers(37, seed=2)
    a = Alone(device, 3, weight)
    at, other, to = a.put(x), a.put(y), a.room(37)
    a.add(ir.Add(at, other, at))
    a.add(ir.Rms(at, to, 1, a.program.constants(EPSILON), 0))
    assert [launch.kernel.__name__ for launch in a.made().launches].count("norm") == 1
    total, got = a.run(at, to)
    assert torch.equal(total, x + y)
    v = (x + y).double()
    want = v / (v.square().mean(1, keepdim=True) + EPSILON).sqrt() * weight
    within(got, want, rms_bound(v, want))


# -- rounding -------------------------------------------------------------------------------------

ROUNDINGS = ["int8/dynamic", "int4/asym/dynamic", "int8/asym/dynamic/s32", "int8/dynamic/pow2",
             "int3/group4/dynamic", "int6/group32/asym/dynamic", "e4m3/dynamic", "e5m2/dynamic",
             "e2m1/dynamic", "log4/dynamic", "int6/dynamic/truncate", "bf16", "fp16", "int8",
             "int8/asym", "int5/channel", "e4m3/channel"]  # fmt: skip
UNUSUAL = {"zero": 0.0, "large": 1e30, "tiny": 1e-38, "NaN": nan, "infinite": -inf}


def rounding(device: str, scheme: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """x as the kernel rounds it, and as the reference does."""
    batch, size = x.shape
    site, parsed = Site("x", Part.X, Kind.ACTIVATION, (size,), (Axis.CHANNEL,)), parse(scheme)
    static, fields = None, []
    if parsed.scaled and not parsed.dynamic:
        low, high = ((2 + numbers(*scale_shape(parsed, site)).abs()) * s for s in (-1.0, 1.0))
        static = scale_and_zero(parsed, low, high)
        fields = [static[0].half()] + ([static[1].short()] if static[1] is not None else [])
    a = Alone(device, batch)
    places, at = {}, 16
    for name, f in zip(("x.scale", "x.zero"), fields, strict=False):
        places[name], at = at, at + 2 * f.numel()
        a.data = np.concatenate([a.data, f.numpy().reshape(-1).view(np.uint8)])
    a.program.data = a.data
    register = a.put(x)
    weights: Any = SimpleNamespace(places=places)
    store = describe.passing(a.program, site, parsed, static, weights)
    a.add(ir.Round(register, store, register, 1, 0, 0, NONE, NO_CODES, 0))
    return a.run(register)[0], reference(x, parsed, site, static, None)


@pytest.mark.parametrize(
    ("scheme", "size"),
    [(s, size) for s in ROUNDINGS for size in (4, 36, 128, 1152) if "32" not in s or size > 36],
)
def test_rounding_is_the_reference_to_the_bit(device, scheme, size):
    got, want = rounding(device, scheme, 3 * numbers(2, size))
    torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:overflow encountered")  # NumPy's, of Triton's interpreter
@pytest.mark.parametrize("value", UNUSUAL)
@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_rounding_of_unusual_numbers(device, scheme, value):
    x = numbers(2, 128)
    x[:, 5] = UNUSUAL[value]
    if value in ("zero", "tiny"):
        x[0] = UNUSUAL[value]
    got, want = rounding(device, scheme, x)
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


def test_the_comparison_of_rounding_can_fail(device):
    x = numbers(1, 36)
    got, _ = rounding(device, "int8/dynamic", x)
    x[0, 3] += 2 * x.abs().max() / 127
    _, want = rounding(device, "int8/dynamic", x)
    assert (got != want).sum() == 1


# -- elementwise ----------------------------------------------------------------------------------


FUNCTIONS: dict[str, tuple[Any, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "silu": (ir.Silu, F.silu, lambda x: 8 * EPS * F.silu(x).abs() + 1e-38 * x.abs()),
    "gelu": (ir.Gelu, F.gelu, lambda x: (5e-7 + 4 * EPS) * x.abs()),
    "gelu-tanh": (
        ir.GeluTanh,
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: 16 * EPS * x.abs(),
    ),
    "relu": (ir.Relu, F.relu, lambda x: 0 * x),
    "qgelu4": (
        ir.Qgelu4,
        lambda x: x * (x + 2).clamp(0, 4) / 4,
        lambda x: 4 * EPS * x.abs() * (1 + x.abs()),
    ),
    "qgelu": (ir.Qgelu, lambda x: x * (x + 2).clamp(0, 1), lambda x: 4 * EPS * x.abs()),
}


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_one_register(device, name, fill):
    kind, function, bound = FUNCTIONS[name]
    x = FILLS[fill](3 * numbers(3, 37))
    a = Alone(device, 3)
    at, to = a.put(x), a.room(37)
    a.add(kind(at, to))
    within(a.run(to)[0], function(x.double()), bound(x.double()))


def test_softplus_is_kept_between_bounds(device):
    x = 8 * numbers(3, 37)
    a = Alone(device, 3)
    at, to = a.put(x), a.room(37)
    low = a.program.constants(0.01, 5.0)
    a.add(ir.Softplus(at, to, low, low + 1))
    want = F.softplus(x.double()).clamp(0.01, 5.0)
    within(a.run(to)[0], want, 16 * EPS * want)


@pytest.mark.parametrize(
    ("kind", "function"),
    [(ir.Gate, lambda a, b: a * F.silu(b)), (ir.Add, lambda a, b: a + b)],
    ids=["gate", "add"],
)
def test_functions_of_two_registers(device, kind, function):
    x, z = numbers(3, 37), 3 * numbers(3, 37, seed=1)
    a = Alone(device, 3)
    at, other, to = a.put(x), a.put(z), a.room(37)
    a.add(kind(at, other, to))
    want = function(x.double(), z.double())
    within(a.run(to)[0], want, 10 * EPS * want.abs() + EPS * 1e-3)


def test_skips_biases_and_decays(device):
    x, y, D, bias = numbers(2, 36), numbers(2, 36, seed=1), numbers(12, seed=2), numbers(36, seed=3)
    a = Alone(device, 2, D, bias)
    at, to = a.put(x), a.put(y)
    a.add(ir.Skip(to, at, to, 0, 3, 12))
    want = y.double() + D.double().repeat_interleave(3) * x.double()
    within(a.run(to)[0], want, 2 * EPS * (y.abs() + (D.repeat_interleave(3) * x).abs()))
    a = Alone(device, 2, D, bias)
    at = a.put(x)
    a.add(ir.Bias(1, at))
    assert torch.equal(a.run(at)[0], x + bias)
    a = Alone(device, 2, -D.abs())
    dt, to = a.put(x[:, :12].abs()), a.room(12)
    a.add(ir.Decay(dt, 0, to))
    want = (x[:, :12].abs().double() * -D.abs().double()).exp()
    within(a.run(to)[0], want, 4 * EPS * want * (1 + (x[:, :12] * D).abs()))


def test_halves_gate_each_other_and_copies_are_copies(device):
    x = numbers(3, 32)
    a = Alone(device, 3)
    at, to = a.put(x), a.room(16)
    a.add(ir.HalfGlu(at, to))
    v = x.double()
    want = v[:, :16] * torch.sigmoid(v[:, 16:])
    within(a.run(to)[0], want, 10 * EPS * want.abs())
    a = Alone(device, 3)
    at, to = a.put(x), a.room(16)
    a.add(ir.HardGlu(at, to))
    want = v[:, :16] * ((v[:, 16:] + 3).clamp(0, 6) / 6)
    within(a.run(to)[0], want, 10 * EPS * v[:, :16].abs())
    a = Alone(device, 3)
    at, to = a.put(x), a.room(7)
    a.add(ir.Copy(at, to))
    assert torch.equal(a.run(to)[0], x[:, :7])


@pytest.mark.parametrize("columns", [[36, 0, 7], [-1, 3, -1, 3] * 10], ids=len)
def test_columns_are_picked_and_others_are_zero(device, columns):
    x = numbers(3, 37)
    a = Alone(device, 3)
    at, to = a.put(x), a.room(len(columns))
    a.add(ir.Pick(at, to, a.program.constants(5.0, *columns) + 1))
    want = torch.where(torch.tensor(columns) < 0, torch.zeros(()), x[:, columns])
    assert torch.equal(a.run(to)[0], want)


def test_means_go_on_from_step_to_step(device):
    a = Alone(device, 2)
    at, to = a.room(37), a.room(37)
    a.add(ir.Mean(at, to))
    made, seen = a.made(), numbers(5, 2, 37)
    for t in range(5):
        made.buffers.work.fill_(nan)
        a._rows(made.buffers.work, at)[:] = seen[t].to(device)
        made.launch()
        want = seen[: t + 1].double().mean(0)
        bound = 6 * EPS * seen[: t + 1].abs().double().mean(0)
        within(a._rows(made.buffers.work, to).cpu(), want, bound)


# -- what remembers -------------------------------------------------------------------------------


class Remembering:
    """The one operation of a kind of a small model, alone, over a few steps of two sequences."""

    def __init__(self, device: str, name: str, kind: Any, plan: dict[str, str] | None = None):
        case = packed(tiny(CONFIGS[name]), plan or {})
        made = case.stream.program(2)
        only = made.program.only(kind)
        states = States(only, made.fresh.size, 2, Weights(only.data, device))
        states.put(torch.from_numpy(made.fresh).expand(2, -1), torch.arange(2), 0)
        self.program, (self.operation, *_) = GpuProgram(only, 1, states), only.ops
        self.weights = {n.removeprefix("layers.0."): w for n, w in case.model.weights.items()}

    def step(self, given: dict[Register, Tensor], to: Register, size: int) -> Tensor:
        """What `to` holds after numbers were put in each register, and NaN elsewhere."""
        work = self.program.buffers.work
        work.fill_(nan)
        for at, x in given.items():
            rows = work[at.at :].as_strided((2, x.shape[1]), (at.pitch, 1))
            rows.copy_(x.to(work.device))
        self.program.launch()
        return work[to.at : to.at + 2 * to.pitch].view(2, to.pitch)[:, :size].cpu().clone()


def convolved(device: str, last: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """What the kernel gives, the float64 sum with its last weight times `last`, and the bound."""
    r = Remembering(device, "mamba", ir.Convolve)
    o = r.operation
    weight, bias = r.weights["conv"].double(), r.weights["conv.bias"].double()
    weight = torch.cat([weight[:, :-1], last * weight[:, -1:]], 1)
    seen = numbers(5, 2, len(weight))
    line = torch.cat([torch.zeros(weight.shape[1] - 1, *seen.shape[1:]), seen]).double()
    got = [r.step({o.x: v}, o.to, len(weight)) for v in seen]
    windows = line.unfold(0, weight.shape[1], 1)
    sums = (windows * weight).sum(-1) + bias
    sizes = (windows * weight).abs().sum(-1) + bias.abs()
    return torch.stack(got), sums, (weight.shape[1] + 1) * EPS * sizes


def test_convolutions_and_their_windows(device):
    within(*convolved(device))


def test_the_bound_of_convolutions_can_fail(device):
    with pytest.raises(AssertionError):
        within(*convolved(device, 1 + 1e-5))


@pytest.mark.parametrize("flaw", [0.0, 1e-5])
def test_channels(device, flaw):
    """The recurrence of a Mamba, its state float32; a decay that is off is seen."""
    r = Remembering(device, "mamba", ir.Channels)
    o = r.operation
    A = r.weights["A"].double() * (1 + flaw)
    rows, n = A.shape
    h, size, steps = torch.zeros(2, rows, n).double(), torch.zeros(2, rows, n).double(), 6
    got, want, bound = [], [], []
    for t in range(steps):
        u, d = numbers(2, rows, seed=t), numbers(2, rows, seed=t + 9).abs()
        b, c = numbers(2, n, seed=t + 20), numbers(2, n, seed=t + 30)
        got.append(r.step({o.x: u, o.dt: d, o.B: b, o.C: c}, o.to, rows))
        decay = (d.double()[..., None] * A).exp()
        drive = (d * u).double()[..., None] * b.double()[:, None]
        h, size = decay * h + drive, decay * size + drive.abs()
        want.append((h * c.double()[:, None]).sum(-1))
        bound.append((8 + n + 4 * t) * EPS * (size * c.abs().double()[:, None]).sum(-1))
    with pytest.raises(AssertionError) if flaw else nullcontext():
        within(torch.stack(got), torch.stack(want), torch.stack(bound))


@pytest.mark.parametrize("flaw", [0.0, 1e-5])
def test_heads(device, flaw):
    """That of a Mamba-2, whose decays are given; one that is off is seen."""
    r = Remembering(device, "mamba2", ir.Heads)
    o = r.operation
    s = r.program.buffers.held[o.state].state
    own = s.rows // s.heads
    h = size = torch.zeros(2, s.rows, s.n).double()
    got, want, bound = [], [], []
    for t in range(6):
        u, d = numbers(2, s.rows, seed=t), numbers(2, s.heads, seed=t + 9).abs()
        a, b = numbers(2, s.heads, seed=t + 15).sigmoid(), numbers(2, s.n, seed=t + 20)
        c = numbers(2, s.n, seed=t + 30)
        given = {o.x: u, o.dt: d, o.decay: a, o.B: b, o.C: c}
        got.append(r.step(given, o.to, s.rows))
        wide = (1 + flaw) * a.double().repeat_interleave(own, 1)[..., None]
        drive = (d.repeat_interleave(own, 1) * u).double()[..., None] * b.double()[:, None]
        h, size = wide * h + drive, wide * size + drive.abs()
        want.append((h * c.double()[:, None]).sum(-1))
        bound.append((8 + s.n + 4 * t) * EPS * (size * c.abs().double()[:, None]).sum(-1))
    with pytest.raises(AssertionError) if flaw else nullcontext():
        within(torch.stack(got), torch.stack(want), torch.stack(bound))
