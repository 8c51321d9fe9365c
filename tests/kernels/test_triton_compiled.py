"""Triton kernels compiled ahead of time for GPUs that need not be there, and the PTX read.

Every launch of a step of models shaped as published ones compiles for sm_80 and sm_90, spills no
register and contracts no product with a sum.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest
from builders import tiny as s4d
from mimo import tiny as s5
from packed_memory import packed
from selective import tiny

from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.models.s4d import S4DConfig
from sensprobe.models.s5 import S5Config
from sensprobe.packed.compile import compiled

pytest.importorskip("triton", reason="Triton is there for Linux only")

from sensprobe_kernels.launch import Launch, assembly
from sensprobe_kernels.ops.elementwise import gpu as passing
from sensprobe_kernels.ops.head_chunks import gpu as head_chunks
from sensprobe_kernels.ops.linear import gpu as linear
from sensprobe_kernels.ops.selective_scan import gpu as selective_scan
from sensprobe_kernels.program.gpu.device import States, Weights
from sensprobe_kernels.program.gpu.run import GpuProgram

TOKENS = {"d_input": 512, "d_output": 512, "d_model": 512, "encoder": "embedding", "layers": 1}
TOKENS |= {"tied_head": True, "head_bias": False, "pooling": "none"}
CONFIGS = {
    "mamba": MambaConfig(**TOKENS, dt_rank=32, d_state=16),
    "mamba2": Mamba2Config(**TOKENS, d_state=128, d_head=64),
    "s4d": S4DConfig(
        d_input=1, d_output=10, d_model=64, d_state=64, layers=1, head="linear 64, relu, linear"
    ),
    "pruned": S4DConfig(d_input=1, d_output=10, d_model=6, d_state=64, kernels="0 2 3 5"),
    "s5": S5Config(d_input=1, d_output=10, d_model=96, d_state=64, norm_kind="affine"),
    "s5 product": S5Config(
        d_input=1, d_output=10, d_model=96, d_state=64, norm_kind="layer-product"
    ),
}
PLANS = {
    "int4": {"layers.*.in_proj.?": "int4/group128", "layers.*.out_proj": "int4/group32",
             "embedding": "int8/channel", "layers.*.state": "int8/head/dynamic",
             "layers.*.conv_state": "int8/channel/dynamic", "layers.*.in_proj_in": "int8/dynamic"},
    "int8": {"layers.*.in_proj.?": "int8/channel", "layers.*.out_proj": "int8/channel",
             "layers.*.state": "int8/head/dynamic/stochastic", "layers.*.conv_state": "int4/range4",
             "layers.*.norm": "int8", "layers.*.A": "int8", "layers.*.y": "int8/range8"},
    "few": {"layers.*.in_proj.?": "int3/group128", "layers.*.out_proj": "int2/channel",
            "layers.*.state": "e4m3/head/dynamic", "layers.*.conv_state": "fp16",
            "layers.*.in_proj_in": "e4m3/dynamic"},
    "heads": {"layers.*.state": "int8/head/asym/parts/dynamic",
              "layers.*.out_proj": "int4/channel"},
    "whole": {"layers.*.state": "int4/dynamic", "layers.*.A": "int8/head/asym/parts"},
    "codes": {"layers.*.in_proj_in": "int8/dynamic", "layers.*.in_proj.?": "int8/channel",
              "layers.*.out_proj_in": "int8/hadamard/dynamic",
              "layers.*.out_proj": "int4/channel/hadamard"},
    "scanned": {"layers.*.x": "int8/dynamic", "layers.*.B": "int8/dynamic",
                "layers.*.C": "int8/dynamic", "layers.*.state": "int8/head/dynamic"},
    "static": {"layers.*.x": "int8/range4", "layers.*.B": "int8/range4",
               "layers.*.C": "int4/range4", "layers.*.state": "int4/head/dynamic/feedback"},
    "multiplied": {"layers.*.x": "int8/dynamic", "layers.*.x_proj.*": "int8/channel",
                   "layers.*.B": "int8/dynamic"},
    "drawn": {"layers.*.decay": "int8/head/dynamic/stochastic"},
    "random": {"layers.*.state": "int4/head/dynamic/stochastic"},
    "odd": {"layers.*.state": "int8/head/asym/dynamic/feedback"},
    "groups": {"layers.*.state": "int8/group16/asym/parts/dynamic/feedback/clip50"},
    "rows": {"layers.*.state": "int8/group32/asym/dynamic/feedback"},
    "known": {"layers.*.state": "int8/group32/range4"},
    "all": {"layers.*.state": "int8/asym/parts/dynamic/feedback"},
    "polar": {"*.A": "logpolar(m2,p8)/head", "*.B": "polar(m3,p7)/s32",
              "layers.*.state": "int7/head/dynamic"},
    "factors": {"layers.*.norm_in": "int8/dynamic", "layers.*.norm_factor": "int8/range4"},
    "pairs": {"layers.*.state": "int3/group16/dynamic/stochastic"},
}  # fmt: skip
CASES = [(name, plan, 1) for name in ("mamba", "mamba2") for plan in ("int4", "int8", "few", "odd")]
CASES += [("s4d", "heads", 1), ("s4d", "whole", 1), ("mamba2", "codes", 1)]
CASES += [("mamba", "int8", 32), ("mamba2", "int4", 32), ("mamba2", "random", 1)]
CASES += [("mamba", "drawn", 1), ("mamba", "scanned", 1), ("mamba2", "scanned", 1)]
CASES += [("mamba", "multiplied", 32), ("mamba2", "static", 1)]
CASES += [("mamba2", "rows", 1), ("mamba2", "known", 1)]
CASES += [("s5", "heads", 1), ("s5", "random", 1), ("pruned", "heads", 1)]
CASES += [("s5 product", "factors", 1)]
CASES += [("s4d", plan, 1) for plan in ("random", "odd", "groups", "all", "pairs", "polar")]


@cache
def launches(name: str, plan: str, batch: int, length: int = 1) -> tuple[Launch, ...]:
    """Of a step of one layer, or of so many tokens."""
    makers = {"s4d": s4d, "pruned": s4d, "s5": s5, "s5 product": s5}
    model = makers.get(name, tiny)(CONFIGS[name])
    case = packed(model, PLANS[plan])
    made = case.stream.program(batch * length)
    weights = Weights(made.program.data, "cpu")
    states = States(made.program, made.fresh.size, batch, weights)
    return tuple(GpuProgram(made.program, length, states).launches)


def found(name: str, plan: str, batch: int, kernel: object) -> list[Launch]:
    return [x for x in launches(name, plan, batch) if x.kernel is kernel]


def instructions(ptx: str) -> Counter[str]:
    """How often each occurs."""
    lines = (re.sub(r"^@!?%p\d+\s+", "", line.strip()) for line in ptx.splitlines())
    return Counter(line.split()[0].rstrip(";") for line in lines if line and line[0].isalpha())


def unlike(given: tuple[Launch, ...]) -> list[Launch]:
    """Those that are compiled for different things."""
    kinds = {(x.kernel.__name__, repr(sorted(x.constants.items(), key=str))): x for x in given}
    return list(kinds.values())


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("name", "plan", "batch"), CASES)
def test_every_launch_compiles_and_keeps_to_its_registers(name, plan, batch, capability):
    for launch in unlike(launches(name, plan, batch)):
        made = assembly(launch, capability)
        label = (launch.kernel.__name__, dict(launch.constants))
        assert made.spilled_bytes == 0, label
        seen = instructions(made.ptx)
        contracted = [i for i in seen if re.match(r"fma\.rn(\.ftz)?\.f(32|64)", i)]
        assert not contracted or launch.constants.get("T"), label  # sums of products in any order
        assert not any(re.match(r"(div|sqrt|rcp)\.(full|approx)", i) for i in seen), label


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("mamba", "int8"),
        ("mamba2", "int4"),
        ("mamba2", "few"),
        ("mamba2", "odd"),
        ("s4d", "heads"),
        ("mamba", "scanned"),
        ("mamba2", "scanned"),
    ],
)
def test_recurrences_over_many_tokens_keep_to_their_registers(name, plan, capability):
    """A prefill. (States of int4 rounded at random, 64 × 128 of them with one scale, spill 84 bytes
    a thread for sm_90: Philox's counters take what registers there are.)"""
    scans = [x for x in launches(name, plan, 1, 64) if x.kernel.__name__ in ("scan", "convolve")]
    assert scans
    for launch in unlike(tuple(scans)):
        made = assembly(launch, capability)
        assert made.spilled_bytes == 0, (launch.kernel.__name__, dict(launch.constants))


@pytest.mark.parametrize("bits", ["int4", "int8"])
def test_weights_of_products_come_sixteen_bytes_at_a_time(bits):
    for launch in found("mamba2", bits, 1, linear.gemv):
        seen = instructions(assembly(launch, 90).ptx)
        narrow = sum(n for i, n in seen.items() if i.startswith("ld.global") and "v" not in i)
        assert seen["ld.global.v4.b32"], launch.constants
        assert narrow <= 2, (seen, launch.constants)  # the scales


def test_products_of_many_vectors_use_tensor_cores():
    given = [x for x in found("mamba2", "int4", 32, linear.gemm) if x.constants["c"].bits < 16]
    assert given
    for launch in given:
        seen = instructions(assembly(launch, 90).ptx)
        assert any(i.startswith("mma.sync") and "bf16" in i for i in seen), seen


def test_products_of_whole_numbers_use_int8_tensor_cores():
    given = found("mamba2", "codes", 1, linear.gemm_int8)
    assert {x.constants["c"].bits for x in given} == {4, 8}
    for launch in given:
        for capability in (80, 90):
            seen = instructions(assembly(launch, capability).ptx)
            assert any(i.startswith("mma.sync") and ".s32.s8.s8.s32" in i for i in seen), seen


@pytest.mark.parametrize(
    ("base", "power", "columns"),
    [
        (12, 64, 768),
        pytest.param(20, 128, 2560, marks=pytest.mark.thorough),
        pytest.param(20, 256, 5120, marks=pytest.mark.thorough),
    ],
)
def test_transforms_of_the_widths_of_published_models_compile(base, power, columns):
    """Paley's matrices, taken back after rounding."""
    (plain,) = [x for x in found("mamba2", "codes", 1, passing.rounds) if x.constants["LOG"]]
    B = 32 if base > 16 else 16
    constants = {"base": base, "B": B, "P": power, "LOG": power.bit_length() - 1, "BACK": 1}
    constants["M"] = B * columns // (base * power)
    made = assembly(plain._replace(constants={**plain.constants, **constants}, warps=8), 90)
    assert made.spilled_bytes == 0
    assert not [i for i in instructions(made.ptx) if i.startswith("fma.rn.f32")]


@pytest.mark.parametrize("run", [0, 128])
@pytest.mark.parametrize("columns", [768, 2560, 5120])
def test_norms_of_the_widths_of_published_models_compile(columns, run):
    """Rounded by one dynamic scale, or by one of every 128 columns."""
    (plain,) = [x for x in found("mamba2", "few", 1, passing.norm) if x.constants["r"].span]
    W = 1 << (columns - 1).bit_length()
    made = assembly(plain._replace(constants={**plain.constants, "W": W, "run": run}, warps=8), 90)
    assert made.spilled_bytes == 0


def test_packed_states_come_and_go_in_wide_words():
    (launch,) = found("mamba2", "int4", 1, selective_scan.scan)
    seen = instructions(assembly(launch, 90).ptx)
    assert seen["ld.global.v4.b32"] or seen["ld.global.v2.b32"], seen
    assert seen["st.global.v4.b32"] or seen["st.global.v2.b32"], seen


@pytest.mark.parametrize("length", [1, 64])
@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_codes_of_B_and_C_come_sixteen_at_a_time(name, length):
    """One load of each, where numbers take four."""
    loads = {}
    for plan in ("int4", "scanned"):
        (launch,) = found(name, plan, 1, selective_scan.scan)
        assert launch.constants["runs"] == ((0, 0, 0) if plan == "scanned" else (-1, -1, -1))
        names = [n for n in launch.kernel.arg_names if n not in launch.constants]
        given = dict(zip(names, launch.args, strict=True)) | {"length": length}
        launch = launch._replace(args=tuple(given.values()))
        loads[plan] = instructions(assembly(launch, 90).ptx)["ld.global.v4.b32"]
    assert loads["scanned"] == loads["int4"] - 2 * (4 - 1)


CHUNKED = [
    "int8/head/dynamic", "int8/head/asym/dynamic/feedback", "int4/head/dynamic/stochastic",
    "e4m3/channel/dynamic/truncate", "int8/head/range2/clip1", "int6/head/dynamic",
]  # fmt: skip


@cache
def chunks(scheme: str) -> Launch:
    """Of a piece of 64 tokens, the state (64, 128) a head stored at its end."""
    case = packed(tiny(CONFIGS["mamba2"]), {"layers.*.state": f"{scheme}/every64"})
    made = compiled(case.model, case.stream.weights, case.stream.weights.scales(), 64)
    states = States(made.program, made.fresh.size, 1, Weights(made.program.data, "cpu"))
    launches = GpuProgram(made.program, 64, states).launches
    (found,) = [x for x in launches if x.kernel is head_chunks.chunks]
    return found


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("scheme", CHUNKED)
def test_chunks_of_mamba2_use_tensor_cores_and_keep_to_their_registers(scheme, capability):
    """Products are three of TF32 numbers, the larger half rounded to nearest; what is rounded for
    memory is no part of them, so nothing is contracted."""
    made = assembly(chunks(scheme), capability)
    assert made.spilled_bytes == 0
    seen = instructions(made.ptx)
    products = [i for i in seen if "mma" in i]
    assert products
    assert all("f32.tf32.tf32.f32" in i for i in products), products
    assert any(i.startswith("cvt.rna.tf32.f32") for i in seen)
    assert not [i for i in seen if re.match(r"fma\.rn(\.ftz)?\.f(32|64)", i)]
    assert not [i for i in seen if re.match(r"(div|sqrt|rcp)\.(full|approx)", i)]


def test_these_readings_can_fail():
    """A product and a sum that may be contracted are, and PTX shows it."""
    (launch, *_) = found("mamba2", "int8", 1, linear.gemv)
    made = assembly(launch, 90, fuse=True)
    assert any(i.startswith("fma.rn") for i in instructions(made.ptx))
