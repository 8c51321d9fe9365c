"""Small trained models that ship with the package, and the recipes that made them.

Each model is a safetensors file, a recipe (`sensprobe train NAME` trains it again) and a card.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path


@cache
def shipped() -> dict[str, Path]:
    """Name -> checkpoint of every model that ships."""
    folder = Path(str(files("sensprobe.zoo")))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


@cache
def recipes() -> dict[str, Path]:
    """Name -> every recipe that ships."""
    folder = Path(str(files("sensprobe.zoo")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}
