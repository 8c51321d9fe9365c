"""Commands that need no tensor start without torch, numba, pandas and SciPy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "numba", "scipy", "optuna", "sklearn")
CODE = """
import sys
from sensprobe.cli import main
try:
    code = main(sys.argv[2:])
except SystemExit as stopped:
    code = stopped.code
heavy = [name for name in sys.argv[1].split(",") if name in sys.modules]
sys.exit(f"imported: {heavy}" if heavy else code)
"""


def quick(*words: str, heavy: tuple[str, ...] = (*HEAVY, "pandas", "plotly")) -> str:
    """The output of a command, which imports nothing heavy."""
    command = [sys.executable, "-c", CODE, ",".join(heavy), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("sites", "s4d-digits"),
        ("cost", "s4d-digits"),
        ("cost", "s4d-digits", "--set", "weights=int8/channel", "--set", "states=int8"),
        ("cost", "mamba-bytes", "--plan", "w8a8"),
        ("presets",),
    ],
    ids=" ".join,
)
def test_a_command_without_tensors_imports_no_torch(words: tuple[str, ...]) -> None:
    assert quick(*words)


def test_a_report_imports_no_torch(searched: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "report")
    assert "report" in quick(
        "report", "--run", str(searched), "--out", out, heavy=("torch", "numba")
    )
