"""Checks that a file's tensors have the names, shapes and types that a config asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sensprobe.checkpoints.headers import Tensors, is_dense, is_tensor
from sensprobe.errors import CheckpointError


def require_shapes(
    found: Tensors,
    wanted: Mapping[str, tuple[int, ...]],
    source: Path,
    family: str,
    called: Mapping[str, str] | None = None,
    idle: Sequence[str] = (),
    about: str = "",
) -> None:
    """CheckpointError that names every tensor missing, left over, or of another shape.

    `called` has the names in the file where they differ; `idle` are patterns nothing fits; `about`
    is a sentence on how the names were read.
    """

    def said(name: str) -> str:
        theirs = (called or {}).get(name, name)
        return name if theirs == name else f"{name} (in the file {theirs})"

    missing = [name for name in wanted if name not in found]
    extra = [said(name) for name in found if name not in wanted]
    shapes = [
        f"{said(name)} is {tuple(found[name].shape)}, needed {wanted[name]}"
        for name in wanted
        if name in found and tuple(found[name].shape) != wanted[name]
    ]
    if not (missing or extra or shapes or idle):
        return
    parts = [
        f"{label}: {', '.join(names[:6])}"
        + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        for label, names in (
            ("missing", missing),
            ("left over", extra),
            ("of another shape", shapes),
            ("keys that fit no tensor", list(idle)),
        )
        if names
    ]
    raise CheckpointError(
        f"{source} does not fit the {family} model its config describes. "
        + "; ".join(parts)
        + f".{about}"
    )


def require_numbers(found: Mapping[str, Any], source: Path) -> None:
    """CheckpointError unless every entry is a tensor of real floating-point numbers."""
    for name, value in found.items():
        if not is_tensor(value):
            raise CheckpointError(
                f"{source}: {name} is of type {type(value).__name__}, not a tensor."
            )
        if not is_dense(value):
            raise CheckpointError(
                f"{source}: {name} is a {value.layout} tensor on {value.device}; save it dense, "
                "with its values."
            )
        if not value.is_floating_point():
            pairs = ", complex ones as pairs (torch.view_as_real)" if value.is_complex() else ""
            raise CheckpointError(
                f"{source}: {name} holds {value.dtype} numbers; weights are real floating-point "
                f"numbers{pairs}. Convert it and save again."
            )


def family_hint(names: Iterable[Any]) -> str:
    """A sentence that says whose names these are; empty for names that are not recognised."""
    text = " ".join(map(str, names))
    for mark, family in _MARKS.items():
        if mark in text:
            return f"Its names are those of {family}. "
    return ""


_MARKS = {
    "s4_layers": "state-spaces/s4 example.py",
    "mixer.x_proj": "a Mamba model",
    "mixer.dt_bias": "a Mamba-2 model",
    "Lambda": "an S5 model",
    "self_attn": "a Transformer",
}
