"""Models here are tiny: the reference loop runs them faster than a kernel compiles."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sensprobe import ops
from sensprobe.ops.diagonal_scan import reference


@pytest.fixture(autouse=True, scope="module")
def _reference() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "diagonal_scan", reference)
        yield
