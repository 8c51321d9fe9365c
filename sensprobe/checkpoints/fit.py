"""Whether a file's tensors are the ones a config asks for: names and shapes, said exactly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from sensprobe.errors import CheckpointError


def require_shapes(
    found: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], source: Path, family: str
) -> None:
    """CheckpointError that names every tensor missing, left over, or of another shape."""
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    shapes = [
        f"{name} is {tuple(found[name].shape)}, needed {wanted[name]}"
        for name in wanted
        if name in found and tuple(found[name].shape) != wanted[name]
    ]
    if not (missing or extra or shapes):
        return
    parts = [
        f"{label}: {', '.join(names[:6])}"
        + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        for label, names in (
            ("missing", missing),
            ("left over", extra),
            ("of another shape", shapes),
        )
        if names
    ]
    raise CheckpointError(
        f"{source} does not fit the {family} model its config describes. " + "; ".join(parts) + "."
    )
