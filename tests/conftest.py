"""What every test shares: one thread, and properties tried on the same examples each time."""

from __future__ import annotations

import os

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("sensprobe", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("sensprobe")
