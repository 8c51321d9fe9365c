"""Suites that every family, kernel, format, executor and runtime passes, one's own included.

What fails shows both sides of its comparison, as in a file of tests.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{suite}" for suite in ("executor", "family", "format", "kernel", "runtime"))
)
