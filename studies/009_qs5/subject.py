"""study.toml as models and plans: what is measured, under which roundings."""

from __future__ import annotations

import argparse
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from sensprobe.cli.study import data_folder
from sensprobe.data import load_data
from sensprobe.models.s5_layers import S5
from sensprobe.plans.plan import Resolved
from sensprobe.plans.presets import PRESETS
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind, Part
from sensprobe.session.source import open_model

HERE = Path(__file__).resolve().parent
STUDY: dict[str, Any] = tomllib.loads((HERE / "study.toml").read_text(encoding="utf-8"))
ROUNDED, TRAINED = HERE / "rounded.jsonl", HERE / "trained.jsonl"
FUNCTIONS: dict[str, dict[str, Any]] = {row["name"]: row for row in STUDY["functions"]}
CONFIGURATIONS: dict[str, dict[str, Any]] = {row["name"]: row for row in STUDY["configuration"]}
ALL_THREE = "all three"
HOW_TO_GET = "give --data DIR, or set SENSPROBE_DATA=DIR, where DIR/mnist holds the four IDX files."


@dataclass(frozen=True)
class Subject:
    """A model that is measured: its entry in study.toml, the model and the data it names."""

    entry: dict[str, Any]
    source: str
    data: str

    @property
    def name(self) -> str:
        return str(self.entry["name"])

    @cached_property
    def model(self) -> S5:
        return cast(S5, open_model(self.source).model)

    @cached_property
    def splits(self) -> Any:
        return load_data(self.data).splits

    def with_functions(self, name: str) -> S5:
        """The model with other functions in place of those that it was trained with."""
        config = replace(self.model.config, **FUNCTIONS[name].get("config", {}))
        return S5(config, self.model.weights)


def options(about: str) -> argparse.ArgumentParser:
    """What both scripts take."""
    found = argparse.ArgumentParser(description=about)
    found.add_argument("--data", type=Path, help="folder of the data; default SENSPROBE_DATA")
    found.add_argument("--run", type=Path, default=Path(tempfile.gettempdir()) / HERE.name)
    found.add_argument(
        "--on", choices=[entry["name"] for entry in STUDY["model"]], default="s5-digits"
    )
    found.add_argument("--weights", type=Path, help="another file of --on")
    return found


def subject_of(asked: argparse.Namespace) -> Subject:
    """The model that was asked for; UsageError where its data are not there."""
    entry = next(entry for entry in STUDY["model"] if entry["name"] == asked.on)
    places = {"run": asked.run, "here": HERE}
    if "{data}" in entry["data"]:
        places["data"] = data_folder(asked.data, ["mnist"], HOW_TO_GET)
    source = str(asked.weights or entry["model"].format(**places))
    return Subject(entry, source, entry["data"].format(**places))


def dynamic(preset: str, model: S5) -> Resolved:
    """A preset whose activations have dynamic ranges, as the authors' have: ours of a step, theirs
    of a step in the SSM and of a sequence around it."""
    sites = model.sites
    plan = static(preset, model)
    return {
        name: parse(f"{scheme}/dynamic") if sites[name].kind is Kind.ACTIVATION else scheme
        for name, scheme in plan.items()
    }


def static(preset: str, model: S5) -> Resolved:
    """A preset as it stands."""
    sites = model.sites.values()
    return PRESETS[preset].plan("s5", sites).resolve(sites)


def without(plan: Resolved, model: S5, *parts: Part) -> Resolved:
    """A plan that leaves some parts exact."""
    return {name: scheme for name, scheme in plan.items() if model.sites[name].part not in parts}


@dataclass(frozen=True, slots=True)
class Cell:
    """A plan to train under: a preset's, {pattern: scheme}, or neither, which is to be searched."""

    name: str
    preset: str = ""
    schemes: tuple[tuple[str, str], ...] = ()


def cells() -> Iterator[Cell]:
    """Every cell of study.toml."""
    for row in STUDY["trained"]:
        yield Cell(row["name"], preset=row["preset"])
    yield Cell(STUDY["searched"]["name"])
    for row in STUDY["A"]:
        for kind in ("cartesian", "logpolar"):
            yield Cell(f"A{row['bits']}-{kind}", schemes=(("layers.*.A", row[kind]),))
