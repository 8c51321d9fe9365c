"""What `sensprobe bench MODEL` counts and times: bytes by kind, the clock inside a step, rounds."""

from __future__ import annotations

from types import SimpleNamespace

import builders
import numpy as np
import pytest
import torch
from packed_memory import CONFIGS, packed
from selective import inputs, tiny
from sensprobe_kernels.program import ir

from sensprobe.models.mamba import MambaConfig
from sensprobe.models.torch_step import torch_model
from sensprobe.packed import bench_rounds
from sensprobe.packed.bench_inside import inside
from sensprobe.packed.bench_rounds import Rounds, calls, middle, told
from sensprobe.packed.bench_work import KIND_OF, bytes_by_kind
from sensprobe.plans.cost import cost

PLANS = [
    {},
    {"layers.*.in_proj.*": "int4/group4", "layers.*.state": "int8/head/asym/dynamic"},
    {
        "layers.*.out_proj": "int8/channel/asym/hadamard",
        "layers.*.out_proj_in": "int8/hadamard/dynamic",
        "layers.*.in_proj_in": "int8/range2",
        "layers.*.conv_state": "int8/channel/range2",
    },
]


@pytest.mark.parametrize("name", ["mamba2", "groups", "bare"])
@pytest.mark.parametrize("plan", PLANS, ids=["exact", "state", "rotated"])
def test_weights_move_once_a_step_and_states_twice_a_sequence(name, plan):
    """A step moves what the plan weighs, and for every sequence as much again."""
    case = packed(tiny(CONFIGS[name]), plan)
    moved = [
        sum(bytes_by_kind(case.stream.program(batch), case.stream.weights).values())
        for batch in (1, 2, 5)
    ]
    each = moved[1] - moved[0]
    assert moved[2] - moved[0] == 4 * each
    told_cost = cost(case.model.sites.values(), case.plan)
    assert moved[0] - each == told_cost.weight_bytes
    assert each > 2 * told_cost.state_bytes


def test_a_row_of_an_embedding_is_read_and_a_tied_head_whole():
    """The embedding's 11 rows are read as the head's, and one of them as a token's."""
    case = packed(tiny(CONFIGS["tokens"]), {"embedding": "int8/channel"})
    moved = bytes_by_kind(case.stream.program(2), case.stream.weights)
    assert moved["embedding"] == 2 * (16 + 2 + 4 * 16)
    exact = packed(tiny(CONFIGS["tokens"]), {})
    float32 = bytes_by_kind(exact.stream.program(2), exact.stream.weights)
    assert float32["products"] - moved["products"] == 11 * (4 * 16 - 16 - 2)


def test_codes_are_two_bytes_here_and_one_on_a_gpu():
    plan = {"layers.*.in_proj.*": "int8/channel", "layers.*.in_proj_in": "int8/dynamic"}
    case = packed(tiny(CONFIGS["mamba"]), plan)
    made = case.stream.program(3)
    products = [o for o in made.program.ops if isinstance(o, ir.LinearCodes)]
    assert len(products) == 2
    here, there = (bytes_by_kind(made, case.stream.weights, code_bytes=n) for n in (2, 1))
    assert here["products"] - there["products"] == 2 * 3 * 8
    assert here["rounding"] - there["rounding"] == 3 * 8


def test_every_operation_of_a_step_has_a_kind():
    """But for CHUNKS, of whole sequences."""
    assert set(ir.OPERATIONS) - {ir.Chunks} == set(KIND_OF)


def test_the_clock_goes_forward_and_changes_nothing():
    """A step that is timed leaves the numbers of one that is not."""
    case = packed(tiny(CONFIGS["tokens"]), {"layers.*.state": "int8/head/dynamic"})
    made, x = case.stream.program(2), inputs(CONFIGS["tokens"], 2, 1)[:, 0]
    found = []
    for timed in (False, True):
        state = case.stream.start(2)
        clock = np.zeros(len(made.program.ops) + 1 if timed else 0, np.int64)
        made.on_cpu.run(
            state.carry, np.zeros(0, np.float32), x.numpy(), state.sums.reshape(-1), state.steps,
            np.arange(2), clock=clock,
        )  # fmt: skip
        found.append((state.carry.tobytes(), made.on_cpu.read(made.outputs).tobytes()))
    assert found[0] == found[1]
    assert clock[0] > 0
    assert (np.diff(clock) >= 0).all()


def test_what_is_inside_a_step_is_its_kinds_and_no_more_than_the_step(monkeypatch):
    """The sum of the kinds is most of a step whose products are large, and not above it."""
    monkeypatch.setattr(bench_rounds, "ROUNDS", 7)
    config = MambaConfig(
        d_input=3, d_output=4, d_model=256, pooling="none", dt_rank=3, d_state=16, layers=2
    )
    case = packed(tiny(config), {})
    x, state = inputs(config, 1, 1)[:, 0], case.stream.start(1)
    whole = calls("step", lambda: case.stream.advance(x, state))
    rounds = Rounds([[whole, inside("in", case.stream, x)]])
    rounds.run(lambda: None)
    kinds = bytes_by_kind(case.stream.program(1), case.stream.weights)
    parts = sum(rounds.values(f"in {kind}") for kind in kinds)
    share = told(parts / rounds.values("step"))
    assert 0.3 < share.value < 1.1


def test_a_median_has_the_error_of_its_quartiles():
    """The standard error of the median of a normal sample, which a stray value does not move."""
    sample = np.random.default_rng(0).normal(10, 2, 20_000)
    found = told(sample)
    assert found.value == pytest.approx(10, abs=0.1)
    assert found.stderr == pytest.approx(2 * np.sqrt(np.pi / 2 / 20_000), rel=0.03)
    strayed = told([*sample, 1e9])
    assert strayed.stderr == pytest.approx(found.stderr, rel=0.01)
    assert middle([1.0, 2.0, 3.0, 1000.0]) == 2.5


def test_slow_things_are_timed_in_fewer_rounds_and_together(monkeypatch):
    """By a clock that only the subjects move: a stall of the machine would change the rounds."""
    monkeypatch.setattr(bench_rounds, "LEAST_SECONDS", 1e-4)
    monkeypatch.setattr(bench_rounds, "LONGEST_SECONDS", 0.01)
    now = [0.0]
    monkeypatch.setattr(bench_rounds, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def taking(seconds):
        def run():
            now[0] += seconds

        return run

    told_of = []
    slow = [calls("a", taking(1e-6)), calls("b", taking(0.004))]
    rounds = Rounds([[calls("fast", taking(1e-6))], slow])
    rounds.run(lambda: told_of.append(1))
    assert len(told_of) == bench_rounds.ROUNDS
    assert len(rounds.values("fast")) == bench_rounds.ROUNDS
    assert len(rounds.values("a")) == len(rounds.values("b")) == bench_rounds.FEWEST


@pytest.mark.parametrize("name", ["mamba", "mamba2", "groups", "bare", "s4d"])
def test_the_step_in_pytorch_alone_is_the_models(name):
    """To float32's precision: sums have another order, and the exponential is PyTorch's."""
    model = builders.tiny() if name == "s4d" else tiny(CONFIGS[name])
    xs = torch.randn(2, 4, model.config.d_input, generator=torch.Generator().manual_seed(0))
    mine, state, own = torch_model(model), model.start(2), model.start(2)
    for x in xs.unbind(1):
        got, own = mine.step(x, own)
        want, state = model.step(x, state)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
