"""The run that ships as the dashboard's example, as its search left it."""

from __future__ import annotations

import shutil
from pathlib import Path

import sensprobe_app

EXAMPLE = Path(sensprobe_app.__file__).parent / "example" / "s4d-digits"


def copy_searched(folder: Path) -> Path:
    """Copy the run into a folder that is not there yet, without what was tuned in it."""
    return Path(shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("tuned*")))
