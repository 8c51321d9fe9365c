"""A recipe: everything that decides the weights a training run ends with, as plain data.

    seed = 0
    [model]                    # the family's config: every size, and what to choose among
    d_model = 16
    ...
    [data]
    source = "mnist"           # digits, mnist (its folder is the machine's), or npz:FILE and so on
    shift = 0                  # augmentation: move images by up to so many pixels each way
    image = [28, 28]           # rows and columns of the images; needed only to shift
    [optimizer]                # AdamW
    lr = 1e-2
    ssm_lr = 2e-3              # of log_dt, log_A_real, A_imag and B, which never decay
    weight_decay = 0.01        # of matrices only
    batch = 50
    average = 0.9995           # weights that ship: exponential moving average; 0 keeps the last
    [schedule]                 # linear warm-up, then half a cosine down to 0
    epochs = 30
    warmup = 0.02              # fraction of all steps
    [init]
    dt_min = 0.001             # dt is drawn log-uniformly between the two
    dt_max = 0.1

Every key is required except `seed` (0), the tables' own defaults shown by `Data` and `Init`, and
the model's defaults: a number that decides a result stands in the file that claims the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from sensprobe.documents import AbsentError, DocumentError, read_toml
from sensprobe.errors import UsageError
from sensprobe.models.s4d import S4DConfig

SOURCES = ("digits", "mnist", "npz", "python")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Data:
    """What to train on and how to vary it."""

    source: str
    shift: int = 0
    image: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Optimizer:
    """AdamW with two learning rates, a batch size, and the averaging of weights."""

    lr: float
    ssm_lr: float
    weight_decay: float
    batch: int
    average: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, and the fraction of it that warms up."""

    epochs: int
    warmup: float


@dataclass(frozen=True, slots=True)
class Init:
    """The range of the first step sizes: about 1 / dt steps are remembered."""

    dt_min: float = 0.001
    dt_max: float = 0.1


@dataclass(frozen=True, slots=True)
class Recipe:
    """What `fit` needs besides the samples."""

    model: S4DConfig
    data: Data
    optimizer: Optimizer
    schedule: Schedule
    init: Init = field(default_factory=Init)
    seed: int = 0


TABLES = {
    "model": S4DConfig,
    "data": Data,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "init": Init,
}


def read_document(path: Path) -> dict[str, Any]:
    """What a recipe's TOML file says; UsageError where it is missing or malformed."""
    try:
        return read_toml(path)
    except AbsentError as error:
        raise UsageError(
            f"no recipe can be read at {path} ({error}). Name a recipe's TOML file, or a model "
            "that ships with one."
        ) from None
    except DocumentError as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from None


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file; UsageError where it is missing, malformed or out of range."""
    return recipe_from(read_document(path), str(path))


def recipe_from(document: Mapping[str, Any], source: str) -> Recipe:
    """The recipe a parsed document describes; `source` names it in errors."""
    known = {*TABLES, "seed"}
    if unknown := sorted(set(document) - known):
        raise UsageError(
            f"{source}: unknown entry {', '.join(unknown)}; a recipe has "
            f"{', '.join(sorted(known))}."
        )
    tables: dict[str, Any] = {}
    for name, kind in TABLES.items():
        content = document.get(name, {} if name == "init" else None)
        if not isinstance(content, Mapping):
            raise UsageError(f"{source}: the table [{name}] is missing.")
        tables[name] = typed_table(kind, content, f"{source}: [{name}]")
    recipe = Recipe(**tables, seed=typed(document.get("seed", 0), int, f"{source}: seed"))
    _check(recipe, source)
    return recipe


def typed_table(kind: type[T], content: Mapping[str, Any], where: str) -> T:
    """One dataclass from one table: every key known, every required key there, types right."""
    hints = get_type_hints(kind)
    if unknown := sorted(set(content) - set(hints)):
        raise UsageError(
            f"{where} has unknown key(s) {', '.join(unknown)}; it takes {', '.join(hints)}."
        )
    required = [f.name for f in fields(kind) if f.default is MISSING]  # type: ignore[arg-type]
    if missing := [name for name in required if name not in content]:
        raise UsageError(f"{where} lacks {', '.join(missing)}.")
    values = {key: typed(value, hints[key], f"{where} {key}") for key, value in content.items()}
    try:
        return kind(**values)
    except UsageError as error:  # a config that checks itself
        raise UsageError(f"{where} {error}") from None


def typed(value: Any, kind: Any, where: str) -> Any:
    """value as `kind` (int, float, str, bool, tuple of int); TOML's integers count as floats."""
    if kind == tuple[int, ...]:
        if isinstance(value, list) and all(type(item) is int for item in value):
            return tuple(value)
        raise UsageError(f"{where} is {value!r}; it must be a list of integers.")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UsageError(f"{where} is {value!r}; it must be of type {kind.__name__}.")
    return value


def _check(recipe: Recipe, source: str) -> None:
    """UsageError that names every value no run could use."""
    data, optimizer, schedule, init = recipe.data, recipe.optimizer, recipe.schedule, recipe.init
    rules = {
        f"[data] source must be one of {', '.join(SOURCES)}": data.source.partition(":")[0]
        in SOURCES,
        "[data] shift must not be negative": data.shift >= 0,
        "[data] image must give rows and columns where shift is not 0": not data.shift
        or (len(data.image) == 2 and min(data.image) > data.shift),
        "[optimizer] lr and ssm_lr must be above 0": min(optimizer.lr, optimizer.ssm_lr) > 0,
        "[optimizer] weight_decay must not be negative": optimizer.weight_decay >= 0,
        "[optimizer] batch must be at least 1": optimizer.batch >= 1,
        "[optimizer] average must be at least 0 and below 1": 0 <= optimizer.average < 1,
        "[schedule] epochs must be at least 1": schedule.epochs >= 1,
        "[schedule] warmup must be at least 0 and below 1": 0 <= schedule.warmup < 1,
        "[init] needs 0 < dt_min <= dt_max": 0 < init.dt_min <= init.dt_max,
        "seed must not be negative": recipe.seed >= 0,
    }
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise UsageError(f"{source}: {'; '.join(broken)}.")


def rate_at(step: int, steps: int, warmup: float) -> float:
    """The fraction of the learning rate at a step: linear up, then half a cosine down to 0."""
    rise = warmup * steps
    if step < rise:
        return step / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))
