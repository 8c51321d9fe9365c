"""Layers that are recomputed, and the RAM that a step of training takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import selective
import torch
from tiny_models import CONFIGS
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from sensprobe.checkpoints.own import build
from sensprobe.models import family_of
from sensprobe.models.forward import Layer, one_layer
from sensprobe.plans.plan import Plan, parse_setting
from sensprobe.train.ram import SHARE, StepBytes, recomputed, step_bytes
from sensprobe.train.under import UnderPlan

CASES = {
    "S4D": (CONFIGS["two, post-norm"], "*.A=polar(m3,p7) *.state=int6/head/dynamic *.x=int8"),
    "Mamba": (
        selective.MAMBAS["tokens"],
        "weights=int4 *.state=int4/dynamic/stochastic *.decay=int8 *.conv_state=int4/dynamic",
    ),
    "Mamba, exact conv": (selective.MAMBAS["deep"], "*.state=int6/feedback *.y=int4/stochastic"),
    "Mamba-2": (selective.MAMBA2S["groups"], "weights=int3 *.state=int4/head/dynamic/every2"),
}
cases = pytest.mark.parametrize("name", CASES)


def inputs(config: Any, count: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    if config.encoder == "embedding":
        return torch.randint(config.d_input, (count, 13), generator=g)
    return torch.randn(count, 13, config.d_input, generator=g)


def losses(name: str) -> tuple[Callable[[Layer, int], Tensor], dict[str, Tensor]]:
    """The loss of n sequences whose layers are run in some way, and the parameters it is of."""
    config, words = CASES[name]
    params = family_of(config).initial(config, (0.01, 0.1), 3)
    model = build(params, config, "here")  # type: ignore[arg-type]
    plan = Plan(tuple(map(parse_setting, words.split()))).resolve(model.sites.values())
    leaves = {n: p.clone().requires_grad_() for n, p in params.items()}

    def loss(layer: Layer, n: int) -> Tensor:
        under = UnderPlan(plan, config, inputs(config, 4), layer=layer)
        return under.outputs(leaves, inputs(config, n), 5).square().sum()

    return loss, leaves


@cases
def test_recomputed_layers_give_the_same_gradients_to_the_bit(name: str) -> None:
    loss, leaves = losses(name)
    wanted, found = (
        torch.autograd.grad(loss(layer, 3), leaves.values()) for layer in (one_layer, recomputed)
    )
    assert all(map(torch.equal, found, wanted))
    assert any(g.abs().max() > 0 for g in wanted)


def held(loss: Callable[[Layer, int], Tensor], layer: Layer, n: int) -> int:
    """Bytes of the distinct tensors that a graph saves, all of them held at once."""
    saved: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        saved.append(x)
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        loss(layer, n)
    sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in saved}
    return sum(sizes.values())


@cases
def test_what_is_counted_is_what_is_held(name: str) -> None:
    loss, leaves = losses(name)
    counted = step_bytes(loss, leaves.values(), 20)
    wanted = held(loss, one_layer, 16) / 16
    assert counted.layers + counted.outside == pytest.approx(wanted, rel=0.02)
    assert counted.inputs == 2 * 13 * CASES[name][0].d_model * 4
    assert held(loss, recomputed, 16) / 16 < 0.5 * wanted


def test_everything_is_kept_up_to_a_share_of_what_is_free() -> None:
    step = StepBytes(largest=10, layers=40, inputs=4, outside=2, parameters=1000)
    assert step.kept(7) == 1000 + 7 * (40 + 2 + 10)
    assert step.least(7) == 1000 + 7 * (4 + 10 + 2 + 10)
    free = int(step.kept(7) / SHARE)
    assert step.layer(7, free) is one_layer
    assert step.layer(7, None) is one_layer
    assert step.layer(7, free - 1) is recomputed
    assert step.fitting(step.least(7)) == 7
    assert step.fitting(step.least(7) - 1) == 6
    assert step.fitting(999) == 0


MEASURE = """
import torch
from torch.nn.functional import cross_entropy
from sensprobe.checkpoints import parameters
from sensprobe.plans.plan import Plan, parse_setting
from sensprobe.session.source import open_model
from sensprobe.train.under import UnderPlan

def status(key):
    line = next(x for x in open("/proc/self/status") if x.startswith(key))
    return 1024 * int(line.split()[1])

words = "*.A=logpolar(m2,p8) *.B=int2 *.C=int3 *.state=int7/head/dynamic *.out_proj=int2"
source = open_model("s4d-smnist-64")
stored = parameters(source.path)
plan = Plan(tuple(map(parse_setting, words.split()))).resolve(source.model.sites.values())
under = UnderPlan(plan, stored.config)
leaves = {name: p.float().clone().requires_grad_() for name, p in stored.tensors.items()}
optimizer = torch.optim.AdamW(leaves.values(), fused=True)

def step(batch, length):
    x, y = torch.randn(batch, length, 1), torch.randint(10, (batch,))
    cross_entropy(under.outputs(leaves, x), y).backward()
    optimizer.step()

step(1, 10)  # compiles, which takes RAM of its own
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
for _ in range(2):
    step(64, 784)
print(status("VmHWM"))
"""


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_a_process_that_tunes_64_channels_stays_within_a_gibibyte() -> None:
    """The whole process, of which Python and its packages are a third."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 2**30
