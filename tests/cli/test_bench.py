"""`sensprobe bench`: every operation at a shape, with what it moved and its ratio; and a model's
steps and sequences under a plan, beside full precision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import Shell
from packed_memory import CONFIGS
from rich.console import Console
from selective import tiny

from sensprobe.cli import commands, main, show
from sensprobe.export import export_model
from sensprobe.jobs import benchmark
from sensprobe.jobs.benchmark import DEVICES
from sensprobe.jobs.benchmark_model import bench_model
from sensprobe.models.apply import Applier
from sensprobe.models.mamba import MambaConfig
from sensprobe.packed import bench, bench_models, bench_rounds, bench_scans
from sensprobe.packed.bench_steps import STEPS
from sensprobe.packed.bench_work import KINDS
from sensprobe.plans.plan import Plan, parse_setting
from sensprobe.plans.scheme import parse
from sensprobe.report.benchmark_tables import about_benchmark, benchmark_table
from sensprobe.report.benchmarks import benchmarks_of, latest
from sensprobe.runs import Manifest, open_run
from sensprobe.session.source import Source, open_model, outlined


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """One small shape and few rounds: the numbers are not looked at here."""
    monkeypatch.setattr(bench_models, "SHAPES", {"tiny": 64})
    for module in (bench, bench_scans):
        monkeypatch.setattr(module, "TOKENS", 3)
    monkeypatch.setattr(bench, "LEAST_SECONDS", 1e-4)
    monkeypatch.setattr(bench, "ROUNDS", 2)
    monkeypatch.setattr(bench, "COPIED_BYTES", 1 << 16)
    monkeypatch.setattr(bench_rounds, "LEAST_SECONDS", 1e-4)
    monkeypatch.setattr(bench_rounds, "ROUNDS", 3)
    monkeypatch.setattr(bench_rounds, "FEWEST", 2)


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
    monkeypatch.setattr(benchmark, "free_bytes", lambda: 1 << 20)
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


# -- a model of the user's ------------------------------------------------------------------------

DIGITS = ["bench", "s4d-digits", "--length", "3"]
PACKED = ["--set", "layers.*.out_proj=int8/channel", "--set", "layers.*.state=int8/head/dynamic"]
INSIDE = {"elementwise", "products", "recurrence", "other"}


def test_a_model_is_timed_under_its_plan_and_at_full_precision(capsys):
    assert main([*DIGITS, *PACKED, "--batch", "1,2,1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["batches"], told["length"], told["packed"]) == ([1, 2], 3, True)
    assert (told["threads"], told["plan_name"]) == (torch.get_num_threads(), "the plan")
    assert told["weight_bytes"] < told["full_weight_bytes"]
    assert told["state_bytes"] < told["full_state_bytes"]
    rows = {(r["scheme"], r["batch"], r["operation"]): r for r in told["rows"]}
    assert len(rows) == len(told["rows"])
    ways = {"the plan": INSIDE, "full precision": INSIDE, "PyTorch": set()}
    assert set(rows) == {
        (way, batch, name)
        for way, within in ways.items()
        for batch in (1, 2)
        for name in {"step", "sequence", *within}
    }
    assert all(row["stderr"] >= 0 and row["rounds"] >= 2 for row in rows.values())
    for key in ("ratio", "times", "share", "of_copy", "bytes_per_second"):
        assert all(row[f"{key}_stderr"] >= 0 for row in rows.values() if key in row), key
    step, full = (rows[way, 2, "step"] for way in ("the plan", "full precision"))
    assert step["bytes"] < full["bytes"]
    assert step["bytes"] == sum(rows["the plan", 2, name]["bytes"] or 0 for name in INSIDE)
    for name in INSIDE:
        assert isinstance(rows["the plan", 1, name]["share_stderr"], float)
    for name in ("step", "products", "sequence"):
        assert rows["the plan", 1, name]["times"] > 0
    assert rows["the plan", 1, "sequence"]["size"] == "3 steps"
    assert step["ratio"] > 0


def test_a_model_without_a_plan_is_timed_at_full_precision_alone(capsys):
    assert main([*DIGITS, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["scheme"] for row in told["rows"]} == {"full precision", "PyTorch"}
    assert told["plan"] == {}


def test_a_table_of_a_model_fits_80_columns(capsys, monkeypatch):
    model = tiny(CONFIGS["tokens"])
    schemes = {"layers.0.in_proj_in": parse("int8/dynamic"), "layers.1.D": parse("fp16")}
    source = Source(model, outlined("a-model-of-a-long-name", model), Path("."), {}, "f" * 16)
    name = "a-plan-of-a-name-that-is-even-longer"
    told = bench_model(source, schemes, Applier(model), plan_name=name, batches=(1, 64), length=2)
    printed = Console(width=80)
    for part in show.bench(told):
        printed.print(part)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert f"a-model-of-a-long-name under {name}" in " ".join(out.split())
    for name in ("step", *(f"  {kind}" for kind in (*KINDS, "other"))):
        assert sum(line.startswith(f"{name} ") for line in lines) == 2, name
    assert sum("sequence of 2" in line for line in lines) == 2


def test_a_plan_that_does_not_stream_is_timed_as_the_simulation(capsys, caplog):
    words = ["--set", "layers.*.state=int8/head/dynamic/every4"]
    assert main([*DIGITS, *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert not told["packed"]
    assert (
        "layers.0.state in int8/head/dynamic/every4: no streaming kernel"
        in (told["why_not_packed"])
    )
    of = {(r["scheme"], r["operation"]) for r in told["rows"]}
    assert {name for way, name in of if way == "the plan"} == {"step", "sequence"}
    assert {name for way, name in of if way == "full precision"} == {"step", "sequence", *INSIDE}
    assert main([*DIGITS, *words]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the plan does not stream from packed memory: layers.0.state" in said
    assert "Its step is the simulation's" in said


def test_a_model_without_streaming_kernels_is_timed_as_the_simulation(capsys):
    """At full precision too: twelve channels are not taken sixteen together."""
    config = MambaConfig(d_input=2, d_output=3, d_model=6, dt_rank=1, d_state=2)
    model = tiny(config)
    source = Source(model, outlined("odd", model), Path("."), {}, "f" * 16)
    told = bench_model(source, {}, Applier(model), length=2)
    assert not told["packed"]
    assert "it has 12 rows, and streaming kernels take sixteen together" in told["why_not_packed"]
    assert {row["operation"] for row in told["rows"]} == {"step", "sequence"}
    for part in show.bench(told):
        commands.stdout.print(part)
    assert "full precision does not stream from packed memory" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_plan_with_something_to_calibrate_takes_data(capsys):
    static = ["--set", "layers.*.state=int8/head"]
    assert main([*DIGITS, *static]) == 2
    assert "no data to do it on. Name data" in capsys.readouterr().err
    assert main([*DIGITS, *static, "--data", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["packed"]


def test_an_exported_model_is_timed_under_its_own_plan(tmp_path, capsys):
    source = open_model("s4d-digits")
    plan = Plan((parse_setting("layers.*.out_proj=int4/channel"),))
    schemes = plan.resolve(source.model.sites.values())
    export_model(source.model, schemes, Applier(source.model), tmp_path / "out", name="small")
    words = ["bench", str(tmp_path / "out"), "--length", "2"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["plan_name"], told["packed"]) == ("exported", True)
    assert told["plan"] == {"layers.0.out_proj": "int4/channel"}
    assert main([*words, "--plan", "w8a8"]) == 2
    assert "is an exported model and runs its own plan" in capsys.readouterr().err


def test_a_run_keeps_the_rows_of_a_model_beside_other_benches(tmp_path, capsys):
    """Both are shown; a bench of a model does not stand in for one of shapes."""
    run = open_run(tmp_path / "run", Manifest("m", "a", "d", "b", 1))
    assert main([*DIGITS, *PACKED, "--run", str(run.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (kept,) = run.benches()
    assert list(kept.rows) == [row for row in told["rows"] if row["seconds"] > 0]
    assert kept.outcome == "finished"
    with run.benching(told | {"model": "", "batch": 1}) as keep:
        keep(told["rows"][0])
    one, other = latest(benchmarks_of(run))
    assert (one.subject, other.subject) == ("", "s4d-digits under the plan")
    assert other.problem == ""
    assert {case.operation for case in other.cases} >= {"step", "products", "sequence"}
    assert any("Steps of s4d-digits under the plan" in line for line in about_benchmark(other))
    table = benchmark_table(other)
    assert set(table["shape"]) == {"s4d-digits, batch 1"}
    assert "recurrence" in set(table["operation"])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["s4d-digits", "--batch", "1,0"], "--batch 0: at least one sequence"),
        (["s4d-digits", "--batch", "many"], "'many' is no number of sequences"),
        (["s4d-digits", "--length", "0"], "--length 0: a sequence has at least one step"),
        (["s4d-digits", "--shapes", "tiny"], "leave one of them out"),
        (["s4d-digits", "--set", "layers.*.in_proj.x=int8/channel"], "matches no site"),
        (["no-such-model"], "no model 'no-such-model'"),
        (["--plan", "w8a8"], "--plan is of a model"),
        (["--batch", "1,8"], "several numbers with a MODEL"),
    ],
)
def test_what_a_model_cannot_have_says_why(words, why, capsys):
    done = Shell(capsys)("bench", *words)
    assert done.code == 2
    assert why in done.err
