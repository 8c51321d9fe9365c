"""Mamba-2 in chunks on a GPU, its state stored at chunk ends: whole models against the recurrent
simulation, stored states a chunk at a time, and the operation alone against float64.

A chunk's sums have another order than the recurrence's: both are within some eps of what is exact,
so that a number which lies so near a tie of its rounding may go either way, and a dynamic scale,
which is rounded itself, may be its neighbour.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from packed_memory import CONFIGS, ONE, held, packed, values
from selective import inputs, tiny
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.gpu.device import States, Weights
from sensprobe_kernels.program.gpu.run import GpuProgram
from torch import Tensor

from sensprobe.errors import UnsupportedError
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.numerics.storage import Carry
from sensprobe.ops.head_scan import reference as head_scan
from sensprobe.packed.compile import compiled
from sensprobe.packed.device import device_stream_of
from sensprobe.plans.plan import Plan
from sensprobe.session.load import _on_device

EPS = torch.finfo(torch.float32).eps
K = 16
SCHEMES = [
    "int8/head/dynamic", "int4/head/asym/dynamic", "int8/channel/dynamic/s32",
    "int6/channel/asym/dynamic/pow2", "e4m3/head/dynamic", "int8/head/dynamic/feedback",
    "int4/head/dynamic/stochastic", "int8/head/asym/dynamic/clip1", "int8/head/dynamic/truncate",
    "int8/head/range2", "int8/asym/range2", "e5m2/range2", "bf16/feedback", "fp16",
]  # fmt: skip
MANTISSA = {"e4m3": 3, "e5m2": 2, "bf16": 7, "fp16": 10}
CONFIGS = CONFIGS | {
    "odd": Mamba2Config(**ONE, d_state=24, d_head=48, groups=1, expand=12),
}


def _made(device: str, name: str, plan: dict[str, str]):
    """A model under a plan, and its stream on the device with why it takes no steps."""
    case = packed(tiny(CONFIGS[name]), plan)
    weights = case.stream.weights
    return case, *device_stream_of(case.model, weights, weights.scales(), torch.device(device))


# -- whole models ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scheme", "batch", "length", "every"),
    [
        ("mamba2", "int8/head/dynamic", 2, 1, 16),
        ("ungated", "int8/head/range2", 1, 15, 16),
        ("mamba2", "e4m3/head/dynamic/stochastic", 2, 16, 16),
        ("ungated", "int8/channel/dynamic", 2, 17, 16),
        ("groups", "int4/head/asym/dynamic/feedback", 2, 35, 16),
        ("mamba2", "int8/head/dynamic", 1, 35, 16),
        ("odd", "int8/head/dynamic/feedback", 1, 9, 4),
        ("mamba2", "int4/channel/dynamic", 1, 67, 32),
    ],
)
def test_whole_sequences_are_the_recurrence(device, name, scheme, batch, length, every):
    """Odd lengths, whole chunks and what is left of them; groups, gates, norms, pooling."""
    plan = {"layers.*.state": f"{scheme}/every{every}", "layers.*.in_proj.x": "int8/channel"}
    case, stream, _ = _made(device, name, plan)
    x = inputs(CONFIGS[name], batch, length)
    want, got = case.model(x, case.tap), stream.whole(x.to(device)).cpu()
    wrong = (got - want).abs() > 3e-5 * want.abs().max()
    assert wrong.float().mean() < 0.02, "a code that goes the other way is seen from then on"
    assert not wrong[:, : every - 1].any() or got.ndim == 2


def test_layers_of_unlike_chunks_and_more_sequences_than_fit(device, monkeypatch):
    """Chunks of 4 and 8: pieces are of 8, for two of three sequences at a time."""
    monkeypatch.setattr("sensprobe.packed.device.TOKENS", 16)
    case, stream, _ = _made(
        device, "groups",
        {"layers.0.state": "int8/head/dynamic/every4",
         "layers.1.state": "int8/channel/dynamic/stochastic/every8"},
    )  # fmt: skip
    x = inputs(CONFIGS["groups"], 3, 19)
    got = stream.whole(x.to(device)).cpu()
    torch.testing.assert_close(got, case.model(x, case.tap), rtol=3e-5, atol=3e-5)
    pieces = {made for made in stream._programs if made[0] == 3}
    assert pieces == {(3, 3, 1), (3, 2, 8), (3, 1, 16), (3, 2, 4), (3, 1, 4)}


# -- the operation alone --------------------------------------------------------------------------


class Alone:
    """CHUNKS of a small model over a piece of two sequences: inputs are put, and NaN elsewhere."""

    def __init__(
        self, device: str, scheme: str, length: int, name: str = "odd", every: int = K
    ) -> None:
        case = packed(tiny(CONFIGS[name]), {"layers.0.state": f"{scheme}/every{every}"})
        weights = case.stream.weights
        made = compiled(case.model, weights, weights.scales(), 2 * length)
        program, self.length = made.program.only(ir.Chunks), length
        states = States(program, made.fresh.size, 2, Weights(program.data, device))
        states.put(torch.from_numpy(made.fresh).expand(2, -1), torch.arange(2), 0)
        self.program, (self.operation, *_) = GpuProgram(program, length, states), program.ops
        self.state = states.held[self.operation.state].state
        self.A, site = case.model.weights["layers.0.A"], case.model.sites["layers.0.state"]
        self.case, self.site, self.storage = case, site, case.tap.storage(site)

    def stored(self) -> Tensor:
        """States as memory holds them."""
        return self.program.states.get(torch.arange(2))

    def memory(self, steps: int) -> Carry:
        """What they stand for."""
        each = [
            values(held(m.numpy(), self.case.model, self.case.plan)[self.site.name], self.case.tap)
            for m in self.stored()
        ]
        residual = None if each[0].residual is None else torch.stack([m.residual for m in each])
        return Carry(torch.stack([m.state for m in each]), residual, steps)

    def inputs(self, fill: float = 1.0, seed: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (2, length, heads, p), dt, B and C; seeded."""
        s, g = self.state, torch.Generator().manual_seed(seed)
        many = (2, self.length)
        x = fill * torch.randn(*many, s.heads, s.channels, generator=g)
        dt = torch.randn(*many, s.heads, generator=g).abs()
        return x, dt, *(torch.randn(*many, s.groups, s.n, generator=g) for _ in range(2))

    def run(self, x: Tensor, dt: Tensor, B: Tensor, C: Tensor) -> Tensor:
        """y (2, length, heads, p); nothing else is written."""
        o = self.operation
        to, y_pitch = o.to.at, o.to.pitch
        work, rows = self.program.buffers.work, 2 * self.length
        work.fill_(torch.nan)
        for at, t in ((o.x, x), (o.dt, dt), (o.B, B), (o.C, C)):
            t = t.flatten(2).flatten(0, 1)
            work[at.at :].as_strided((rows, t.shape[1]), (at.pitch, 1)).copy_(t)
        before = work.clone()
        self.program.launch()
        y = work[to : to + rows * y_pitch].view(rows, y_pitch)[:, : self.state.rows]
        found = y.cpu().clone().view(2, self.length, self.state.heads, self.state.channels)
        y[:] = before[to : to + rows * y_pitch].view(rows, y_pitch)[:, : self.state.rows]
        assert torch.equal(work.view(torch.int32), before.view(torch.int32))
        return found

    def exact(
        self, A: Tensor, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, first: Carry | None = None
    ) -> tuple[Tensor, Tensor]:
        """Float64 outputs of a state that is never rounded, and the same of magnitudes."""
        share = self.state.heads // self.state.groups
        h = torch.zeros(2, self.state.heads, self.state.channels, self.state.n).double()
        h = h if first is None else first.state.double()
        size = h.abs()
        y, sizes = [], []
        for t in range(self.length):
            decay = (dt[:, t].double() * A).exp()[..., None, None]
            b, c = (v[:, t].double().repeat_interleave(share, 1)[:, :, None] for v in (B, C))
            drive = (dt[:, t, :, None].double() * x[:, t].double())[..., None] * b
            h, size = decay * h + drive, decay * size + drive.abs()
            y.append((h * c).sum(-1))
            sizes.append((size * c.abs()).sum(-1))
        return torch.stack(y, 1), torch.stack(sizes, 1)

    def bound(self, sizes: Tensor) -> Tensor:
        """Products are off by 4 eps each, two in a row; sums are of n and of as many tokens as
        there are, cut off rather than rounded by tensor cores; an exponent is a sum of at most
        sixteen of one sign, and |s| exp(s) < 1/2."""
        return (2 * 4 + 2 * (self.state.n + self.length) + 16) * EPS * sizes


# -- stored states, a chunk at a time -------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "name", "every"),
    [*((s, "pairs", K) for s in SCHEMES), *((s, "odd", K) for s in SCHEMES[:6]),
     ("int8/head/dynamic/feedback", "odd", 64), ("int4/channel/dynamic", "pairs", 8)],
)  # fmt: skip
def test_stored_states_are_the_reference_s_but_for_ties(device, name, scheme, every):
    """From the same stored state and inputs, the second chunk of two sequences. One number in a
    hundred may differ, and by one code; outputs before the last token read nothing rounded."""
    alone = Alone(device, scheme, every, name, every)
    alone.run(*alone.inputs(seed=1))
    first, given = alone.memory(every), alone.inputs(seed=2)
    got = alone.run(*given)
    y, want = head_scan(*given[:2], alone.A, *given[2:], None, alone.storage, first)
    kept = alone.memory(2 * every)
    assert alone.program.states.times.tolist() == [2 * every] * 2
    _near(want.state, kept.state, scheme)
    if want.residual is not None:
        _near(want.residual, kept.residual, scheme, scaled=want.state)
    apart = (got - y)[:, :-1].abs()
    assert apart.max() <= 2 * alone.bound(alone.exact(alone.A.double(), *given, first)[1]).max()


def _near(want: Tensor, got: Tensor, scheme: str, scaled: Tensor | None = None) -> None:
    """By one code at most, and seldom: a number near a tie. Less than a quarter of one is what the
    last bit of a dynamic scale tells apart. `scaled`: the numbers that dynamic scales are of."""
    scaled, format = want if scaled is None else scaled, scheme.split("/")[0]
    largest = scaled.abs().max()
    if "dynamic" in scheme:  # one for each row, or for all rows of a head
        over = (-1,) if "channel" in scheme else (-2, -1)
        largest = scaled.abs().amax(over, keepdim=True)
    code = 1 / (2 ** int(format[3:]) / 2 - 1) if "int" in format else 2.0 ** -MANTISSA[format]
    code *= 2 if "pow2" in scheme else 1
    apart = (got - want).abs()
    assert (apart <= 1.05 * code * largest).all(), "more than one code"
    assert (apart > code * largest / 4).float().mean() <= 0.01


def test_the_comparison_of_stored_states_can_fail():
    x = torch.linspace(-1, 1, 256)
    rows = torch.stack([x, x / 10])
    with pytest.raises(AssertionError, match="more than one code"):
        _near(x, x.roll(5), "int8/channel/dynamic")
    with pytest.raises(AssertionError):
        _near(x, x + 1 / 127, "int8/channel/dynamic")
    with pytest.raises(AssertionError, match="more than one code"):  # two of the smaller row's
        _near(rows, rows + torch.tensor([[0], [2 / 1270]]), "int8/channel/dynamic")


@pytest.mark.parametrize("flaw", [0.0, 1e-4])
@pytest.mark.parametrize("name", ["odd", "pairs"])
def test_inside_a_chunk_nothing_is_rounded(device, name, flaw):
    """Two blocks and three tokens of a chunk of 64; decays that are off are seen."""
    alone = Alone(device, "int8/head/dynamic", 2 * 16 + 3, name, every=64)
    stored, given = alone.stored(), alone.inputs()
    want, sizes = alone.exact(alone.A.double() * (1 + flaw), *given)
    got = alone.run(*given)
    assert torch.equal(alone.stored(), stored), "a chunk that is not full leaves it as it was"
    with pytest.raises(AssertionError) if flaw else nullcontext():
        assert ((got - want).abs() <= alone.bound(sizes)).all()


@pytest.mark.parametrize(
    "scheme", ["int8/head/dynamic", "int8/asym/range2", "e4m3/channel/dynamic"]
)
def test_chunks_of_nothing_are_nothing(device, scheme):
    alone = Alone(device, scheme, 2 * K)
    x, dt, B, C = alone.inputs(0.0)
    assert (alone.run(x, dt, B, C) == 0).all()


def test_chunks_that_saturate_stop_at_the_range(device):
    """The last token of each chunk reads the stored state, at most 127 steps of 2 / 127."""
    alone = Alone(device, "int8/range2", 2 * K)
    x, dt, B, C = alone.inputs(1e6)
    last = alone.run(x, dt, B, C)[:, K - 1 :: K]
    most = 2 * C[:, K - 1 :: K].abs().sum(-1).repeat_interleave(alone.state.heads, 2)
    assert (last.abs().amax(-1) <= most * (1 + 16 * EPS)).all()
    assert last.abs().max() > 0.1 * most.max()


def test_three_products_of_tf32_leave_out_at_most_two_to_the_minus_21():
    """As tensor cores make them: the larger half nearest, the rest cut off after eleven bits."""

    def cut(x: Tensor, add: int) -> Tensor:
        return ((x.view(torch.int32) + add) & ~0x1FFF).view(torch.float32)

    a, b = (1 + torch.rand(1 << 16, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    (p, q), (r, s) = ((cut(x, 0x1000), cut(x - cut(x, 0x1000), 0)) for x in (a, b))
    exact = a.double() * b.double()
    three = p.double() * r + p.double() * s + q.double() * r
    assert ((three - exact) / exact).abs().max() < 2**-21
    assert ((p.double() * r - exact) / exact).abs().max() > 2**-13, "one of them leaves out more"


# -- refusals -------------------------------------------------------------------------------------


def test_steps_are_refused_and_say_what_runs(device):
    plan = {"layers.*.state": f"int8/head/dynamic/every{K}"}
    case, stream, why = _made(device, "mamba2", plan)
    assert why.startswith("layers.0.state in int8/head/dynamic/every16: no streaming kernel keeps ")
    with pytest.raises(UnsupportedError, match=r"in full for 16 steps .*; whole sequences run\."):
        stream.start(1)
    x = inputs(CONFIGS["mamba2"], 1, 1)[:, 0].to(device)
    for call in (lambda: stream.advance(x, None), lambda: stream.step(x, None)):
        with pytest.raises(UnsupportedError, match="in full for 16 steps"):
            call()
    with pytest.raises(UnsupportedError, match="in full for 16 steps"):
        case.stream.start(1)


def test_a_loaded_model_calls_kernels_and_steps_as_the_simulation(device, caplog):
    case = packed(tiny(CONFIGS["mamba2"]), {"layers.*.state": f"int8/head/dynamic/every{K}"})
    weights, x = case.stream.weights, inputs(CONFIGS["mamba2"], 2, K + 2)
    model = _on_device("tiny", Plan(()), weights, case.model, case.tap, torch.device(device))
    assert model is not None
    assert not model.packed
    assert model.weight_bytes == weights.bytes
    called = model(x)
    torch.testing.assert_close(called.cpu(), case.model(x, case.tap), rtol=3e-5, atol=3e-5)
    state = model.start(2)
    assert "in full for 16 steps" in caplog.text
    for t in range(K + 2):
        y, state = model.step(x[:, t], state)
        torch.testing.assert_close(y, called[:, t], rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize(
    ("scheme", "says"),
    [("int8/head/dynamic/every6", "a state rounded every 6 steps: a power of two up to 1024"),
     ("int8/head/dynamic/every2048", "a state rounded every 2048 steps: a power of two up to"),
     ("int8/dynamic/every16", "one dynamic scale for all heads of a state rounded every 16 steps"),
     ("int8/group4/dynamic/every16", "scales of groups along a row of a state that is rounded in")],
)  # fmt: skip
def test_chunks_without_a_kernel_say_why(device, scheme, says):
    _, stream, why = _made(device, "mamba2", {"layers.*.state": scheme})
    assert stream is None
    assert f"no kernel of {device} for {says}" in why


@pytest.mark.parametrize(
    ("name", "plan"),
    [("mamba", {"layers.*.state": "int8/head/dynamic/every16"}),
     ("mamba2", {"layers.*.conv_state": "int8/channel/dynamic/every16"}),
     ("mamba2", {"layers.*.state": "int8/head/dynamic/every16", "layers.*.decay": "int8/range1"})],
)  # fmt: skip
def test_others_that_are_kept_in_full_are_refused(device, name, plan):
    _, stream, why = _made(device, name, plan)
    assert stream is None
    assert "no streaming kernel keeps a state in full for 16 steps" in why
