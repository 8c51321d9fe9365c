"""What `sensprobe bench --device cuda` times runs, and moves the bytes it says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sensprobe.packed import bench, bench_gpu, bench_models, bench_scans
from sensprobe.packed import bench_references as references
from sensprobe.packed.bench_inside import inside_on_gpu
from sensprobe.packed.bench_steps import STEPS
from sensprobe.packed.bench_work import bytes_by_kind


@pytest.fixture(autouse=True)
def _small(device, monkeypatch):
    monkeypatch.setattr(bench_models, "SHAPES", {"tiny": 128})
    for module in (bench_gpu, bench_scans):
        monkeypatch.setattr(module, "TOKENS", 3)
    monkeypatch.setattr(bench_gpu, "LAYERS", {"tiny": 2})
    monkeypatch.setattr(bench_gpu, "UPDATED", 2)
    monkeypatch.setattr(bench_gpu, "DEVICE", device)


CASES = len(bench_gpu.WEIGHTS) + len(bench.WHOLE) + len(STEPS) + len(bench_scans.SCANS)


@pytest.mark.parametrize("place", range(CASES))
def test_every_case_runs(place):
    made = bench_gpu.cases("tiny", 1)
    assert len(made) == CASES
    case = made[place]()
    case.run()
    assert case.reference is not None
    case.reference()
    if case.kernel is not None:
        case.kernel()
    if case.operation.startswith("linear"):
        inputs = 128 + 256 + 2 * 4 if case.operation.endswith("int8 inputs") else 4 * (128 + 256)
        bits = {"int8": 8, "int4": 4, "int3": 3, "int2": 2, "e4m3": 8}[case.scheme.split("/")[0]]
        weights = 2 * 6 * 128**2 * bits // 8
        scales = case.bytes - weights - 2 * (inputs + 4 * (512 + 128))
        assert 0 < scales <= weights / 4
    elif case.operation in ("state, Mamba", "state, Mamba-2"):
        n, rows = (16, 256) if case.operation == "state, Mamba" else (128, 256)
        bits = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}[case.scheme.split("/")[0]]
        states = 2 * 2 * rows * n * bits // 8
        assert states < case.bytes < 2 * states + 200_000


def test_the_kinds_of_a_step_run_alone(device, monkeypatch):
    """As `sensprobe bench MODEL --device cuda` times them, as graphs."""
    monkeypatch.setattr(bench_gpu, "captured", lambda run: run)
    monkeypatch.setattr(bench_gpu, "seconds", lambda run: run() or 1.0)
    model = bench_models.like_published(128, "mamba2")
    plan = {"layers.*.in_proj_in": "int8/dynamic", "layers.*.in_proj.*": "int8/channel"}
    weights, made = bench_models.program_of(model, plan, 1)
    kinds = bytes_by_kind(made, weights, code_bytes=1)
    timed = inside_on_gpu("plan", weights, made, torch.zeros(1, dtype=torch.int64))
    assert set(timed(1)) == {f"plan {kind}" for kind in kinds}
    assert {"products", "recurrence", "rounding", "embedding"} <= set(kinds)


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


MOVED = {
    # bytes of two layers, one sequence: d_model 128, 256 channels, heads of 64, 128 states
    ("state, S4D", "fp32"): 2 * (2 * 8 * 128 * 32 + 2 * 4 * 128 + 3 * 8 * 128 * 32),
    ("convolution", "fp32"): 2 * (2 * 4 * 512 * 3 + 2 * 4 * 512 + 4 * 512 * 5),
    ("convolution", "int8/channel/dynamic"): 2 * (2 * 512 * (3 + 2) + 2 * 4 * 512 + 4 * 512 * 5),
    ("norm, rounded", "int8/dynamic"): 2 * (2 * 4 * 128 + 4 * 128),
    ("rotation, rounded", "int8/hadamard/dynamic"): 2 * (4 * 256 + 256 + 4),
    ("embedding", "int8/channel"): 128 + 2 + 4 * 128,
    ("embedding", "int4/group32"): 64 + 2 * 4 + 4 * 128,
    # one layer, three tokens
    ("scan, Mamba", "fp32"): 3 * 4 * (3 * 256 + 2 * 16) + 2 * 4 * 256 * 16 + 4 * 256 * 16,
    ("scan, Mamba-2", "int8/head/dynamic"):
        3 * 4 * (2 * 256 + 4 + 2 * 128) + 2 * (256 * 128 + 2 * 4) + 4 * 4,
}  # fmt: skip


def test_bytes_are_those_that_must_move():
    made = [make() for make in bench_gpu.cases("tiny", 1)[len(bench_gpu.WEIGHTS) :]]
    found = {(case.operation, case.scheme): case.bytes for case in made}
    assert {name: found[name] for name in MOVED} == MOVED


@pytest.mark.parametrize(("rows", "n"), [((6,), 4), ((3, 5), 4)], ids=["Mamba", "Mamba-2"])
def test_the_kernels_of_mamba_ssm_are_asked_for_the_same_update(monkeypatch, rows, n):
    """Of the shapes its functions document; here they are in PyTorch."""
    calls = []

    def update(state, x, dt, A, B, C):
        calls.append("update")
        assert (x.shape, dt.shape, A.shape) == ((2, *rows), (2, *rows), (*rows, n))
        assert B.shape == C.shape == ((2, n) if len(rows) == 1 else (2, 1, n))
        assert len(rows) == 1 or (dt.stride(-1), A.stride(-1), A.stride(-2)) == (0, 0, 0)
        B, C = (v.view(2, *[1] * len(rows), n) for v in (B, C))
        state.copy_(torch.exp(dt[..., None] * A) * state + (dt * x)[..., None] * B)
        return (state * C).sum(-1)

    def scan(x, dt, A, B, C, **options):
        calls.append("scan")
        assert x.shape == dt.shape == (2, *rows, 3)
        assert (A.shape, B.shape, C.shape) == ((*rows, n), (2, n, 3), (2, n, 3))

    def chunks(x, dt, A, B, C, size, **options):
        calls.append("chunks")
        assert (x.shape, dt.shape, A.shape) == ((2, 3, *rows), (2, 3, rows[0]), rows[:1])
        assert B.shape == C.shape == (2, 3, 1, n)

    for name, made in {
        "ops.triton.selective_state_update": {"selective_state_update": update},
        "ops.selective_scan_interface": {"selective_scan_fn": scan},
        "ops.triton.ssd_combined": {"mamba_chunk_scan_combined": chunks},
    }.items():
        monkeypatch.setitem(sys.modules, f"mamba_ssm.{name}", SimpleNamespace(**made))
    for parent in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton"):
        monkeypatch.setitem(sys.modules, parent, SimpleNamespace(__path__=[]))
    theirs = references.ssm_update((*rows, n), 2, "cpu")
    ours = references.torch_update((*rows, n), 2)
    for _ in range(2):
        torch.testing.assert_close(theirs(), ours())
    references.ssm_scan((*rows, n), 2, 3, "cpu")()
    assert calls == ["update", "update", "scan" if len(rows) == 1 else "chunks"]


@pytest.mark.gpu
def test_times_are_those_of_graphs(device):
    case = bench_gpu.cases("tiny", 1)[0]()
    told = bench_gpu.measured(case, bench_gpu.copy_bandwidth())
    assert 0 < told["seconds"] < 1
    assert told["quartiles"][0] <= told["seconds"] <= told["quartiles"][1]
