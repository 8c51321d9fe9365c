"""Linear maps of rounded activations, multiplied as whole numbers inside a step."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from builders import tiny as tiny_s4d
from packed_memory import packed, whole_numbers
from selective import inputs, tiny
from sensprobe_kernels.packing.tensor import SIGNED, Packed
from sensprobe_kernels.program import ir

from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.models.s4d import S4DConfig
from sensprobe.numerics.rounding import min_max, scale_and_zero, spread
from sensprobe.ops.linear import linear_codes
from sensprobe.packed import describe
from sensprobe.plans.sites import Axis

ONE = {"d_input": 3, "d_output": 4, "pooling": "none"}
CONFIGS = {
    "mamba": MambaConfig(**ONE, d_model=24, dt_rank=8, d_state=8),
    "mamba2": Mamba2Config(**ONE, d_model=40, d_state=8, d_head=16, groups=1, expand=2),
    "tokens": MambaConfig(
        d_input=11, d_output=11, d_model=48, encoder="embedding", tied_head=True, head_bias=False,
        pooling="none", dt_rank=8, d_state=16, layers=2,
    ),
    "s4d": S4DConfig(d_input=3, d_output=5, d_model=40, d_state=4, layers=2),
}  # fmt: skip
PAIRS = [
    ("int8/dynamic", "int8/channel"), ("int8/dynamic", "int4/channel"), ("int8/range3", "int8"),
    ("int8/dynamic/s32", "int4/group8"), ("int8/dynamic/pow2", "int8/channel/asym"),
    ("int4/dynamic", "int3/channel"), ("int8/group8/dynamic", "int4/channel/asym"),
    ("int8/group16/dynamic", "int4/group8"), ("int8/range2/truncate", "int2/group8/asym/s32"),
    ("int8/dynamic/hadamard", "int8/channel/hadamard"),
    ("int8/range3/hadamard", "int4/channel/hadamard"),
]  # fmt: skip


def model_of(name):
    config = CONFIGS[name]
    return tiny_s4d(config) if name == "s4d" else tiny(config)


def steps_of(name, batch):
    config = CONFIGS[name]
    if name == "s4d":
        return torch.randn(batch, 3, generator=torch.Generator().manual_seed(1))
    return inputs(config, batch, 1, seed=1)[:, 0]


def maps_of(model) -> dict[str, str]:
    """Linear maps and what they read, but for the encoder: it has too few inputs."""
    return {
        weight: read
        for weight, read, _ in model.products
        if weight != "encoder" and model.sites[weight].axes == (Axis.OUT, Axis.IN)
    }


def case_of(name: str, passing: str, weight: str):
    """All of them rounded, with what they read."""
    model = model_of(name)
    maps = maps_of(model)
    return packed(model, dict.fromkeys(maps.values(), passing) | dict.fromkeys(maps, weight))


def kinds(case) -> Counter:
    return Counter(type(o) for o in case.stream.program(1).program.ops)


@pytest.mark.parametrize(("passing", "weight"), PAIRS)
@pytest.mark.parametrize("name", CONFIGS)
def test_products_inside_a_step_are_the_reference_s(name, passing, weight):
    """From the codes a step made itself, to the bit: the head, and a map in the last layer."""
    case = case_of(name, passing, weight)
    model, made = case.model, case.stream.program(3)
    assert kinds(case)[ir.LinearCodes] == len(maps_of(model))
    case.stream.step(steps_of(name, 3), case.stream.start(3))

    def register(of):
        return torch.from_numpy(made.on_cpu.read(made.registers[of]))

    def reference(weight, read, x):
        site, scheme = model.sites[read], case.plan[read]
        static = case.stream.scales.get(read)
        scale, _ = static or scale_and_zero(scheme, *min_max(x, scheme, site))
        codes = (x / spread(scale, scheme, site)).round()
        torch.testing.assert_close(codes * spread(scale, scheme, site), x, rtol=0, atol=0)
        run = min(scheme.group, x.shape[1]) if scheme.granularity == "group" else x.shape[1]
        q, s, group = whole_numbers(case.stream.weights, weight)
        y = linear_codes(codes, scale.expand(len(x), -1), run, q, s, group)
        bias = model.weights.get(f"{'head' if weight == 'embedding' else weight}.bias")
        return y if bias is None else y + bias.float()

    at = f"layers.{model.config.layers - 1}."
    inner = ("out_proj", "y", "wide") if name == "s4d" else ("in_proj.z", "v", "z")
    for weight_, held, out in ((at + inner[0], *inner[1:]), (head_of(model), "u", "outputs")):
        want = reference(weight_, maps_of(model)[weight_], register(held))
        torch.testing.assert_close(register(out), want, rtol=0, atol=0)


def test_an_encoder_multiplies_the_codes_of_its_input():
    model = tiny(MambaConfig(**ONE | {"d_input": 8}, d_model=24, dt_rank=8, d_state=8))
    case = packed(model, {"input": "int8/dynamic", "encoder": "int4/channel"})
    assert kinds(case)[ir.LinearCodes] == 1
    x = inputs(model.config, 4, 1, seed=1)[:, 0]
    (got, _), (want, _) = case.step(x, case.stream.start(4), model.start(4, case.tap))
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5 * want.abs().max().item())


def head_of(model) -> str:
    return "embedding" if "head" not in model.sites else "head"


@pytest.mark.parametrize(("passing", "weight"), PAIRS)
@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_are_those_of_the_simulation(name, passing, weight):
    """One step from rest: codes may flip where float32 sums differ by their order, which costs less
    than rounding does; integer sums add nothing."""
    case, x = case_of(name, passing, weight), steps_of(name, 4)
    (got, _), (want, _) = case.step(x, case.stream.start(4), case.model.start(4, case.tap))
    with torch.no_grad():
        exact, _ = case.model.step(x, case.model.start(4))
    damage = (want - exact).abs().max().item()
    assert (got - want).abs().max().item() < damage / 2
    assert (got - want).abs().median().item() < 1e-5


@pytest.mark.parametrize(
    ("passing", "weight", "kind"),
    [
        ("int8/dynamic", "int8/channel", ir.LinearCodes),
        ("int8/asym/dynamic", "int8/channel", ir.Linear),
        ("int12/dynamic", "int8/channel", ir.Linear),
        ("e4m3/dynamic", "int8/channel", ir.Linear),
        ("int8/dynamic", "e4m3/channel", ir.Linear),
        ("int8/dynamic", "int6/channel", ir.Linear),
        ("int8/dynamic/hadamard", "int8/channel", ir.Linear),
        ("int8/dynamic", "int8/channel/hadamard", ir.Linear),
        ("int8/group16/dynamic", "int4/group24", ir.Linear),
    ],
)
def test_what_has_no_whole_numbers_in_common_is_multiplied_as_it_was(passing, weight, kind):
    model = model_of("mamba")
    maps = {w: read for w, read in maps_of(model).items() if "out_proj" in w}
    case = packed(model, dict.fromkeys(maps.values(), passing) | dict.fromkeys(maps, weight))
    free = packed(model, {})
    before, after = kinds(free), kinds(case)
    assert after[ir.LinearCodes] == (kind is ir.LinearCodes)
    assert before[ir.Linear] - after[ir.Linear] == (kind is ir.LinearCodes)


def test_sums_that_may_leave_int32_are_not_made():
    """At most 132,104 columns of int8 in one sum; more of them in groups."""

    def matrix(columns: int, group: int, bits: int = 8) -> Packed:
        return Packed(0, bits, SIGNED, 4, columns, 0, 0, -1, columns // group, group, 0, 0, 1)

    limit = (2**31 - 1) // (128 * 127)
    assert limit == 132_104
    for columns, fits in ((limit, True), (limit + 1, False)):
        assert describe.multiplies(matrix(columns, columns), None, 127, columns) is fits
    assert describe.multiplies(matrix(2**20, 2**10), None, 127, 2**20)
    assert describe.multiplies(matrix(2**20, 2**20, 4), None, 127, 2**20)
    far = torch.tensor([0, 30_000])
    assert not describe.multiplies(matrix(2**10, 2**10), far, 127, 2**10)
    assert describe.multiplies(matrix(2**9, 2**9), far, 127, 2**9)


@pytest.mark.parametrize(
    ("part", "weights", "readers"),
    [("B", (), ir.SCANNED), ("C", ("x_proj.dt",), ir.SCANNED), ("x", (), ir.SCANNED | ir.PLAIN),
     ("x", ("x_proj.dt", "x_proj.B", "x_proj.C"), ir.SCANNED | ir.MULTIPLIED),
     ("x", ("x_proj.dt",), ir.SCANNED | ir.MULTIPLIED | ir.PLAIN)],
)  # fmt: skip
def test_codes_that_a_recurrence_alone_reads_are_not_made_here(part, weights, readers):
    """The row says who reads them and where the recurrence finds them, for kernels that do."""
    plan = {f"layers.*.{name}": "int8/channel" for name in weights}
    case = packed(model_of("mamba"), plan | {f"layers.*.{part}": "int8/dynamic"})
    runs = case.stream.program(2).on_cpu
    ops = runs.program.ops
    (rounds,) = (o for o in ops if isinstance(o, ir.Round))
    (scan,) = (o for o in ops if isinstance(o, ir.Channels))
    size = case.model.sites[f"layers.0.{part}"].reals
    told = {"x": scan.x_codes, "B": scan.B_codes, "C": scan.C_codes}
    want = dict.fromkeys("xBC", ir.NO_CODES) | {part: rounds.kept}
    assert (rounds.readers, rounds.kept.run, told) == (readers, size, want)
    codes, pitch, _ = rounds.kept.codes
    runs.codes[:] = 99
    case.stream.step(steps_of("mamba", 2), case.stream.start(2))
    made = runs.codes[codes : codes + 2 * pitch].reshape(2, pitch)[:, :size] != 99
    assert made.any() == bool(readers & ir.MULTIPLIED)


def test_an_input_that_no_code_stands_for():
    """NaN is 0 under a static scale; a dynamic scale is NaN, and so is what it scales."""
    x = torch.full((1, 3), torch.nan)
    for scheme, nan in (("int8/range3", False), ("int8/dynamic", True)):
        model = model_of("mamba")
        case = packed(model, {"head_in": scheme, "head": "int8/channel"})
        got, _ = case.stream.step(x, case.stream.start(1))
        assert got.isnan().all() == nan
