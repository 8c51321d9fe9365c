"""A published activity recogniser: its data as it was trained on, its score as is known."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from module_files import STUDIES, module_of

from sensprobe import api

FOLDER = STUDIES / "004_selective_models" / "har"


@pytest.fixture
def data() -> ModuleType:
    return module_of("004_selective_models/har", "data")


def test_features_are_padded_and_cut_in_steps(tmp_path, monkeypatch, data):
    x = np.arange(2 * 561, dtype=np.float16).reshape(2, 561) / 2048
    (tmp_path / "har_mamba").mkdir()
    np.savez(
        tmp_path / "har_mamba" / data.FILE,
        x=x,
        y=np.array([5, 0], np.uint8),
        subject=np.array([3, 9], np.uint8),
        is_test=np.array([False, True]),
    )
    monkeypatch.setenv("SENSPROBE_DATA", str(tmp_path))
    found = data.windows()
    assert found["x"].shape == (2, 10, 57)
    assert np.array_equal(found["x"].reshape(2, 570)[:, :561], x.astype(np.float32))
    assert not found["x"].reshape(2, 570)[:, 561:].any()
    assert found["y"].tolist() == [5, 0]
    assert found["group"].tolist() == [3, 9]
    assert found["split"].tolist() == ["train", "confirmation"]


@pytest.mark.slow
def test_full_precision_scores_what_is_known(tmp_path):
    """93.38 % of the 2,947 official test windows."""
    if "SENSPROBE_DATA" not in os.environ:
        pytest.skip("set SENSPROBE_DATA to a folder with har_mamba/")
    source = Path(os.environ["SENSPROBE_DATA"]) / "har_mamba"
    shutil.copy(FOLDER / "model.toml", tmp_path)
    (tmp_path / "mambalite_har6.safetensors").symlink_to(source / "mambalite_har6.safetensors")
    found = api.evaluate(tmp_path / "model.toml", f"python:{FOLDER / 'data.py'}:windows")
    assert found["n"] == 2947
    assert round(100 * found["value"], 2) == 93.38
