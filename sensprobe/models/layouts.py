"""The maps between our names of a family and those of another package, for reading and writing.

A family has a `Layout` for every package whose files are read. What all families of a package share
(the names around the mixers, the sizes of the frame) stands where its files are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from sensprobe.errors import UsageError

UNLIMITED = 3.4028234663852886e38
"""The largest float32: a limit on dt that limits nothing."""


@dataclass(frozen=True, slots=True)
class External:
    """A tensor of another package: its name inside a mixer, the sites whose rows it joins, and how
    they are shaped there ("filters", "logarithm", or as they are).

    `matrix` names the weight of a linear map, which a runtime may quantize.
    """

    name: str
    sites: tuple[str, ...]
    matrix: str = ""
    shaped: str = ""


def linear(name: str, *rows: str) -> tuple[External, External]:
    """A linear map and its bias, from the weights whose rows it joins."""
    return (
        External(f"{name}.weight", rows, matrix=name),
        External(f"{name}.bias", tuple(f"{row}.bias" for row in rows)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One kind of model in a package (transformers, mamba_ssm, s4).

    `kind` is the package's name of it, `same_as` that of transformers where the package is another,
    and `architecture` the class that runs it. `defaults` are what the package takes for keys that a
    config leaves out. `read(around, given)` returns our config from the fields of the frame and the
    document's values; it raises UsageError for what this family is not. `writes(config)` tells
    whether a config is of this kind, and `write(config)` returns the keys that only this kind has.
    `tensors` are those of a mixer. `names` maps a package's names of parameters to ours, with {i}
    for the number of a layer.
    """

    package: str
    kind: str
    read: Callable[[Mapping[str, Any], Mapping[str, Any]], Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    same_as: str = ""
    architecture: str = ""
    writes: Callable[[Any], bool] = lambda config: False
    write: Callable[[Any], dict[str, Any]] = lambda config: {}
    tensors: tuple[External, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)


def rank_of_dt(given: Any, d_model: Any) -> Any:
    """The rank of dt, ceil(d_model / 16) where a file leaves it to the paper ("auto")."""
    if given != "auto":
        return given
    if type(d_model) is not int:
        raise UsageError(f"the width of the model is {d_model!r}, not a number.")
    return ceil(d_model / 16)


def limits_of_dt(given: Any) -> tuple[float, float]:
    """dt_min and dt_max from a pair whose upper end may be infinite, in either spelling."""
    try:
        ends: list[Any] = [*(given or (0.0, "inf"))]
        pair: list[Any] = [v.get("__float__") if isinstance(v, Mapping) else v for v in ends]
        low, high = (float(v) for v in pair)
    except (TypeError, ValueError):
        raise UsageError(f"the limits of dt are {given!r}, not two numbers.") from None
    return low, min(high, UNLIMITED)
