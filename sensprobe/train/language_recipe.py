"""A recipe of a language model: everything that decides the weights, as plain data.

    family = "mamba"           # mamba or mamba2: what [model] is of
    seed = 0
    [model]                    # the family's config, but for encoder, pooling and outputs: a
    d_model = 192              # language model over bytes, its head tied to the embedding
    ...
    [text]
    source = "english_novels"  # SENSPROBE_DATA/text/english_novels.tar.xz, or text:PATH
    length = 256               # bytes of a window; windows are drawn anywhere in a document
    pydoc = 0.1                # share of the windows drawn from the training part of pydoc
    [optimizer]                # AdamW
    lr = 3e-3
    beta2 = 0.95
    weight_decay = 0.1         # of matrices only
    clip = 1.0                 # largest norm of all gradients together
    batch = 32
    average = 0.998            # weights that ship: exponential moving average; 0 keeps the last
    [schedule]                 # linear warm-up, then half a cosine down to 0
    steps = 4000
    every = 200                # steps between two snapshots; a stopped run goes on from the last
    warmup = 0.05              # fraction of all steps
    more = 0                   # steps of a second such course after the first, from half the rate:
                               # a warm restart (Loshchilov and Hutter 2017, arXiv 1608.03983)
    [init]
    dt_min = 0.001             # dt is drawn log-uniformly between the two
    dt_max = 0.1

Documents that `sensprobe.data.documents` holds out, one in ten by the hash of their name, are never
trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sensprobe.data import BYTES
from sensprobe.errors import UsageError
from sensprobe.models import FAMILIES, mamba, mamba2
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.train.recipe import Init, rate_at, typed, typed_table

SELECTIVE = (mamba.FAMILY.name, mamba2.FAMILY.name)
FIXED: dict[str, Any] = {
    "encoder": "embedding",
    "pooling": "none",
    "tied_head": True,
    "head_bias": False,
    "d_input": BYTES.size,
    "d_output": BYTES.size,
}
"""What [model] does not say: a language model over bytes."""


@dataclass(frozen=True, slots=True)
class Text:
    """What to train on."""

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
    """How long, how often a snapshot is kept, and the fraction that warms up."""

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
    """What `fit_language` needs besides the text."""

    family: str
    model: MambaConfig | Mamba2Config
    text: Text
    optimizer: LanguageOptimizer
    schedule: Steps
    init: Init = field(default_factory=Init)
    seed: int = 0


TABLES: dict[str, type] = {
    "text": Text,
    "optimizer": LanguageOptimizer,
    "schedule": Steps,
    "init": Init,
}


def language_recipe_from(document: Mapping[str, Any], source: str) -> LanguageRecipe:
    """The recipe a parsed document describes; `source` names it in errors."""
    known = {*TABLES, "model", "family", "seed"}
    if unknown := sorted(set(document) - known):
        raise UsageError(
            f"{source}: unknown entry {', '.join(unknown)}; a language model's recipe has "
            f"{', '.join(sorted(known))}."
        )
    family = document.get("family")
    if family not in SELECTIVE:
        raise UsageError(f"{source}: family is {family!r}; it must be {' or '.join(SELECTIVE)}.")
    tables = {name: _table(document, name, kind, source) for name, kind in TABLES.items()}
    recipe = LanguageRecipe(
        family=str(family),
        model=_model(document, str(family), source),
        seed=typed(document.get("seed", 0), int, f"{source}: seed"),
        **tables,
    )
    _check(recipe, source)
    return recipe


def _table(document: Mapping[str, Any], name: str, kind: type, source: str) -> Any:
    content = document.get(name, {} if name == "init" else None)
    if not isinstance(content, Mapping):
        raise UsageError(f"{source}: the table [{name}] is missing.")
    return typed_table(kind, content, f"{source}: [{name}]")


def _model(document: Mapping[str, Any], family: str, source: str) -> Any:
    content = document.get("model")
    if not isinstance(content, Mapping):
        raise UsageError(f"{source}: the table [model] is missing.")
    if given := sorted(set(content) & set(FIXED)):
        raise UsageError(
            f"{source}: [model] {', '.join(given)} cannot be chosen: a recipe of a language model "
            "makes one over bytes, with a tied head."
        )
    return typed_table(FAMILIES[family].config, {**content, **FIXED}, f"{source}: [model]")


def _check(recipe: LanguageRecipe, source: str) -> None:
    """UsageError that names every value no run could use."""
    text, optimizer, schedule, init = recipe.text, recipe.optimizer, recipe.schedule, recipe.init
    rules = {
        "[text] length must be at least 8": text.length >= 8,
        "[text] pydoc must be from 0 to 1": 0 <= text.pydoc <= 1,
        "[optimizer] lr and clip must be above 0": min(optimizer.lr, optimizer.clip) > 0,
        "[optimizer] beta2 must be above 0 and below 1": 0 < optimizer.beta2 < 1,
        "[optimizer] weight_decay must not be negative": optimizer.weight_decay >= 0,
        "[optimizer] batch must be at least 1": optimizer.batch >= 1,
        "[optimizer] average must be at least 0 and below 1": 0 <= optimizer.average < 1,
        "[schedule] steps and every must be at least 1": min(schedule.steps, schedule.every) >= 1,
        "[schedule] more must not be negative": schedule.more >= 0,
        "[schedule] warmup must be at least 0 and below 1": 0 <= schedule.warmup < 1,
        "[init] needs 0 < dt_min <= dt_max": 0 < init.dt_min <= init.dt_max,
        "seed must not be negative": recipe.seed >= 0,
    }
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise UsageError(f"{source}: {'; '.join(broken)}.")
