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


EARLIER_NAMES: dict[str, tuple[str, ...]] = {
    "mamba-bytes": (
        "02fb67635e1b7817",
        "1adaa82832d4b0c4",
        "d519748010d92809",
    ),
    "mamba2-bytes": ("81215ea684f87fee",),
    "s4d-digits": (
        "350c29e6cd0d4ca1",
        "6ac2bf82378a35a5",
        "b43d3a711c7accd7",
        "d564222e6b4fd6fe",
    ),
    "s4d-smnist-16": (
        "00349b8a2a3e31f8",
        "3006aa6580c8540d",
        "c9fd662591c42f71",
        "fbfe575dff188b06",
    ),
    "s4d-smnist-64": (
        "37fd29d9b1a89794",
        "3cea79c7960b5a1c",
        "79b4ce557dbf9f44",
        "ca146149a4703cad",
        "e28bebcd50abe1b5",
        "e8eaf414dce81d89",
    ),
}
"""The names that machines gave each model before names were made of what files hold: under
PyTorch's and MKL's settings for AVX-512, AVX2 and neither, on Intel and AMD processors (see
`checkpoints.identity`)."""
