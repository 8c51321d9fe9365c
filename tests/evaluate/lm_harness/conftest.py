"""Tiny language models of both families, exact and under the plan that a test module names."""

from __future__ import annotations

import pytest
from language import MAMBA, MAMBA2
from selective import tiny

from sensprobe.models.apply import Applier
from sensprobe.numerics.taps import EXACT


@pytest.fixture(params=[MAMBA, MAMBA2], ids=["mamba", "mamba2"])
def model(request):
    return tiny(request.param)


@pytest.fixture(params=[False, True], ids=["exact", "rounded"])
def tap(request, model):
    """Of the module's PLAN, where it is rounded."""
    return Applier(model).tap(request.module.PLAN) if request.param else EXACT
