"""Modules of studies, which lie in no package."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

STUDIES = Path(__file__).parents[1] / "studies"


def module_of(study: str, name: str) -> ModuleType:
    """A module of a study, under a name of its own: several studies call theirs the same."""
    path = STUDIES / study / f"{name}.py"
    spec = spec_from_file_location(f"{path.parent.name}_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
