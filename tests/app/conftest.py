"""A folder of runs for the dashboard: the run that ships, copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sensprobe_app

EXAMPLE = Path(sensprobe_app.__file__).parent / "example" / "s4d-digits"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with one finished run, `digits`."""
    folder = tmp_path / "runs"
    shutil.copytree(EXAMPLE, folder / "digits")
    return folder


@pytest.fixture(autouse=True)
def _fresh_caches() -> None:
    import streamlit as st

    st.cache_resource.clear()
