"""Recipes: everything that decides the weights a training run ends with, as plain data.

A recipe of samples:

    family = "s4d"             # the default; any family: what [model] is of
    seed = 0
    [model]                    # the family's config: every size, and what to choose among
    d_model = 16
    ...
    [data]
    source = "mnist"           # any DATA of samples; mnist and cifar10 may come without a folder,
                               # which is then the machine's (mnist,order=permuted);
                               # tokens (listops) need a model whose encoder is "embedding"
    shift = 0                  # augmentation: move images by up to so many pixels each way
    image = [28, 28]           # rows and columns of the images; needed only to shift
    [optimizer]                # AdamW
    lr = 1e-2
    ssm_lr = 2e-3              # of dt, A and (where it is a parameter) B, which never decay
    weight_decay = 0.01        # of matrices only
    batch = 50
    average = 0.9995           # weights that ship: exponential moving average; 0 keeps the last
    dropout = 0.0              # share of channels that output projections do not see in a step
    [schedule]                 # linear warm-up, then half a cosine down to 0
    epochs = 30
    warmup = 0.02              # fraction of all steps
    every = 0                  # steps between two snapshots; 0 keeps one an epoch
    [init]
    dt_min = 0.001             # dt is drawn log-uniformly between the two
    dt_max = 0.1

A recipe of a language model:

    family = "mamba"           # mamba, mamba2 or s5: what [model] is of
    seed = 0
    [model]                    # the family's config, but for encoder, pooling and outputs: a
    d_model = 192              # language model over bytes, its head tied to the embedding
    ...
    [text]
    source = "english_novels"  # SENSPROBE_DATA/text/english_novels.tar.xz, or text:PATH
    length = 256               # bytes of a window; windows are drawn anywhere in a document
    pydoc = 0.1                # share of the windows drawn from the training part of pydoc
    [optimizer]                # AdamW, with weight_decay, batch and average as above
    lr = 3e-3
    beta2 = 0.95
    clip = 1.0                 # largest norm of all gradients together
    ...
    [schedule]                 # the same course, by steps
    steps = 4000
    every = 200                # steps between two snapshots; a stopped run goes on from the last
    warmup = 0.05
    more = 0                   # steps of a second such course after the first, from half the rate:
                               # a warm restart (Loshchilov and Hutter 2017, arXiv 1608.03983)
    [init]                     # as above

Every key is required except `seed` (0), the tables' own defaults shown by their classes, and the
model's defaults: a number that decides a result stands in the file that claims the result.
Documents that `sensprobe.data.documents` holds out, one in ten by the hash of their name, are never
trained on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from sensprobe.data import BYTES, SAMPLES, kind_of
from sensprobe.documents import AbsentError, DocumentError, read_toml
from sensprobe.errors import UsageError
from sensprobe.models import FAMILIES, family_of
from sensprobe.models.family import config_document

FIXED: dict[str, Any] = {
    "encoder": "embedding",
    "pooling": "none",
    "tied_head": True,
    "head_bias": False,
    "d_input": BYTES.size,
    "d_output": BYTES.size,
}
"""The fields of a language model's config that [model] does not say: it is one over bytes."""
LANGUAGE = tuple(
    name for name, family in FAMILIES.items() if {f.name for f in fields(family.config)} >= {*FIXED}
)
"""The families whose configs can be a language model's."""
DEFAULT = "s4d"
"""The family of a recipe of samples that names none."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Data:
    """The samples to train on and how they are varied."""

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
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """The number of epochs, the fraction of all steps that warms up, and the steps of a leg."""

    epochs: int
    warmup: float
    every: int = 0


@dataclass(frozen=True, slots=True)
class Init:
    """The range of the first step sizes: about 1 / dt steps are remembered."""

    dt_min: float = 0.001
    dt_max: float = 0.1


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the weights of a `SampleTask` besides the samples."""

    model: Any  # the config of a family
    data: Data
    optimizer: Optimizer
    schedule: Schedule
    init: Init = field(default_factory=Init)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """The text to train on, and the windows drawn from it."""

    source: str
    length: int
    pydoc: float = 0.0


@dataclass(frozen=True, slots=True)
class LanguageOptimizer:
    """AdamW with clipped gradients, and the averaging of weights."""

    lr: float
    beta2: float
    weight_decay: float
    clip: float
    batch: int
    average: float


@dataclass(frozen=True, slots=True)
class Steps:
    """The number of steps, those between two snapshots, and the fraction that warms up."""

    steps: int
    every: int
    warmup: float
    more: int = 0

    @property
    def total(self) -> int:
        """Steps of both courses."""
        return self.steps + self.more

    def rate(self, step: int) -> float:
        """The fraction of the learning rate in a step, from 0."""
        if step < self.steps:
            return rate_at(step + 1, self.steps + 1, self.warmup)
        return 0.5 * rate_at(step - self.steps + 1, self.more + 1, self.warmup)


@dataclass(frozen=True, slots=True)
class LanguageRecipe:
    """All that decides the weights of a `LanguageTask` besides the text."""

    family: str
    model: Any  # the family's config
    text: Text
    optimizer: LanguageOptimizer
    schedule: Steps
    init: Init = field(default_factory=Init)
    seed: int = 0


def document_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe of samples as a snapshot records it: without what was added since snapshots are
    written, where that is the default."""
    found = asdict(recipe) | {"model": config_document(recipe.model)}
    if not recipe.optimizer.dropout:
        del found["optimizer"]["dropout"]
    if (family := family_of(recipe.model).name) != DEFAULT:
        found["family"] = family
    return found


def rate_at(step: int, steps: int, warmup: float) -> float:
    """The fraction of the learning rate at a step: linear up, then half a cosine down to 0."""
    rise = warmup * steps
    if step < rise:
        return step / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


def read_document(path: Path) -> dict[str, Any]:
    """The tables of a recipe's TOML file; UsageError where it is missing or malformed."""
    try:
        return read_toml(path)
    except AbsentError as error:
        raise UsageError(
            f"no recipe can be read at {path} ({error}). Name a recipe's TOML file, or a model "
            "that ships with one."
        ) from None
    except DocumentError as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from None


def recipe_from(document: Mapping[str, Any], source: str) -> Recipe:
    """The recipe of samples that a parsed document describes; `source` names it in errors."""
    family = document.get("family", DEFAULT)
    if family not in [*FAMILIES]:  # a family that TOML gives may be no text
        raise UsageError(f"{source}: family is {family!r}; it must be {' or '.join(FAMILIES)}.")
    kinds = {
        "model": FAMILIES[family].config,
        "data": Data,
        "optimizer": Optimizer,
        "schedule": Schedule,
    }
    _require_known(document, {*kinds, "init", "seed", "family"}, "a recipe", source)
    recipe = Recipe(**_tables(document, kinds, source))
    data, optimizer = recipe.data, recipe.optimizer
    rules = {
        f"[data] source must be one of {', '.join(SAMPLES)}": kind_of(data.source) in SAMPLES,
        "[data] shift must not be negative": data.shift >= 0,
        "[data] image must give rows and columns where shift is not 0": not data.shift
        or (len(data.image) == 2 and min(data.image) > data.shift),
        "[optimizer] lr and ssm_lr must be above 0": min(optimizer.lr, optimizer.ssm_lr) > 0,
        "[optimizer] dropout must be at least 0 and below 1": 0 <= optimizer.dropout < 1,
        "[schedule] epochs must be at least 1": recipe.schedule.epochs >= 1,
        "[schedule] every must not be negative": recipe.schedule.every >= 0,
    }
    _require(recipe, rules, source)
    return recipe


def language_recipe_from(document: Mapping[str, Any], source: str) -> LanguageRecipe:
    """The recipe of a language model that a parsed document describes; `source` names it in
    errors."""
    kinds = {"text": Text, "optimizer": LanguageOptimizer, "schedule": Steps}
    known = {*kinds, "init", "seed", "model", "family"}
    _require_known(document, known, "a language model's recipe", source)
    family = document.get("family")
    if family not in LANGUAGE:
        raise UsageError(f"{source}: family is {family!r}; it must be {' or '.join(LANGUAGE)}.")
    tables = _tables(document, kinds, source)
    recipe = LanguageRecipe(family, _language_model(document, family, source), **tables)
    text, optimizer, schedule = recipe.text, recipe.optimizer, recipe.schedule
    rules = {
        "[text] length must be at least 8": text.length >= 8,
        "[text] pydoc must be from 0 to 1": 0 <= text.pydoc <= 1,
        "[optimizer] lr and clip must be above 0": min(optimizer.lr, optimizer.clip) > 0,
        "[optimizer] beta2 must be above 0 and below 1": 0 < optimizer.beta2 < 1,
        "[schedule] steps and every must be at least 1": min(schedule.steps, schedule.every) >= 1,
        "[schedule] more must not be negative": schedule.more >= 0,
    }
    _require(recipe, rules, source)
    return recipe


def _require_known(document: Mapping[str, Any], known: set[str], what: str, source: str) -> None:
    if unknown := sorted(set(document) - known):
        raise UsageError(
            f"{source}: unknown entry {', '.join(unknown)}; {what} has {', '.join(sorted(known))}."
        )


def _tables(document: Mapping[str, Any], kinds: Mapping[str, type], source: str) -> dict[str, Any]:
    """A dataclass from each table and from [init], which may be missing; and the seed."""
    tables: dict[str, Any] = {
        name: typed_table(kind, _table(document, name, source), f"{source}: [{name}]")
        for name, kind in {**kinds, "init": Init}.items()
    }
    return tables | {"seed": typed(document.get("seed", 0), int, f"{source}: seed")}


def _table(document: Mapping[str, Any], name: str, source: str) -> Mapping[str, Any]:
    content = document.get(name, {} if name == "init" else None)
    if not isinstance(content, Mapping):
        raise UsageError(f"{source}: the table [{name}] is missing.")
    return content


def _language_model(document: Mapping[str, Any], family: str, source: str) -> Any:
    content = _table(document, "model", source)
    if given := sorted(set(content) & set(FIXED)):
        raise UsageError(
            f"{source}: [model] {', '.join(given)} cannot be chosen: a recipe of a language model "
            "makes one over bytes, with a tied head."
        )
    return typed_table(FAMILIES[family].config, {**content, **FIXED}, f"{source}: [model]")


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


def _require(recipe: Recipe | LanguageRecipe, rules: Mapping[str, bool], source: str) -> None:
    """UsageError that names every value no run could use: of its own rules and of all recipes'."""
    optimizer, init = recipe.optimizer, recipe.init
    common = {
        "[optimizer] weight_decay must not be negative": optimizer.weight_decay >= 0,
        "[optimizer] batch must be at least 1": optimizer.batch >= 1,
        "[optimizer] average must be at least 0 and below 1": 0 <= optimizer.average < 1,
        "[schedule] warmup must be at least 0 and below 1": 0 <= recipe.schedule.warmup < 1,
        "[init] needs 0 < dt_min <= dt_max": 0 < init.dt_min <= init.dt_max,
        "seed must not be negative": recipe.seed >= 0,
    }
    if broken := [rule for rule, holds in (common | dict(rules)).items() if not holds]:
        raise UsageError(f"{source}: {'; '.join(broken)}.")
