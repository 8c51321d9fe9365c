"""The tests of Triton kernels, in Triton's interpreter: a process of its own, because a kernel is
made to be interpreted or to be compiled when its module is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "gpu").glob("test_*.py"))
FEW = ("test_linear",)
"""Files that `make test` runs: products, in which operands are packed in every way."""
CASES = [
    pytest.param(p, id=p.stem, marks=[] if p.stem in FEW else pytest.mark.thorough) for p in FILES
]


@pytest.mark.parametrize("path", CASES)
def test_kernels_in_the_interpreter(path: Path) -> None:
    pytest.importorskip("triton", reason="Triton is there for Linux only")
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)],
        env=os.environ | {"TRITON_INTERPRET": "1"}, cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout[-4000:] + told.stderr[-2000:]
    assert " passed" in told.stdout
    assert "skipped" not in told.stdout, told.stdout
