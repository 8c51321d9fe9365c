"""Tasks of lm-eval, run on models under plans.

    sharing, scoring, generating    likelihoods and continuations; know nothing of lm-eval
    model                           what lm-eval asks of a language model
    local                           tasks that run from files
    running, results                tasks by name, and their scores compared sample by sample

lm-eval is imported here alone, by `model` and `running`; call `require` before you import those.
"""

from __future__ import annotations

from importlib.util import find_spec

from sensprobe.errors import UsageError

PACKAGE = "lm_eval"


def require() -> None:
    """UsageError where lm-eval is not installed."""
    if find_spec(PACKAGE) is None:
        raise UsageError(
            "tasks are run by the package lm-eval, which is not installed: pip install -e '.[lm]'"
        )
