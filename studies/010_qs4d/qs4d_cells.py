"""study.toml as cells: what is measured at once."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STUDY: dict[str, Any] = tomllib.loads((HERE / "study.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Cell:
    """What is measured at once: a plan, noise, or fewer kernels, trained or not."""

    name: str
    schemes: tuple[str, ...] = ()
    width: int = 64
    training: tuple[tuple[str, Any], ...] = ()
    noise: tuple[float, ...] = ()
    kernels: int | None = None


def cells() -> Iterator[Cell]:
    """Every cell of study.toml, what is not trained first."""
    training = tuple(STUDY["training"].items())
    for part in STUDY["part"]:
        for bits in part["bits"]:
            yield Cell(f"{part['name']}-{bits}", _schemes(part, bits))
    yield Cell("noise")
    for part in STUDY["part"]:
        for bits in part["trained"]:
            yield Cell(f"{part['name']}-{bits}-trained", _schemes(part, bits), training=training)
    noise = STUDY["noise"]
    yield Cell("noise-trained", training=_pairs(noise["options"]), noise=tuple(noise["stages"]))
    for kernels in STUDY["pruning"]["kernels"]:
        options = _pairs(STUDY["pruning"]["options"])
        yield Cell(f"kernels-{kernels}", training=options, kernels=kernels)
    everything = next(part for part in STUDY["part"] if part["name"] == "everything")
    for width in STUDY["size"]["widths"]:
        for bits in STUDY["size"]["bits"]:
            name, plan = f"width-{width}-{bits}", _schemes(everything, bits)
            yield Cell(name, plan, width, training, (STUDY["size"]["noise"],))


def _schemes(part: dict[str, Any], bits: int) -> tuple[str, ...]:
    return tuple(text.format(bits=bits) for text in part["schemes"])


def _pairs(options: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(options.items())
