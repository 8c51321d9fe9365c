"""Model families: `FAMILIES` has the record of each, which is known without torch.

A family is two files: its record, with config, sites, products and parameters (`mamba.py`), and its
forward pass (`mamba_layers.py`), which needs torch and is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sensprobe.models import mamba, mamba2, s4d, s5
from sensprobe.models.family import Family
from sensprobe.models.layouts import Layout
from sensprobe.models.sited import Sited

if TYPE_CHECKING:
    from torch import Tensor

    from sensprobe.models.framed import Recurrence, Replay
    from sensprobe.numerics.taps import Tap


class Model(Sited, Protocol):
    """The interface of a model of any family. It has no state: a call depends on its arguments."""

    family: str

    @property
    def described(self) -> Family:
        """The record of the family."""
        ...

    radius_name: str
    """The name of the quantity that `spectral_radius` returns, as reports print it."""
    radius_reads: tuple[str, ...]
    """The sites of a layer that it is computed from."""

    @property
    def products(self) -> list[tuple[str, str | None, int]]: ...

    @property
    def recurrences(self) -> list[Recurrence]: ...

    @property
    def replays(self) -> list[Replay]: ...

    @property
    def reads_tokens(self) -> bool: ...

    def __call__(self, x: Tensor, tap: Tap = ..., mode: str = "recurrent") -> Tensor: ...

    def start(self, batch: int, tap: Tap = ...) -> Any: ...

    def step(self, x: Tensor, state: Any, tap: Tap = ...) -> tuple[Tensor, Any]: ...

    def spectral_radius(self, tap: Tap = ...) -> float: ...

    def layer_radius(self, i: int, tap: Tap = ...) -> float: ...


OUTPUT_BYTES = 2**28
"""The most bytes that the outputs at every step of sequences run together may take."""


def per_step(model: Model) -> bool:
    """True if the model has an output at every step instead of one a sequence."""
    return bool(model.config.pooling == "none")


def is_language_model(model: Model) -> bool:
    """True if the model reads tokens and predicts the next one at every step."""
    return model.reads_tokens and per_step(model)


def together(model: Model, length: int, most: int) -> int:
    """The number of sequences of a length to run at once: `most`, halved until the outputs at every
    step fit `OUTPUT_BYTES` (or it is one)."""
    count, each = most, 4 * length * model.config.d_output
    while per_step(model) and count > 1 and count * each > OUTPUT_BYTES:
        count //= 2
    return count


FAMILIES: dict[str, Family] = {
    f.name: f for f in (s4d.FAMILY, s5.FAMILY, mamba.FAMILY, mamba2.FAMILY)
}
"""The record of every family, by name."""


def layouts(package: str) -> dict[str, Layout]:
    """The kinds of models that are read from another package's files, by its names of them."""
    every = (layout for family in FAMILIES.values() for layout in family.layouts)
    return {layout.kind: layout for layout in every if layout.package == package}


def family_of(config: Any) -> Family:
    """The record of the family whose config this is."""
    return next(family for family in FAMILIES.values() if type(config) is family.config)
