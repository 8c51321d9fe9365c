"""The steps of the main job, each one public function that takes and returns plain values.

    sites -> profile -> search -> export -> evaluate,   and cost, report, doctor beside them

The command line parses, calls one of these and prints. Every step that runs long takes a
`progress`, keeps what it finished when interrupted, and continues from there when called again.
"""

from sensprobe.steps.doctoring import doctor
from sensprobe.steps.evaluating import evaluate, recorded_warnings
from sensprobe.steps.exporting import export
from sensprobe.steps.pricing import cost, list_sites
from sensprobe.steps.profiling import DEFAULT_SCHEMES, profile
from sensprobe.steps.searching import SearchSettings, confirm, search
from sensprobe.steps.training import train

__all__ = [
    "DEFAULT_SCHEMES",
    "SearchSettings",
    "confirm",
    "cost",
    "doctor",
    "evaluate",
    "export",
    "list_sites",
    "profile",
    "recorded_warnings",
    "search",
    "train",
]
