"""A result belongs to the model: names, codes and recurrences have the same bits everywhere.

The libraries' settings stand in for processors of other makers: they choose the code for one with
wider or narrower vectors, with and without fused products.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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


def computed(case: tuple[str, int]) -> dict[str, Any]:
    setting, threads = case
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


@pytest.fixture(scope="module")
def machines() -> dict[tuple[str, int], dict[str, Any]]:
    cases = list(product(SETTINGS, THREADS))
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(cases, pool.map(computed, cases), strict=True))


@pytest.mark.parametrize("what", ["names", "weights", "codes", "scan", "radius"])
def test_bits_are_the_same(machines: dict[tuple[str, int], dict[str, Any]], what: str) -> None:
    here = machines["", 1]["same"][what]
    assert len(here) >= 5
    for case, found in machines.items():
        assert found["same"][what] == here, case


@pytest.mark.parametrize(
    ("state", "bound"), [("exact", 2e-6), ("int8/head/dynamic", 2e-6), ("int4/head/dynamic", 1e-3)]
)
def test_a_librarys_products_move_outputs_by_last_bits(
    machines: dict[tuple[str, int], dict[str, Any]], state: str, bound: float
) -> None:
    """float32 products of torch differ between settings in last bits, so outputs do; a coarsely
    rounded state makes more of it. No prediction of a hundred digits changes."""
    want = torch.tensor(machines["", 1]["outputs"][state])
    for case, found in machines.items():
        got = torch.tensor(found["outputs"][state])
        assert (got - want).abs().max() <= bound * want.abs().max(), case
        assert torch.equal(got.argmax(1), want.argmax(1)), case


def test_the_settings_do_choose_other_code(
    machines: dict[tuple[str, int], dict[str, Any]],
) -> None:
    """Else the tests above compare a thing with itself."""
    outputs = [json.dumps(found["outputs"]) for found in machines.values()]
    assert len(set(outputs)) > 1
