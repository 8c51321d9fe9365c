"""lm-eval's own command line."""

from __future__ import annotations

import logging
import sys

from lm_eval.__main__ import cli_evaluate


def lm_eval_main(words: list[str]) -> None:
    """Run it as `lm_eval WORDS` does; it reads them from `sys.argv`."""
    # A warning for every task that takes the place of one of its own.
    logging.getLogger("lm_eval.tasks._index").setLevel(logging.ERROR)
    before = sys.argv
    sys.argv = ["lm_eval", *words]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
