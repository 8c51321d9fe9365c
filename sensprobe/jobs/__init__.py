"""The steps of the main job over an open model, data and run; each returns plain values.

    sites -> profile -> search -> export -> evaluate,   and cost, report, doctor beside them

`sensprobe.api` has the same steps with names and paths for arguments. Every step that runs long
takes a `progress`, keeps what it finished when interrupted, and continues from there when called
again. A step is loaded on first use: scoring a plan waits for no search.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sensprobe.jobs.benching import bench
    from sensprobe.jobs.benching_model import LENGTH, bench_model
    from sensprobe.jobs.confirming import confirm
    from sensprobe.jobs.doctoring import doctor
    from sensprobe.jobs.evaluating import evaluate, recorded_warnings
    from sensprobe.jobs.exporting import export
    from sensprobe.jobs.exporting_for import export_for
    from sensprobe.jobs.generating import generate
    from sensprobe.jobs.pricing import (
        cost,
        cost_beside_stored,
        full_bytes,
        list_presets,
        list_sites,
    )
    from sensprobe.jobs.profiling import DEFAULT_SCHEMES, check_profile, profile
    from sensprobe.jobs.saturating import chosen_ranges, profiled_ranges, saturation_warnings
    from sensprobe.jobs.searching import SearchSettings, search
    from sensprobe.jobs.tasks import TaskSettings, evaluate_tasks, harness_model
    from sensprobe.jobs.training import train

__all__ = [
    "DEFAULT_SCHEMES",
    "LENGTH",
    "SearchSettings",
    "TaskSettings",
    "bench",
    "bench_model",
    "check_profile",
    "chosen_ranges",
    "confirm",
    "cost",
    "cost_beside_stored",
    "doctor",
    "evaluate",
    "evaluate_tasks",
    "export",
    "export_for",
    "full_bytes",
    "generate",
    "harness_model",
    "list_presets",
    "list_sites",
    "profile",
    "profiled_ranges",
    "recorded_warnings",
    "saturation_warnings",
    "search",
    "train",
]

_HOME = {
    "DEFAULT_SCHEMES": "profiling",
    "LENGTH": "benching_model",
    "SearchSettings": "searching",
    "TaskSettings": "tasks",
    "bench": "benching",
    "bench_model": "benching_model",
    "check_profile": "profiling",
    "confirm": "confirming",
    "cost": "pricing",
    "cost_beside_stored": "pricing",
    "doctor": "doctoring",
    "evaluate": "evaluating",
    "evaluate_tasks": "tasks",
    "export": "exporting",
    "export_for": "exporting_for",
    "full_bytes": "pricing",
    "generate": "generating",
    "harness_model": "tasks",
    "list_presets": "pricing",
    "list_sites": "pricing",
    "profile": "profiling",
    "recorded_warnings": "evaluating",
    "saturation_warnings": "saturating",
    "chosen_ranges": "saturating",
    "profiled_ranges": "saturating",
    "search": "searching",
    "train": "training",
}
"""Public name -> the module of this folder that defines it."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
