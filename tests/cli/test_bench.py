"""`sensprobe bench`: every operation at a shape, with what it moved and its ratio."""

from __future__ import annotations

import json

import pytest
import torch
from rich.console import Console

from sensprobe.cli import commands, main
from sensprobe.packed import bench, bench_models, bench_scans
from sensprobe.packed.bench_devices import DEVICES
from sensprobe.packed.bench_steps import STEPS
from sensprobe.runs import Manifest, open_run
from sensprobe.steps import benching


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """One small shape and few rounds: the numbers are not looked at here."""
    monkeypatch.setattr(bench_models, "SHAPES", {"tiny": 64})
    for module in (bench, bench_scans):
        monkeypatch.setattr(module, "TOKENS", 3)
    monkeypatch.setattr(bench, "LEAST_SECONDS", 1e-4)
    monkeypatch.setattr(bench, "ROUNDS", 2)
    monkeypatch.setattr(bench, "COPIED_BYTES", 1 << 16)


def test_every_operation_is_timed(capsys):
    assert main(["bench", "--shapes", "tiny", "--batch", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["copy_bytes_per_second"] > 0
    found = {(row["operation"], row["scheme"]) for row in told["rows"]}
    assert found == {
        *(("linear", scheme) for scheme in bench.WEIGHTS),
        *(("linear, int8 inputs", scheme) for scheme in bench.WHOLE),
        *((step.operation, step.scheme) for step in STEPS),
        *((scan.operation, scan.scheme) for scan in bench_scans.SCANS),
    }
    assert {operation for operation, _ in found} == {
        "linear", "linear, int8 inputs", "state, Mamba", "state, Mamba-2", "state, S4D",
        "convolution", "norm, rounded", "rotation, rounded", "embedding", "scan, Mamba",
        "scan, Mamba-2", "scan in chunks, Mamba-2",
    }  # fmt: skip
    for row in told["rows"]:
        assert row["seconds"] > 0
        assert row["ratio"] == pytest.approx(row["reference_seconds"] / row["seconds"])
        assert row["bytes_per_second"] == pytest.approx(row["bytes"] / row["seconds"])


def test_bytes_are_those_that_must_move():
    """Of an update: the packed state in and out, x, dt, y, B and C in float32, and A."""
    rows, n, batch = 128, 16, 2
    made = [make() for make in bench.cases("tiny", batch)]
    (case,) = (c for c in made if (c.operation, c.scheme) == MAMBA_INT8)
    state = rows * n + 2 * rows  # codes, and a float16 scale a channel
    assert case.bytes == 2 * batch * state + 4 * batch * (3 * rows + 2 * n) + 4 * rows * n


@pytest.mark.parametrize("scheme", bench.WHOLE)
def test_inputs_of_whole_numbers_are_a_byte_each(scheme):
    """And a float32 scale; what is timed is the product of codes."""
    rows, columns, batch = 4 * 64, 64, 2
    made = [make() for make in bench.cases("tiny", batch)]
    (case,) = (c for c in made if (c.operation, c.scheme) == ("linear, int8 inputs", scheme))
    bits = int(scheme[3])
    weights = rows * columns * bits // 8 + 2 * rows
    assert case.bytes == weights + batch * (columns + 4 + 4 * rows)
    case.run()


MAMBA_INT8 = ("state, Mamba", "int8/head/dynamic")


def test_a_table_for_people(capsys, monkeypatch):
    monkeypatch.setattr(commands, "stdout", Console(width=80))
    assert main(["bench", "--shapes", "tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("copying a large array reaches" in line for line in lines)
    (head,) = (line for line in lines if "GB/s" in line and "scheme" in line)
    assert head.rstrip().endswith("× PyTorch")
    assert any("int8/head/dynamic" in line for line in lines), "a scheme is shown whole"
    assert max(map(len, lines)) <= 80


def test_a_run_keeps_what_was_printed(tmp_path, capsys):
    run = open_run(tmp_path / "run", Manifest("m", "a", "d", "b", 1))
    words = ["bench", "--shapes", "tiny", "--batch", "2", "--run", str(run.path)]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(words) == 0
    assert f"keptin{run.path}" in "".join(
        capsys.readouterr().err.split()
    )  # a line may end anywhere
    first, second = run.benches()
    assert first.document == told
    assert len(second.rows) == len(told["rows"])
    assert {"created", "machine", "device", "versions"} <= set(told)
    assert told["versions"]["torch"] == torch.__version__


def test_a_stopped_bench_keeps_its_cases(tmp_path, capsys, monkeypatch):
    run = open_run(tmp_path / "run", Manifest("m", "a", "d", "b", 1))
    timed = []

    def measured(case, copied):
        if len(timed) == 2:
            raise KeyboardInterrupt
        timed.append(case)
        return bench.measured(case, copied)

    monkeypatch.setitem(DEVICES, "cpu", DEVICES["cpu"]._replace(measured=measured))
    assert main(["bench", "--shapes", "tiny", "--run", str(run.path)]) == 130
    out, err = capsys.readouterr()
    assert not out
    told = "".join(err.split())  # a line may end anywhere
    assert f"timediskeptin{run.path};thenextbenchstartsanew" in told
    (found,) = run.benches()
    assert (len(found.rows), found.outcome) == (2, "stopped")
    timed.clear()
    assert main(["bench", "--shapes", "tiny"]) == 130
    assert "kept" not in capsys.readouterr().err


def test_what_is_no_run_is_not_benched_into(tmp_path, capsys):
    assert main(["bench", "--shapes", "tiny", "--run", str(tmp_path / "none")]) == 1
    assert "no run at" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_batch_that_finds_no_room(tmp_path, capsys, monkeypatch):
    run = open_run(tmp_path / "run", Manifest("m", "a", "d", "b", 1))
    monkeypatch.setattr(benching, "free_bytes", lambda: 1 << 20)
    words = ["bench", "--shapes", "tiny", "--batch", "100", "--run", str(run.path)]
    assert main(words) == 1
    needed = 2 * 4 * 100 * 2 * 64 * 128
    said = capsys.readouterr().err
    assert f"--batch 100 at the shapes of tiny: that needs {needed:,} bytes" in said
    assert "Ask for a smaller batch" in said
    assert run.benches() == []


def test_a_gpu_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "--shapes", "tiny", "--device", "cuda"]) == 2
    said = capsys.readouterr().err
    assert "device cuda: torch sees no CUDA GPU here. Use cpu" in said


def test_a_gpu_without_the_instructions(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert main(["bench", "--shapes", "tiny", "--device", "cuda"]) == 1
    said = capsys.readouterr().err
    assert "need a GPU of compute capability 8.0 or more" in said
    assert "Tesla T4 has 7.5. Leave --device out" in said


def test_a_device_without_kernels(capsys, monkeypatch):
    monkeypatch.delitem(DEVICES, "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert main(["bench", "--shapes", "tiny", "--device", "cuda"]) == 1
    said = capsys.readouterr().err
    assert "no operation on packed memory has a kernel for it yet; there are those of cpu" in said


@pytest.mark.parametrize(
    ("words", "why"),
    [(["--shapes", "7b"], "no shape 7b"), (["--shapes", "tiny", "--batch", "0"], "at least one")],
)
def test_what_cannot_be_says_why(words, why, capsys):
    assert main(["bench", *words]) == 2
    assert why in capsys.readouterr().err
