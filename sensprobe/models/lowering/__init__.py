"""The streaming step of every family, written with a builder of programs.

`lower(b, config)` calls the builder's methods in the order of the forward pass and returns the
register of the outputs. The builder knows the model's sites and plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sensprobe.models.lowering import mamba, mamba2, s4d
from sensprobe.models.lowering.builder import Builder

if TYPE_CHECKING:
    from sensprobe_kernels.program.ir import Register

LOWERINGS: Mapping[str, Callable[[Builder, Any], Register]] = {
    "s4d": s4d.lower,
    "mamba": mamba.lower,
    "mamba2": mamba2.lower,
}
"""By the name of the family."""
