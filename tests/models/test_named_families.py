"""A family is named in `models/`; at most three files outside name one, and those are tables."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import sensprobe
from sensprobe.models import FAMILIES, torch_step
from sensprobe.models.framed import Framed
from sensprobe.models.selective import Selective

ROOT = Path(sensprobe.__file__).parent.parent
MODELS = ROOT / "sensprobe" / "models"
FILES = [
    path for folder in ("sensprobe", "app", "kernels") for path in (ROOT / folder).rglob("*.py")
]
MOST = 3
PACKING = ROOT / "kernels" / "sensprobe_kernels" / "packing"
OTHERWISE = {
    ROOT / "sensprobe" / "jobs" / "doctor.py",
    *(ROOT / "sensprobe" / "checkpoints" / name for name in ("__init__.py", "toml.py")),
    *(PACKING / name for name in ("polar.py", "msun/__init__.py", "msun/cpu.py", "msun/gpu.py")),
}
"""Files that hold the word for another thing: an extra of pip or a format of files that is called
as a family is, and the fifth coefficient of a sine."""


def classes() -> set[str]:
    """The configs and models of families, by name."""
    found, left = set(), [Framed]
    while left:
        made = left.pop().__subclasses__()
        left += made
        found |= {kind.__name__ for kind in made if kind is not Selective}
    return found | {family.config.__name__ for family in FAMILIES.values()}


@dataclass(frozen=True)
class Names:
    """What a file must not hold: strings that are a family, and names of modules and classes."""

    families: frozenset[str]
    classes: frozenset[str]

    def in_source(self, source: str) -> Iterator[str]:
        """Every mention outside docstrings and comments."""
        tree = ast.parse(source)
        texts = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            match node:
                case ast.Constant(value=str(text)) if id(node) not in texts:
                    yield from self.families & {text}
                case ast.Name(id=name) | ast.Attribute(attr=name):
                    yield from self.classes & {name}
                case ast.ImportFrom(module=str(module)):
                    names = {*module.split("."), *(alias.name for alias in node.names)}
                    yield from (self.families | self.classes) & names
                case ast.Import():
                    names = {part for alias in node.names for part in alias.name.split(".")}
                    yield from (self.families | self.classes) & names


NAMES = Names(frozenset(FAMILIES), frozenset(classes()))


def test_few_files_outside_models_name_a_family() -> None:
    outside = [path for path in FILES if MODELS not in path.parents and path not in OTHERWISE]
    naming = [
        str(path.relative_to(ROOT)) for path in outside if set(NAMES.in_source(path.read_text()))
    ]
    assert len(naming) <= MOST, (
        f"{naming} name a family, and {MOST} files may: give its record what they need, or put a "
        "file into OTHERWISE where the word means something else there"
    )


def test_the_names_are_those_of_configs_and_models() -> None:
    assert {"S4DConfig", "S4D", "MambaConfig", "Mamba", "Mamba2Config", "Mamba2"} <= NAMES.classes
    assert torch_step.TorchMamba.__name__ in NAMES.classes
    assert not {"Framed", "Selective", "FrameConfig"} & NAMES.classes


@pytest.mark.parametrize(
    "source",
    [
        'x = "mamba"',
        "from sensprobe.models import s4d",
        "from sensprobe.models.mamba2 import sites",
        "import sensprobe.models.s4d",
        "isinstance(config, S4DConfig)",
        "models.Mamba2(config)",
    ],
)
def test_a_mention_is_found(source: str) -> None:
    assert list(NAMES.in_source(source))


@pytest.mark.parametrize(
    "source", ['"""mamba"""', "# mamba\n", 'x = "mamba_ssm"', 'def f():\n    "S4D"', "mambas = 3"]
)
def test_prose_is_none(source: str) -> None:
    assert not list(NAMES.in_source(source))
