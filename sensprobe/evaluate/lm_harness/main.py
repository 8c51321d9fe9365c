"""lm-eval's own command line."""

from __future__ import annotations

import sys

from lm_eval.__main__ import cli_evaluate


def lm_eval_main(words: list[str]) -> None:
    """Run it as `lm_eval WORDS` does; it reads them from `sys.argv`."""
    before = sys.argv
    sys.argv = ["lm_eval", *words]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
