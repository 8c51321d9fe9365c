"""The steps of the main job, each one public function that takes and returns plain values.

    sites -> profile -> search -> export -> evaluate,   and cost, report, doctor beside them

The command line parses, calls one of these and prints. Every step that runs long takes a
`progress`, keeps what it finished when interrupted, and continues from there when called again.
"""

from sensprobe.steps.evaluating import evaluate
from sensprobe.steps.exporting import export
from sensprobe.steps.pricing import cost, list_sites
from sensprobe.steps.profiling import DEFAULT_SCHEMES, profile
from sensprobe.steps.searching import confirm, search

__all__ = [
    "DEFAULT_SCHEMES",
    "confirm",
    "cost",
    "evaluate",
    "export",
    "list_sites",
    "profile",
    "search",
]
