"""Model families. Each is one file: forward, step, sites, shapes, and the products they compute."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor

from sensprobe.models import mamba, mamba2, s4d, selective
from sensprobe.models.sited import Sited
from sensprobe.numerics.taps import EXACT, Tap


class Model(Sited, Protocol):
    """What every family offers. Stateless: a call depends on its arguments alone."""

    family: str
    radius_name: str
    """What `spectral_radius` is, for people."""
    radius_reads: tuple[str, ...]
    """The sites of a layer that it is computed from."""

    @property
    def products(self) -> list[tuple[str, str | None, int]]: ...

    @property
    def recurrences(self) -> list[s4d.Recurrence]: ...

    @property
    def replays(self) -> list[selective.Replay]: ...

    @property
    def reads_tokens(self) -> bool: ...

    def __call__(self, x: Tensor, tap: Tap = EXACT, mode: str = "recurrent") -> Tensor: ...

    def start(self, batch: int, tap: Tap = EXACT) -> Any: ...

    def step(self, x: Tensor, state: Any, tap: Tap = EXACT) -> tuple[Tensor, Any]: ...

    def spectral_radius(self, tap: Tap = EXACT, layers: Iterable[int] | None = None) -> float: ...


OUTPUT_BYTES = 2**28
"""What the outputs at every step of sequences run together may take."""


def per_step(model: Model) -> bool:
    """Whether the model has an output at every step instead of one a sequence."""
    return bool(model.config.pooling == "none")


def is_language_model(model: Model) -> bool:
    """Whether it reads tokens and says at every step which comes next."""
    return model.reads_tokens and per_step(model)


def together(model: Model, length: int, most: int) -> int:
    """How many sequences of a length to run at once: `most`, halved until outputs at every step
    fit `OUTPUT_BYTES` (or it is one)."""
    count, each = most, 4 * length * model.config.d_output
    while per_step(model) and count > 1 and count * each > OUTPUT_BYTES:
        count //= 2
    return count


FAMILIES: dict[str, tuple[Any, Any]] = {
    s4d.FAMILY: (s4d.S4DConfig, s4d.S4D),
    mamba.FAMILY: (mamba.MambaConfig, mamba.Mamba),
    mamba2.FAMILY: (mamba2.Mamba2Config, mamba2.Mamba2),
}
"""Family name -> (config class, model class)."""
