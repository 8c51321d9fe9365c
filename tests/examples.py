"""The number of examples of a property whose every example may compile a kernel or write files."""

from __future__ import annotations

import os

from hypothesis import settings


def examples(most: int) -> settings:
    """Settings of `most` examples, of a fifth of them in `make test`."""
    count = most if os.environ.get("SENSPROBE_ALL_TESTS") else most // 5
    return settings(max_examples=count, deadline=None)
