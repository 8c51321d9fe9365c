"""What every test shares: one thread, the same examples of a property, and how many cases.

`make test` runs a few cases of each parametrized test, in even steps from its first to its last,
and leaves out what is marked `thorough`. `make test-all`, which CI calls, sets SENSPROBE_ALL_TESTS
and runs every one. Processes that a test starts inherit it.
"""

from __future__ import annotations

import os

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from sensprobe import ops
from sensprobe.ops.diagonal_scan import reference

CASES = 3
"""Cases of one parametrized test that `make test` runs."""
FIRST = ("tests/packed/test_stream.py", "tests/app/test_browser.py")
"""Files that are given to workers first, because they take long."""
LAST = ("tests/packed/", "tests/kept/")
"""Files that use the packed step, which the first file compiles and keeps on disk."""

torch.set_num_threads(1)
settings.register_profile("sensprobe", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("sensprobe")


@pytest.fixture(scope="session", autouse=True)
def _allowed_code(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What code tests allow is not remembered for whoever runs them."""
    os.environ["SENSPROBE_TRUST"] = str(tmp_path_factory.mktemp("trust") / "allowed-code.json")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts what takes long first, and leaves out the cases that `make test` does without, unless
    tests are named one by one."""
    items.sort(key=lambda item: _turn(item.nodeid))
    if os.environ.get("SENSPROBE_ALL_TESTS") or any("::" in text for text in config.args):
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = {item for found in cases.values() for item in _some(found)}
    dropped = [item for item in items if item not in kept]
    items[:] = [item for item in items if item in kept]
    config.hook.pytest_deselected(items=dropped)


def _turn(nodeid: str) -> int:
    """When a file's turn comes. Long ones are first, so that no worker is left alone with one, and
    those that use the packed step are last, so that not every worker compiles it (a minute)."""
    file = nodeid.partition("::")[0]
    if file in FIRST:
        return FIRST.index(file)
    return len(FIRST) + file.startswith(LAST)


def _some(cases: list[pytest.Item]) -> list[pytest.Item]:
    ordinary = [case for case in cases if not case.get_closest_marker("thorough")]
    if len(ordinary) <= CASES:
        return ordinary
    return [ordinary[i * (len(ordinary) - 1) // (CASES - 1)] for i in range(CASES)]


@pytest.fixture
def reference_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """States run on the reference loop: for tiny models it is done before a kernel compiles."""
    monkeypatch.setattr(ops, "diagonal_scan", reference)
