"""What `sensprobe bench --device cuda` times runs, and moves the bytes it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from sensprobe.packed import bench, bench_gpu


@pytest.fixture(autouse=True)
def _small(device, monkeypatch):
    monkeypatch.setattr(bench, "SHAPES", {"tiny": 128})
    monkeypatch.setattr(bench_gpu, "LAYERS", {"tiny": 2})
    monkeypatch.setattr(bench_gpu, "UPDATED", 2)
    monkeypatch.setattr(bench_gpu, "DEVICE", device)


CASES = len(bench_gpu.WEIGHTS) + len(bench.WHOLE) + 2 * len(bench.STATES)


@pytest.mark.parametrize("place", range(CASES))
def test_every_case_runs(place):
    case = bench_gpu.cases("tiny", 1)[place]()
    case.run()
    assert case.reference is not None
    case.reference()
    if case.operation.startswith("linear"):
        inputs = 128 + 256 + 2 * 4 if case.operation.endswith("int8 inputs") else 4 * (128 + 256)
        bits = {"int8": 8, "int4": 4, "int3": 3, "int2": 2, "e4m3": 8}[case.scheme.split("/")[0]]
        weights = 2 * 6 * 128**2 * bits // 8
        scales = case.bytes - weights - 2 * (inputs + 4 * (512 + 128))
        assert 0 < scales <= weights / 4
    else:
        n, rows = (16, 256) if case.operation == "state, Mamba" else (128, 256)
        bits = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}[case.scheme.split("/")[0]]
        states = 2 * 2 * rows * n * bits // 8
        assert states < case.bytes < 2 * states + 200_000


def test_what_the_study_decodes_with_runs(device):
    """studies/000_speed/gpu.py, one layer of it."""
    path = Path(__file__).parents[2] / "studies" / "000_speed" / "gpu.py"
    spec = importlib.util.spec_from_file_location("study_000_gpu", path)
    assert spec is not None
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    for plan in (study.PACKED, study.HALF):
        stream = study._stream(128, 1, plan, device)
        outputs, _ = stream.advance(torch.zeros(1, dtype=torch.int64), stream.start(1))
        assert outputs.isfinite().all()


@pytest.mark.gpu
def test_times_are_those_of_graphs(device):
    case = bench_gpu.cases("tiny", 1)[0]()
    told = bench_gpu.measured(case, bench_gpu.copy_bandwidth())
    assert 0 < told["seconds"] < 1
    assert told["quartiles"][0] <= told["seconds"] <= told["quartiles"][1]
