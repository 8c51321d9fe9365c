"""Telling Numba's cache when a compiled function's source changed."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path


def fingerprint(folder: Path) -> int:
    """Of the source compiled from a folder beside this one: Numba watches one file, a scan is made
    of several."""
    here = Path(__file__).parent
    compiled = [*sorted(folder.glob("*.py")), *sorted(here.glob("*.py")), here.parent / "vector.py"]
    files = [file for file in compiled if file.name != "cpu.py"]  # calls what is compiled
    return int(sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:15], 16)
