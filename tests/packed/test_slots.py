"""A packed state as a pool: steps of any of its sequences, in any order, as if each ran alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import tiny as tiny_s4d
from builders import vector
from packed_memory import packed
from selective import inputs, tiny

from sensprobe import load
from sensprobe.errors import DataError, UnsupportedError
from sensprobe.export import export_model
from sensprobe.models.apply import Applier
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.models.s4d import S4DConfig
from sensprobe.session.plans import as_plan
from sensprobe.session.source import open_model as source_of

CONFIGS = {
    "mamba": MambaConfig(
        d_input=11, d_output=11, d_model=16, encoder="embedding", tied_head=True, head_bias=False,
        pooling="none", dt_rank=2, d_state=16, layers=2,
    ),
    "mamba2": Mamba2Config(
        d_input=3, d_output=4, d_model=16, d_state=4, d_head=16, groups=2, layers=2, pooling="mean"
    ),
    "s4d": S4DConfig(d_input=3, d_output=4, d_model=6, d_state=4, layers=2),
}  # fmt: skip
PLANS = {
    "mamba": {
        "layers.*.state": "int8/head/asym/dynamic", "layers.*.conv_state": "int4/channel/dynamic",
        "layers.*.out_proj": "int8/channel", "layers.*.out_proj_in": "int8/dynamic",
    },
    "mamba2": {"layers.*.state": "int8/head/dynamic/feedback"},
    "s4d": {
        "layers.*.state": "int8/head/dynamic/feedback",
        "layers.*.out_proj_in": "int8/dynamic/hadamard",
    },
}  # fmt: skip
CAPACITY, LENGTH = 5, 7


def case_of(name: str, plan: dict[str, str] | None = None):
    """A stream, and what seven sequences would say: (sequences, length, …)."""
    config = CONFIGS[name]
    if name == "s4d":
        model, x = tiny_s4d(config), vector(7, LENGTH, config.d_input, dtype=torch.float32)
    else:
        model, x = tiny(config), inputs(config, 7, LENGTH)
    return packed(model, PLANS[name] if plan is None else plan).stream, x


def alone(stream, x):
    """Outputs and the state after every step of one sequence."""
    state, found = stream.start(1), []
    for one in x:
        out, state = stream.step(one[None], state)
        found.append((out[0], state.carry[0], state.sums[0]))
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_sequences_that_come_and_go_run_as_if_alone(name):
    """Seven sequences in five slots, each step some of them in any order, to the bit."""
    stream, x = case_of(name)
    want = [alone(stream, one) for one in x]
    pool, chance = stream.start(CAPACITY), np.random.default_rng(0)
    seated, waiting = dict(enumerate(range(CAPACITY))), [5, 6]  # slot -> sequence
    taken, sizes = dict.fromkeys(range(7), 0), set()
    while seated:
        slots = chance.permutation(list(seated))[: chance.integers(1, len(seated) + 1)]
        sizes.add(len(slots))
        given = torch.stack([x[seated[s], taken[seated[s]]] for s in slots])
        before = pool.carry.copy()
        out, pool = stream.advance(given, pool, slots=slots)
        others = [s for s in range(CAPACITY) if s not in slots]
        np.testing.assert_array_equal(pool.carry[others], before[others])
        for y, slot in zip(out, slots, strict=True):
            sequence = seated[slot]
            output, memory, sums = want[sequence][taken[sequence]]
            torch.testing.assert_close(y, output, rtol=0, atol=0)
            np.testing.assert_array_equal(pool.carry[slot], memory)
            np.testing.assert_array_equal(pool.sums[slot], sums)
            taken[sequence] += 1
            if taken[sequence] == LENGTH:
                del seated[slot]
                if waiting:
                    stream.restart(pool, [slot])
                    seated[slot] = waiting.pop()
    assert set(taken.values()) == {LENGTH}
    assert len(sizes) > 2


@pytest.mark.parametrize("name", ["mamba", "s4d"])
def test_random_rounding_draws_by_slot_and_step(name):
    """So a batch stepped in parts and out of order is the batch stepped at once."""
    stream, x = case_of(name, {"layers.*.state": "int8/head/dynamic/stochastic"})
    whole, parts = stream.start(CAPACITY), stream.start(CAPACITY)
    for t in range(3):
        want, whole = stream.step(x[:CAPACITY, t], whole)
        for slots in ([4, 1], [0, 3, 2]):
            got, parts = stream.advance(x[slots, t], parts, slots=slots)
            torch.testing.assert_close(got, want[slots], rtol=0, atol=0)
    np.testing.assert_array_equal(parts.carry, whole.carry)


@pytest.mark.parametrize(
    ("slots", "why"),
    [
        ([0, 5], r"slot 5 is out of range: the state has slots 0 to 4"),
        ([-1, 2], r"slot -1 is out of range"),
        ([3, 3], r"slot 3 is named twice"),
        ([1], r"a step of 2 sequence\(s\) for 1 slot\(s\)"),
        ([0.0, 1.0], r"whole numbers"),
        ([[0, 1]], r"whole numbers"),
        ([True, False], r"whole numbers"),
    ],
)
def test_slots_that_are_not_there(slots, why):
    """Nothing is written before they are checked."""
    stream, x = case_of("mamba")
    pool = stream.start(CAPACITY)
    before = pool.carry.copy()
    with pytest.raises(DataError, match=why):
        stream.advance(x[:2, 0], pool, slots=slots)
    if len(np.ravel(slots)) == 2:
        with pytest.raises(DataError, match=why):
            stream.restart(pool, slots)
    np.testing.assert_array_equal(pool.carry, before)
    assert not pool.steps.any()


def test_no_slots_is_no_step():
    stream, x = case_of("mamba2")
    pool = stream.start(CAPACITY)
    out, _ = stream.advance(x[:0, 0], pool, slots=[])
    assert out.shape == (0, 4)


def test_a_loaded_model_serves_slots(tmp_path):
    model = source_of("mamba-bytes").model
    plan = {"layers.0.state": "int8/head/dynamic"}
    chosen = as_plan(plan, model).resolve(model.sites.values())
    export_model(model, chosen, Applier(model), tmp_path / "out", name="served")
    served = load(tmp_path / "out")
    pool = served.start(4)
    assert (pool.slots, pool.bytes) == (4, served.cost(4).state_bytes)
    text, state = torch.tensor(list(b"slots")), served.start()
    for token in text:
        want, state = served.step(token[None], state)
        out, pool = served.advance(torch.stack([token, text[0]]), pool, slots=torch.tensor([2, 0]))
        torch.testing.assert_close(out[:1], want, rtol=0, atol=0)
    served.restart(pool, [2])
    first, _ = served.step(text[:1], served.start())
    out, _ = served.advance(text[:1], pool, slots=[2])
    torch.testing.assert_close(out, first, rtol=0, atol=0)
    simulated = load("mamba-bytes")
    for call in (
        lambda: simulated.advance(text[:1], simulated.start(), slots=[0]),
        lambda: simulated.restart(simulated.start(), [0]),
    ):
        with pytest.raises(UnsupportedError, match="only packed states have slots"):
            call()
