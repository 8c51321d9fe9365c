"""Small real data and a recipe that learns it in a second."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sensprobe.train import recipe_from


@pytest.fixture(scope="session")
def digits():
    """Three classes of the digits: (train, validation), 240 and 120 samples."""
    bunch = load_digits(n_class=3)
    x = torch.from_numpy((bunch.images.reshape(-1, 64, 1) / 16).astype(np.float32))
    y = torch.from_numpy(bunch.target.astype(np.int64))
    return (x[:240], y[:240]), (x[240:360], y[240:360])


@pytest.fixture
def document():
    """A recipe as TOML gives it."""
    return {
        "seed": 3,
        "model": {
            "d_input": 1,
            "d_output": 3,
            "d_model": 8,
            "d_state": 4,
            "layers": 1,
            "residual": True,
        },
        "data": {"source": "digits", "shift": 1, "image": [8, 8]},
        "optimizer": {
            "lr": 0.02,
            "ssm_lr": 0.005,
            "weight_decay": 0.05,
            "batch": 32,
            "average": 0.9,
        },
        "schedule": {"epochs": 4, "warmup": 0.1},
        "init": {"dt_min": 0.05, "dt_max": 0.5},
    }


@pytest.fixture
def recipe(document):
    return recipe_from(document, "test")
