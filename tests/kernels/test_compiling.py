"""How kernels are compiled: the pipelines are in use, are not needed, and no old code is run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sensprobe_kernels import inlining, jit

SMALL = """
from sensprobe_kernels import jit

@jit.inline
def square(x):
    return x * x

@jit.inline_optimised
def half(x):
    return square(x) / 2

@jit.noinline
def third(x):
    return half(x) / 3

@jit.compiled
def fill(x, out):
    for i in range(x.size):
        out[i] = third(x[i]) + half(x[i])
"""


def loaded(path: Path, name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def filled(folder: Path, name: str, with_jit: ModuleType, monkeypatch) -> np.ndarray:
    """What a small kernel makes of some numbers, its helpers compiled by decorators of a module."""
    (folder / f"{name}.py").write_text(SMALL)
    monkeypatch.setattr("sensprobe_kernels.jit", with_jit)
    monkeypatch.setitem(sys.modules, "sensprobe_kernels.jit", with_jit)
    x = np.linspace(-3, 3, 257, dtype=np.float32)
    out = np.zeros_like(x)
    loaded(folder / f"{name}.py", name).fill(x, out)
    return out


def test_this_numba_has_a_place_for_the_pipelines() -> None:
    for decorator in (jit._linked, jit._optimised):
        assert decorator["pipeline_class"].__name__ == "Inlined"
    assert inlining.pipeline(optimise=True) is not None


def test_without_the_pipelines_the_same_bits(tmp_path, monkeypatch) -> None:
    """As with a Numba that keeps its classes elsewhere: `pipeline` then gives None."""
    want = filled(tmp_path, "with_pipelines", jit, monkeypatch)
    monkeypatch.setattr(inlining, "pipeline", lambda *, optimise: None)
    plain = loaded(Path(jit.__file__), "plain_jit")
    assert plain._linked == plain._optimised == {}
    np.testing.assert_array_equal(filled(tmp_path, "without", plain, monkeypatch), want)
    x = np.linspace(-3, 3, 257, dtype=np.float32)
    np.testing.assert_allclose(want, x * x / 6 + x * x / 2, rtol=1e-6)


@pytest.mark.parametrize("missing", ["_optimize_final_module", "_finalize_final_module"])
def test_a_numba_without_the_methods_they_replace_has_no_pipeline(missing, monkeypatch) -> None:
    from numba.core.codegen import CPUCodeLibrary, JITCodeLibrary

    owner = next(c for c in (JITCodeLibrary, CPUCodeLibrary) if missing in vars(c))
    monkeypatch.delattr(owner, missing)
    assert inlining.pipeline(optimise=False) is None


def package(folder: Path) -> Path:
    (folder / "ops" / "gpu").mkdir(parents=True)
    for name in ("a.py", "ops/b.py", "ops/gpu.py", "ops/gpu/c.py"):
        (folder / name).write_text(f"# {name}\n")
    return folder


def test_any_change_of_compiled_source_changes_the_fingerprint(tmp_path) -> None:
    folder = package(tmp_path)
    seen = [jit.source_of(folder)]
    (folder / "ops/b.py").write_text("# another\n")
    seen.append(jit.source_of(folder))
    (folder / "ops/d.py").write_text("")
    seen.append(jit.source_of(folder))
    # A module that moves keeps its place in the order and its text, and must still be seen: code
    # that was kept names the module it came from.
    (folder / "ops/d.py").rename(folder / "ops/e.py")
    seen.append(jit.source_of(folder))
    assert len(set(seen)) == 4


def test_source_that_triton_compiles_is_left_out(tmp_path) -> None:
    folder = package(tmp_path)
    before = jit.source_of(folder)
    for name in ("ops/gpu.py", "ops/gpu/c.py"):
        (folder / name).write_text("# another\n")
    assert jit.source_of(folder) == before


def test_code_of_another_source_is_never_opened(tmp_path) -> None:
    """Pickles of an old cache may name modules that are gone. Here they are no pickles at all."""
    (tmp_path / "small.py").write_text(SMALL)
    run = """
import sys
import numpy as np
import sensprobe_kernels.jit as jit
jit.SOURCE = int(sys.argv[1], 16)
import small
small.fill(np.ones(3, np.float32), np.zeros(3, np.float32))
print(sum(small.fill.stats.cache_hits.values()))
"""

    def hits(source: str) -> int:
        told = subprocess.run(
            [sys.executable, "-c", run, source], cwd=tmp_path, text=True, check=True,
            capture_output=True,
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": path},
        )  # fmt: skip
        return int(told.stdout)

    path = os.pathsep.join([str(tmp_path), *sys.path])
    assert (hits("abc"), hits("abc")) == (0, 1)
    old = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert old
    for file in old:
        assert ".abc" in file.name
        file.write_bytes(b"no pickle")
    assert hits("def") == 0
    assert hits("def") == 1
