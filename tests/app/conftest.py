"""A folder of runs for the dashboard: the run that ships, copied."""

from __future__ import annotations

from pathlib import Path

import pytest
from shipped_run import copy_searched


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with one finished run, `digits`."""
    folder = tmp_path / "runs"
    copy_searched(folder / "digits")
    return folder


@pytest.fixture(autouse=True)
def _fresh_caches() -> None:
    import streamlit as st

    st.cache_resource.clear()
