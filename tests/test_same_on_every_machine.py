"""A result belongs to the model: names, codes and recurrences have the same bits everywhere.

The libraries' settings stand in for processors of other makers: they choose the code for one with
wider or narrower vectors, with and without fused products.
"""

import json
import os
import subprocess
import sys
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

SETTINGS = (
    "",
    "ATEN_CPU_CAPABILITY=default",
    "MKL_CBWR=COMPATIBLE",
    "MKL_ENABLE_INSTRUCTIONS=AVX2",
)
THREADS = (1, 2)
CHANGED = tuple(setting.partition("=")[0] for setting in SETTINGS if setting)


CASES = [
    pytest.param(*case, marks=[pytest.mark.thorough] if case[1] == 2 and case[0] else [])
    for case in product(SETTINGS, THREADS)
    if case != ("", 1)
]


@cache
def computed(setting: str, threads: int) -> dict[str, Any]:
    left = {key: value for key, value in os.environ.items() if key not in CHANGED}
    left.pop("OMP_NUM_THREADS", None)
    name, _, value = setting.partition("=")
    environment = left | ({name: value} if setting else {})
    script = Path(__file__).with_name("bits_here.py")
    done = subprocess.run(
        [sys.executable, str(script), str(threads)],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("setting", "threads"), CASES)
def test_bits_are_the_same(setting: str, threads: int) -> None:
    here, there = computed("", 1)["same"], computed(setting, threads)["same"]
    for what in ("names", "weights", "codes", "ranges", "scan", "radius"):
        assert len(here[what]) >= 5
        assert there[what] == here[what], what


@pytest.mark.parametrize(("setting", "threads"), CASES)
def test_a_librarys_products_move_outputs_by_last_bits(setting: str, threads: int) -> None:
    """float32 products of torch differ between settings in last bits, so outputs do; a coarsely
    rounded state makes more of it. No prediction of a hundred digits changes."""
    here, there = (computed(*case)["outputs"] for case in (("", 1), (setting, threads)))
    for state, bound in (("exact", 2e-6), ("int8/head/dynamic", 2e-6), ("int4/head/dynamic", 1e-3)):
        want, got = torch.tensor(here[state]), torch.tensor(there[state])
        assert (got - want).abs().max() <= bound * want.abs().max(), state
        assert torch.equal(got.argmax(1), want.argmax(1)), state


def test_the_settings_do_choose_other_code() -> None:
    """Else the tests above compare a thing with itself."""
    outputs = [computed(setting, 1)["outputs"] for setting in SETTINGS]
    assert any(found != outputs[0] for found in outputs)
