"""A family of one file: a real diagonal recurrence between linear maps, through every job.

Nothing else knows of it: it is registered for the tests alone. No kernel runs it, so it streams by
the reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import sensprobe
from sensprobe import api
from sensprobe.checkpoints.files import METADATA_KEY
from sensprobe.models import FAMILIES, frame
from sensprobe.models.family import Family
from sensprobe.models.forward import At, Carries
from sensprobe.models.frame import FrameConfig, Products, Shapes
from sensprobe.models.framed import Framed, Replay
from sensprobe.models.initial import drawn
from sensprobe.numerics.storage import Carry, fresh, store
from sensprobe.numerics.taps import EXACT, Tap, single
from sensprobe.plans.sites import Axis, Kind, Part, Site
from sensprobe.testing.family import FamilyContract


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyConfig(FrameConfig):
    """Sizes of a toy: d_state real modes for each of d_model channels."""

    d_state: int


@cache
def sites(config: ToyConfig) -> dict[str, Site]:
    modes, axes = (config.d_model, config.d_state), (Axis.HEAD, Axis.N)

    def mixer(at: str) -> list[Site]:
        return [
            Site(at + "x", Part.X, Kind.ACTIVATION, modes[:1], axes[:1]),
            Site(at + "A", Part.A, Kind.WEIGHT, modes, axes),
            Site(at + "B", Part.B, Kind.WEIGHT, modes, axes),
            Site(at + "state", Part.STATE, Kind.STATE, modes, axes),
            Site(at + "C", Part.C, Kind.WEIGHT, modes, axes),
            Site(at + "y", Part.Y, Kind.ACTIVATION, modes[:1], axes[:1]),
        ]

    return frame.frame_sites(config, mixer)


def products(config: ToyConfig) -> Products:
    count = config.d_model * config.d_state
    return frame.frame_products(
        config, [("A", "state", count), ("B", "x", count), ("C", "state", count)]
    )


def parameter_shapes(config: ToyConfig) -> Shapes:
    modes = (config.d_model, config.d_state)
    return frame.frame_parameters(config, {"log_A": modes, "B": modes, "C": modes})


def deploy(params: Mapping[str, Tensor], config: ToyConfig) -> dict[str, Tensor]:
    weights = frame.frame_weights(params, config)
    for i in range(config.layers):
        at = f"layers.{i}."
        weights[at + "A"] = torch.exp(-torch.exp(params[at + "log_A"]))
        weights |= {at + part: params[at + part] for part in "BC"}
    return weights


def initial(config: ToyConfig, dt: tuple[float, float], seed: int) -> dict[str, Tensor]:
    def own(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor | None:
        inside = name.rpartition(".")[2] in ("log_A", "B", "C")
        return torch.randn(shape, generator=generator) if inside else None

    return drawn(parameter_shapes(config), own, seed)


class Toy(Framed):
    """h_t = store(A h_{t-1} + B x_t), y_t = sum_n C_n h_{t,n}, a channel at a time."""

    radius_name, radius_reads = "max|A|", ("A",)

    def mix(self, i: int, u: Tensor, tap: Tap, carries: Carries) -> tuple[Tensor, Carries]:
        at = At(self, tap, f"layers.{i}.")
        y, carry = self.recur(at, at.passes("x", u), carries[0])
        return at.passes("y", y), (carry,)

    def recur(self, at: At, x: Tensor, carry: Carry | None) -> tuple[Tensor, Carry]:
        A, B, C, storage = at("A"), at("B"), at("C"), at.storage("state")
        carry = carry or fresh(len(x), A.shape, storage, x.device)
        y = [torch.zeros_like(x[:, :0, 0])]
        for drive in x.unbind(1):
            carry = store(carry, A * carry.state + B * drive[..., None], storage)
            y.append((C * carry.state).sum(-1))
        return torch.stack(y[1:], dim=1) if len(y) > 1 else torch.zeros_like(x), carry

    @property
    def replays(self) -> list[Replay]:
        def replay(at: str) -> Replay:
            def run(values: Mapping[str, Tensor], tap: Tap) -> tuple[Tensor, ...]:
                return (self.recur(At(self, tap, at), values[at + "x"], None)[0],)

            return Replay(frozenset({at + "A", at + "state"}), (at + "y",), run)

        return [replay(f"layers.{i}.") for i in range(self.config.layers)]

    def layer_radius(self, i: int, tap: Tap = EXACT) -> float:
        return single(At(self, tap, f"layers.{i}.")("A")).abs().max().item()


FAMILY = Family(
    name="toy",
    config=ToyConfig,
    sites=sites,
    products=products,
    parameter_shapes=parameter_shapes,
    deploy=deploy,
    model=Toy,
    initial=initial,
)
Toy.described = FAMILY
CONFIG = ToyConfig(d_input=2, d_output=3, d_model=4, d_state=3, layers=2)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, FAMILY.name, FAMILY)
        yield


@pytest.fixture
def model() -> Toy:
    return Toy(CONFIG, deploy(initial(CONFIG, (0.001, 0.1), seed=0), CONFIG))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 7, CONFIG.d_input, generator=torch.Generator().manual_seed(0))


class TestContract(FamilyContract):
    pass


@pytest.fixture
def folder(tmp_path: Path, model: Toy) -> Path:
    """A checkpoint, and sequences with the classes that the model itself tells mostly."""
    header = {"format": 1, "family": "toy", "config": asdict(CONFIG), "recorded": {}}
    params = initial(CONFIG, (0.001, 0.1), seed=0)
    save_file(params, tmp_path / "toy.safetensors", {METADATA_KEY: json.dumps(header)})
    x = torch.randn(240, 9, CONFIG.d_input, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(-1).numpy()
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=y)
    return tmp_path


@pytest.mark.parametrize("method", ["measured", "taylor", "divergence"])
def test_it_runs_through_every_job(folder: Path, x: Tensor, method: str) -> None:
    run, file = folder / "run", folder / "toy.safetensors"
    found = api.profile(
        file, f"npz:{folder / 'data.npz'}", run, ["int8/head", "int4/head", "int4/head/dynamic"],
        method=method, limit=60,
    )  # fmt: skip
    assert {row["target"] for row in found["rows"]} >= {"layers.*.A", "layers.*.state"}
    api.search(run, ["50%"], evaluations=4, limit=60)
    written = api.export(run, "50%", folder / "out")
    loaded = sensprobe.load(folder / "out")
    assert loaded.weight_bytes == written["weight_bytes"]
    whole, state = loaded(x), loaded.start(len(x))
    for t in range(x.shape[1]):
        last, state = loaded.step(x[:, t], state)
    assert torch.allclose(last, whole, atol=0.02 * whole.abs().max().item())
    data = f"npz:{folder / 'data.npz'}"
    scores = [api.evaluate(file, data, plan=folder / "out" / "plan.json"),
              api.evaluate(folder / "out", data)]  # fmt: skip
    assert scores[0]["value"] == scores[1]["value"]
