"""Recurrences that read codes of x, B and C: states to the bit, where the numbers are not written.

A model is run launch by launch. What a launch rounds is compared with the reference; numbers that
nothing is to read become NaN; and the recurrence is the reference's of the codes that are left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import nan

import numpy as np
import pytest
import torch
from packed_memory import CONFIGS, ONE, Packed, held, packed, values
from selective import inputs, tiny
from sensprobe_kernels.launch import Launch
from sensprobe_kernels.launch import run as run_launch
from sensprobe_kernels.ops.elementwise import gpu as passing
from sensprobe_kernels.ops.linear import gpu as linear
from sensprobe_kernels.ops.selective_scan import gpu as selective_scan_gpu
from sensprobe_kernels.program.gpu.device import States, Weights
from sensprobe_kernels.program.gpu.run import GpuProgram
from sensprobe_kernels.quantize.gpu import NAN_CODE
from torch import Tensor
from torch.nn import functional as F

from sensprobe.errors import UnsupportedError
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.numerics.storage import Carry
from sensprobe.numerics.taps import rounded
from sensprobe.ops.head_scan import reference as head_scan
from sensprobe.ops.selective_scan import reference as selective_scan

BATCH, EPS = 2, torch.finfo(torch.float32).eps
MODELS = {
    "mamba": CONFIGS["mamba"],
    "mamba2": CONFIGS["mamba2"],
    "groups": Mamba2Config(**ONE, d_state=8, d_head=16, groups=2, expand=4, D_per_channel=True),
    "multiplied": MambaConfig(**(ONE | {"d_model": 24}), dt_rank=8, d_state=8),
}
INTO_CODES = dict.fromkeys(("layers.*.x_proj.dt", "layers.*.x_proj.B", "layers.*.x_proj.C"), "int8")


def plan_of(x: str, B: str, C: str, state: str = "int8/head/dynamic") -> dict[str, str]:
    return {"layers.*.x": x, "layers.*.B": B, "layers.*.C": C, "layers.*.state": state}


@dataclass
class Watched:
    """A program whose launches are seen one by one; `alter` may change a launch's memory before it
    starts. `numbers` are x, B and C as codes say them, or as registers do: (tokens, size)."""

    case: Packed
    device: str
    batch: int
    length: int
    alter: Callable[[Launch], None] = lambda launch: None
    numbers: dict[str, Tensor] = field(default_factory=dict)
    registers: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.made = self.case.stream.program(self.batch * self.length)
        weights = Weights(self.made.program.data, self.device)
        states = States(self.made.program, self.made.fresh.size, self.batch, weights)
        self.program = GpuProgram(self.made.program, self.length, states)

    def run(self, x: Tensor, before: Tensor, t: int) -> Tensor:
        """Bytes of the states after tokens (batch, length, …), from those before."""
        slots = torch.arange(self.batch)
        self.program.states.put(before, slots, t)
        self.program.feed(x.flatten(0, 1))
        self.numbers = {}
        for launch in self.program.launches:
            self.alter(launch)
            if launch.kernel is passing.rounds and launch.constants["NANS"]:
                self._round(launch)
                continue
            if launch.kernel is selective_scan_gpu.scan:
                self._scan(launch)
                continue
            run_launch(launch)
        return self.program.states.get(slots)

    def _round(self, launch: Launch) -> None:
        """Codes times scales are the reference's of the numbers that lay there; those are left
        alone, and then lost, unless something reads them."""
        name = next(n for n in "xBC" if n not in self.numbers and self.coded(n))
        columns, pitch, _, codes_pitch, scales_pitch = launch.args[8:13]
        tokens = self.batch * self.length
        there = launch.args[0][: tokens * pitch].as_strided((tokens, columns), (pitch, 1))
        given, (site, scheme) = there.clone(), self.site(name)
        want = rounded(
            given.cpu().view(tokens, *site.shape),
            scheme,
            site,
            self.case.stream.scales.get(site.name),
            None,
        ).view(tokens, columns)
        run_launch(launch)
        codes = launch.args[4].as_strided((tokens, columns), (codes_pitch, 1)).cpu().float()
        run = launch.constants["run"] or columns
        scales = launch.args[5].as_strided((tokens, columns // run), (scales_pitch, 1)).cpu()
        codes[codes == NAN_CODE.value] = nan
        got = codes * scales.repeat_interleave(run, 1)
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
        if launch.constants["PLAIN"]:
            torch.testing.assert_close(there.cpu(), want, rtol=0, atol=0, equal_nan=True)
        else:
            torch.testing.assert_close(there, given, rtol=0, atol=0, equal_nan=True)
            there.fill_(nan)
        self.numbers[name] = want

    def _scan(self, launch: Launch) -> None:
        names = ("z", "dt", "y", *(("x", "B", "C") if self.is_mamba else ("convolved",)))
        read = {n: self.register(n) for n in names}
        if not self.is_mamba:
            sizes = [self.case.model.config.rows[n] for n in "xBC"]
            read |= dict(zip("xBC", read["convolved"].split(sizes, 1), strict=True))
        self.numbers = {n: read[n] for n in "xBC"} | self.numbers
        run_launch(launch)
        self.registers = read | {"y": self.register("y")}

    def register(self, name: str) -> Tensor:
        return self.program.read(self.made.registers[name]).cpu().clone()

    @property
    def is_mamba(self) -> bool:
        return isinstance(self.case.model.config, MambaConfig)

    def site(self, name: str):
        site = self.case.model.sites[f"layers.0.{name}"]
        return site, self.case.plan.get(site.name)

    def coded(self, name: str) -> bool:
        """As the scan was compiled."""
        (scan,) = self.scans()
        return getattr(scan.constants["runs"], name) >= 0

    def scans(self) -> list[Launch]:
        return [x for x in self.program.launches if x.kernel is selective_scan_gpu.scan]

    def check(self, before: np.ndarray, after: np.ndarray, t: int) -> None:
        """The states are the reference's to the bit, y is within float32 of its."""
        model, L = self.case.model, self.length
        for b in range(self.batch):
            tap, old, new = self.case.tap.at(b), *(
                values(held(m[b], model, self.case.plan)["layers.0.state"], self.case.tap)
                for m in (before, after)
            )  # fmt: skip
            lines = {n: v[b * L : (b + 1) * L][None] for n, v in self.numbers.items()}
            dt, z, y = (self.registers[n][b * L : (b + 1) * L] for n in ("dt", "z", "y"))
            A, D = (tap(model.sites[f"layers.0.{n}"], model.weights[f"layers.0.{n}"]) for n in "AD")
            storage, first = tap.storage(self.site("state")[0]), Carry(old.state[None], None, t)
            if self.is_mamba:
                x, B, C = (lines[n] for n in "xBC")
                want, kept = selective_scan(x, dt[None], A, B, C, None, storage, first)
            else:
                x, B, C = model.parted(torch.cat([lines[n] for n in "xBC"], 2))
                want, kept = head_scan(x, dt[None], A, B, C, None, storage, first)
            torch.testing.assert_close(
                new.state, kept.state.reshape(new.state.shape), rtol=0, atol=0, equal_nan=True
            )
            D = D[:, None] if D.ndim < x.ndim - 2 else D
            want = (want + D * x).reshape(y.shape) * F.silu(z)
            torch.testing.assert_close(
                y, want, rtol=2e-5, atol=2e-5 * want.nan_to_num().abs().max().item(),
                equal_nan=True,
            )  # fmt: skip


def follow(device, name: str, plan, *, length: int = 1, steps: int = 2, batch: int = BATCH):
    """Steps of a model, each checked; the last program, watched."""
    case = packed(tiny(MODELS[name]), plan)
    watched = Watched(case, device, batch, length)
    state = torch.from_numpy(case.stream.start(batch).carry)
    xs = inputs(MODELS[name], batch, steps * length)
    for first in range(0, steps * length, length):
        after = watched.run(xs[:, first : first + length], state, first)
        watched.check(state.numpy(), after.numpy(), first)
        state = after
    return watched


@pytest.mark.parametrize("name", ["mamba", "mamba2", "groups"])
@pytest.mark.parametrize(
    "schemes",
    [("int8/dynamic",) * 3, ("int8/range4",) * 3, ("int4/dynamic",) * 3,
     ("int6/range2/s32", "int8/dynamic/pow2", "int5/range2/pow2/truncate")],
    ids=["live", "static", "few bits", "mixed"],
)  # fmt: skip
def test_states_from_codes_are_the_reference_s(device, name, schemes):
    watched = follow(device, name, plan_of(*schemes))
    (scan,) = watched.scans()
    assert scan.constants["runs"] == (0, 0, 0)
    assert [scan.args[i].dtype for i in (0, 3, 4)] == [torch.int8] * 3
    rounds = [x for x in watched.program.launches if x.kernel is passing.rounds]
    plain = [1, 0, 0] if name == "mamba" else [0, 0, 0]  # x_proj reads numbers
    assert [x.constants["PLAIN"] for x in rounds] == plain


@pytest.mark.parametrize("name", ["mamba", "groups"])
@pytest.mark.parametrize("coded", ["x", "B", "C"])
def test_each_may_be_codes_or_numbers(device, name, coded):
    """The others: rounded with zero points, and not at all."""
    schemes = {"layers.*.x": "int8/asym/dynamic", "layers.*.state": "int4/head/dynamic"}
    watched = follow(device, name, schemes | {f"layers.*.{coded}": "int8/dynamic"})
    (scan,) = watched.scans()
    runs = {n: getattr(scan.constants["runs"], n) for n in "xBC"}
    assert runs == dict.fromkeys("xBC", -1) | {coded: 0}


@pytest.mark.parametrize("name", ["mamba", "mamba2", "groups", "multiplied"])
def test_many_tokens_at_once(device, name):
    """Five, then five more, each state the reference's after as many."""
    plan = plan_of("int8/dynamic", "int8/range4", "int4/dynamic", "int8/head/asym/dynamic")
    follow(device, name, plan | (INTO_CODES if name == "multiplied" else {}), length=5)


@pytest.mark.parametrize("scheme", ["int8/dynamic", "int8/range4"])
@pytest.mark.parametrize("maps", [1, 3])
def test_codes_that_linear_maps_multiply_too(device, scheme, maps):
    """x of a Mamba, read by x_proj: where all of it takes codes, nothing reads numbers."""
    plan = plan_of(scheme, "int8/dynamic", "int8/dynamic", "int8/head/dynamic")
    watched = follow(device, "multiplied", plan | dict([*INTO_CODES.items()][:maps]))
    launches = watched.program.launches
    assert [x.kernel for x in launches].count(linear.gemm_int8) == maps
    assert sum(x.constants.get("PLAIN", 0) for x in launches) == (maps < 3)


def test_live_scales_of_each_head(device):
    """x and B, C of each group of heads: eight or more numbers to a scale."""
    plan = plan_of("int8/head/dynamic", "int8/group8/dynamic", "int8/group8/dynamic")
    watched = follow(device, "groups", plan)
    assert watched.scans()[0].constants["runs"] == (16, 8, 8)


@pytest.mark.parametrize(
    "scheme",
    ["int8/asym/dynamic", "int12/dynamic", "e4m3/dynamic", "int8/hadamard/dynamic",
     "int8/channel/range4", "int8/group4/dynamic"],
)  # fmt: skip
def test_what_stays_in_numbers(device, scheme):
    """Zero points, wide codes, floats, what is taken back, and scales of few numbers."""
    watched = follow(device, "mamba2", plan_of(scheme, "fp32", "fp32"), steps=1)
    assert watched.scans()[0].constants["runs"] == (-1, -1, -1)


def test_activations_rounded_at_random_are_refused():
    case = packed(tiny(MODELS["mamba2"]), plan_of("int8/dynamic/stochastic", "fp32", "fp32"))
    with pytest.raises(UnsupportedError, match="rounds an activation at random"):
        case.stream.program(1)


@pytest.mark.parametrize("scheme", ["int8/dynamic", "int8/range4", "int8/dynamic/pow2"])
def test_NaN_and_infinity_pass_as_the_reference_has_them(device, scheme):
    """One channel of a static scale, all of a live one; a state that is kept in full shows it."""
    case = packed(tiny(MODELS["mamba2"]), plan_of(scheme, scheme, "fp32", "fp32"))

    def alter(launch):
        if launch.kernel is passing.rounds:
            launch.args[0][3], launch.args[0][5] = nan, -torch.inf

    watched = Watched(case, device, 1, 1, alter)
    before = torch.from_numpy(case.stream.start(1).carry)
    after = watched.run(inputs(MODELS["mamba2"], 1, 1), before, 0)
    assert watched.numbers["x"].isnan().any()
    watched.check(before.numpy(), after.numpy(), 0)


def test_this_comparison_can_fail(device):
    """A code of B that is off by one is seen in the state; numbers that are off are not: nothing
    reads them."""
    case = packed(tiny(MODELS["mamba2"]), plan_of(*["int8/dynamic"] * 3, "fp32"))
    off = 1

    def alter(launch):
        if launch.kernel is selective_scan_gpu.scan:
            launch.args[3][2] -= off

    watched = Watched(case, device, BATCH, 1, alter)
    before = torch.from_numpy(case.stream.start(BATCH).carry)
    xs = inputs(MODELS["mamba2"], BATCH, 1)
    after = watched.run(xs, before, 0)
    with pytest.raises(AssertionError):
        watched.check(before.numpy(), after.numpy(), 0)
    off = 0
    after = watched.run(xs, before, 0)
    watched.check(before.numpy(), after.numpy(), 0)
