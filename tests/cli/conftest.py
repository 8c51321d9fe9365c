"""A shell, and one run of the main job that the tests read."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import FAST, PROFILE, Shell

from sensprobe.cli import main


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="session")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that holds a measured profile of three schemes on 64 samples. Read only."""
    run = tmp_path_factory.mktemp("profiled") / "run"
    assert main([*PROFILE, *FAST, "--limit", "64", "--run", str(run)]) == 0
    return run


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was profiled, searched under two budgets and confirmed. Read only."""
    run = tmp_path_factory.mktemp("searched") / "run"
    assert main([*PROFILE, *FAST, "--limit", "64", "--run", str(run)]) == 0
    budgets = ["--budget", "2KiB", "--budget", "1600"]
    assert main(["search", "--run", str(run), *budgets, "--evaluations", "12"]) == 0
    return run
