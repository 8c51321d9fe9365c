"""The loops that speed is measured against compute what the product does, and can stand for it."""

from __future__ import annotations

from types import ModuleType
from unittest.mock import patch

import pytest
import torch
from builders import PLAIN, inputs, tiny
from module_files import module_of
from recurrence import problem, rounded

from sensprobe import ops
from sensprobe.ops.diagonal_scan import reference


@pytest.fixture
def whole() -> ModuleType:
    return module_of("000_speed", "whole")


def test_the_plain_loop_is_the_recurrence(whole):
    p, storage = problem(2, 20, 3, 4), rounded("int8/head/dynamic", 3, 4)
    torch.testing.assert_close(whole.plain_loop(*p, storage)[0], reference(*p, storage)[0])


def test_the_plain_loop_runs_a_model(whole):
    model, x = tiny(), inputs(PLAIN)
    wanted = model(x)
    with patch.object(ops, "diagonal_scan", whole.plain_loop):
        torch.testing.assert_close(model(x), wanted)
