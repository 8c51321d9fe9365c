"""Damaged exports: refused, or the same outputs to the bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from damage import damage_json, in_time, put_in_place, require_short, scrambled
from tiny_models import NAMES, applier, tiny

from sensprobe.errors import SensprobeError
from sensprobe.export import compact, export_model, load_artefact
from sensprobe.plans.plan import uniform
from sensprobe.plans.scheme import parse

FILES = ("config.json", "plan.json", "model.safetensors")


def computes(folder: Path) -> dict[str, Any]:
    """All that outputs follow from."""
    read = load_artefact(folder)
    known: dict[str, Any] = {"config": read.model.config, "plan": dict(read.tap.plan)}
    known |= read.tap.weights
    for name, (scale, zero) in read.tap.scales.items():
        known |= {f"{name}.scale": scale, f"{name}.zero": zero}
    return known


def is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(v, other[k]) if isinstance(v, torch.Tensor) else v == other[k]
        for k, v in one.items()
    )


def exports(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Folders of every family and of both forms, and what they compute."""
    found = []
    for k, name in enumerate(NAMES):
        sites = tiny(name).sites.values()
        plan = uniform(parse("int4/channel/asym"), sites).resolve(sites)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compact, "REST", 10**6 * (k % 2))
            export_model(tiny(name), plan, applier(name), folder / str(k), name=name)
        found.append((folder / str(k), computes(folder / str(k))))
    return found


@pytest.mark.parametrize("count", [20, pytest.param(2_000, marks=pytest.mark.slow)])
def test_a_damaged_export_is_refused_or_the_same(count: int, tmp_path: Path) -> None:
    random, whole, kept = Random(16), exports(tmp_path), 0
    for k in range(count):
        source, wanted = random.choice(whole)
        folder = tmp_path / f"copy{k}"
        shutil.copytree(source, folder)
        name = random.choice(FILES)
        damage(folder / name, random)
        with in_time():
            try:
                found = computes(folder)
            except SensprobeError as error:
                require_short(error)
            else:
                assert is_same(found, wanted), (name, (folder / name).read_bytes()[:2000])
                kept += 1
        shutil.rmtree(folder)
    assert kept < count / 2


def damage(path: Path, random: Random) -> None:
    if random.random() < 0.1:
        put_in_place(path, random)
    elif path.suffix == ".json":
        damage_json(path, random)
    else:
        path.write_bytes(scrambled(path.read_bytes(), random))
