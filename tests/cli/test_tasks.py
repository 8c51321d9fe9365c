"""`eval --task` and `python -m sensprobe.lm_eval`, from files, and what goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import write_own
from command_line import Shell
from language import MAMBA2, write_model, write_stories
from lm_tasks import CHOICES, PAIRS, WORDS, write_files

import sensprobe.evaluate.lm_harness as room
from sensprobe import lm_eval
from sensprobe.errors import DataError, SensprobeError, UsageError
from sensprobe.evaluate.lm_harness.scoring import Asked, Scorer
from sensprobe.models.apply import Applier
from sensprobe.models.s4d import S4DConfig
from sensprobe.numerics.taps import EXACT
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import parse
from sensprobe.scores.score import paired
from sensprobe.session.source import open_model

lm = pytest.mark.lm
STATE = ["--set", "layers.*.state=int3/head/dynamic"]
STATIC = ["--set", "layers.*.y=int4"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny.safetensors", MAMBA2)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data = write_files(tmp_path / "data")
    monkeypatch.setenv("SENSPROBE_DATA", str(data))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return data


def refused(shell: Shell, says: str, *argv: object, code: int = 2) -> None:
    done = shell(*argv)
    assert done.code == code, (done.code, done.err)
    assert says in " ".join(done.err.split()), done.err
    assert "Traceback" not in done.err


def row_of(document: Any, task: str, metric: str = "acc") -> Any:
    return next(r for r in document["tasks"] if (r["task"], r["metric"]) == (task, metric))


def prefers_first(path: Path, plan: dict[str, Any], name: str) -> np.ndarray:
    """Which pairs of a paradigm the model gets right, by its own likelihoods."""
    model = open_model(path).model
    tap = Applier(model).tap({n: parse(s) for n, s in plan.items()}) if plan else EXACT
    texts = [text for pair in PAIRS[name] for text in pair]
    asked = [Asked(np.frombuffer(f"\n{t}".encode(), np.uint8).astype(np.int32), 1) for t in texts]
    values = [one.value for one in Scorer(model, tap).likelihoods(asked)]
    return np.array([a > b for a, b in zip(values[::2], values[1::2], strict=True)], float)


@lm
def test_blimp_is_the_share_of_pairs_in_the_right_order(
    shell: Shell, model: Path, files: Path
) -> None:
    done = shell.ok("eval", model, "--task", "blimp", *STATE, "--compare", "--json").json
    plan = {"layers.0.state": "int3/head/dynamic"}
    gaps = []
    for name, pairs in PAIRS.items():
        new, old = prefers_first(model, plan, name), prefers_first(model, {}, name)
        row = row_of(done, f"blimp_{name}")
        assert (row["value"], row["n"]) == (pytest.approx(new.mean()), len(pairs))
        assert row["stderr"] == pytest.approx(new.std(ddof=1) / len(new) ** 0.5)
        assert row["baseline"]["value"] == pytest.approx(old.mean())
        gap = paired(new, old)
        assert row["difference"]["value"] == pytest.approx(gap.value)
        assert row["difference"]["stderr"] == pytest.approx(gap.stderr)
        gaps.append(gap)
    group = row_of(done, "blimp")
    assert done["tasks"][0] == group
    assert (group["n"], group["members"]) == (10, ["blimp_first", "blimp_second"])
    assert group["value"] == pytest.approx(
        np.mean([row_of(done, f"blimp_{name}")["value"] for name in PAIRS])
    )
    assert group["difference"]["value"] == pytest.approx(np.mean([g.value for g in gaps]))
    assert group["difference"]["stderr"] == pytest.approx(
        np.sqrt(sum(g.stderr**2 for g in gaps)) / 2
    )


@lm
def test_each_task_from_files(shell: Shell, model: Path, files: Path) -> None:
    asked = ["--task", "lambada_openai", "--task", "arc_easy", "--task", "piqa"]
    found = shell.ok("eval", model, *asked, "--json").json
    assert {(r["task"], r["metric"], r["n"]) for r in found["tasks"]} == {
        ("lambada_openai", "perplexity", len(WORDS)),
        ("lambada_openai", "acc", len(WORDS)),
        *((task, m, len(CHOICES)) for task in ("arc_easy", "piqa") for m in ("acc", "acc_norm")),
    }
    loaded = open_model(model).model
    texts = [(w["context"], f" {w['continuation']}") for w in WORDS]
    asked_ = [
        Asked(np.frombuffer((c + t).encode(), np.uint8).astype(np.int32), len(c)) for c, t in texts
    ]
    nats = [one.value for one in Scorer(loaded, EXACT).likelihoods(asked_)]
    perplexity = row_of(found, "lambada_openai", "perplexity")
    assert perplexity["value"] == pytest.approx(np.exp(-np.mean(nats)), rel=1e-5)
    assert perplexity["higher_is_better"] is False
    assert (found["lm_eval"], found["limit"]) == (__import__("lm_eval").__version__, None)


@lm
def test_prompts_are_those_of_lm_eval(files: Path) -> None:
    from sensprobe.evaluate.lm_harness.local import documents

    folder = files / "lm_tasks"
    for task in ("arc_easy", "piqa"):
        first = documents(str(folder / f"{task}.jsonl"))["test"][0]
        assert first["query"] == "Question: what is 0?\nAnswer:"
    word = documents(str(folder / "lambada_openai.jsonl"))["test"][0]
    assert word["context"].endswith(" the")
    assert word["continuation"] == " state"


@lm
def test_what_is_printed(shell: Shell, model: Path, files: Path) -> None:
    printed = shell.ok(
        "eval", model, "--task", "blimp", "--task", "lambada_openai", *STATE, "--compare",
        "--limit", 3,
    )  # fmt: skip
    assert "of each task only the first 3 documents" in printed.out
    assert "nats a sample" in printed.out
    assert "acc % ↑" in printed.out
    assert "bits a value" in printed.out
    rows = [line.split() for line in printed.out.splitlines()[1:6]]
    names = ["blimp", "first", "second", "lambada_openai", "lambada_openai"]
    assert [row[0] for row in rows] == names
    assert "± 0.00 ·" in printed.out  # a difference that is none
    assert printed.err == ""


@lm
def test_the_batch_size_changes_nothing(shell: Shell, model: Path, files: Path) -> None:
    asked = ["eval", model, "--task", "arc_easy", "--json"]
    want = shell.ok(*asked).json["tasks"]
    assert shell.ok(*asked, "--batch-size", 1).json["tasks"] == want
    few = shell.ok(*asked, "--num-fewshot", 2).json
    assert few["num_fewshot"] == 2


OWN = """
task: mine
custom_dataset: !function mine.documents
output_type: generate_until
test_split: test
doc_to_text: q
doc_to_target: a
generation_kwargs: {until: ["\\n"], max_gen_toks: 5}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
ROLLING = """
task: rolls
custom_dataset: !function mine.documents
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: q
metric_list: [{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}]
"""
READER = """
from datasets import Dataset
def documents(**others):
    return {"test": Dataset.from_list([{"q": f"the state {k}", "a": "b"} for k in range(4)])}
"""


@lm
def test_tasks_of_ones_own(shell: Shell, model: Path, files: Path, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "mine.yaml").write_text(OWN)
    (folder / "rolls.yaml").write_text(ROLLING)
    (folder / "mine.py").write_text(READER)
    asked = ["--include", folder, "--task", "mine", "--task", "rolls"]
    done = shell.ok("eval", model, *asked, *STATE, "--compare", "--json")
    assert "data is read by `datasets`" in done.err
    exact, rolling = done.json["tasks"]
    assert (exact["value"], exact["n"], exact["difference"]["value"]) == (0.0, 4, 0.0)
    assert rolling["value"] == pytest.approx(8, abs=1)  # random weights
    assert rolling["difference"]["value"] == pytest.approx(
        rolling["value"] - rolling["baseline"]["value"], rel=1e-6
    )
    path = folder / "rolls.yaml"
    alone = shell.ok("eval", model, "--task", path, *STATE, "--json").json["tasks"]
    assert alone[0]["value"] == rolling["value"]


@lm
def test_static_ranges_are_calibrated_on_named_text(
    shell: Shell, model: Path, files: Path, tmp_path: Path
) -> None:
    says = "the plan has something to calibrate (layers.0.y in int4, of 1)"
    asked = ["eval", model, "--task", "piqa", *STATIC]
    refused(shell, says, *asked)
    data = ["--data", f"text:{write_stories(tmp_path / 's', 24, 12)},length=32,context=8"]
    done = shell.ok(*asked, *data, "--json")
    assert "calibrating on" in done.err
    assert done.json["plan"] == {"layers.0.y": "int4"}


@lm
def test_an_exported_model_runs_its_own_plan(
    shell: Shell, model: Path, files: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    data = ["--data", f"text:{write_stories(tmp_path / 's', 24, 12)},length=32,context=8"]
    schemes = ["--scheme", "int8/head/asym", "--scheme", "int4/head/asym"]
    budget = shell.ok("profile", model, *data, *schemes, "--run", run, "--json").json["full_bytes"]
    shell.ok("search", "--run", run, "--budget", budget // 3, "--evaluations", 4, "--no-confirm")
    shell.ok("export", "--run", run, "--plan", budget // 3, "--out", out)
    tasks = ["--task", "lambada_openai", "--json"]
    found = shell.ok("eval", out, *tasks).json
    plan = shell.ok("eval", model, "--plan", out / "plan.json", *data, *tasks).json
    assert found["tasks"] == plan["tasks"]
    assert found["cost"]["total_bytes"] < budget // 3
    refused(shell, "full-precision weights are not here", "eval", out, *tasks, "--compare")


# -- lm-eval's own command line -------------------------------------------------------------------


def own_main(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sensprobe.lm_eval", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@lm
def test_its_own_command_line_gives_the_same(
    shell: Shell, model: Path, files: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    chosen = Plan((("layers.*.state", parse("int3/head/dynamic")),), "p")
    plan.write_text(json.dumps(chosen.to_json()))
    want = shell.ok("eval", model, "--task", "piqa", "--plan", plan, "--json").json
    args = f"model={model},plan={plan}"
    asked = ["--model", "sensprobe", "--model_args", args, "--tasks", "piqa"]
    done = own_main(*asked, "--output_path", tmp_path / "results.json")
    assert done.returncode == 0, done.stderr
    [found] = tmp_path.glob("results*.json")
    scores = json.loads(found.read_text())["results"]["piqa"]
    row = row_of(want, "piqa", "acc_norm")
    assert scores["acc_norm,none"] == row["value"]
    assert scores["acc_norm_stderr,none"] == row["stderr"]
    assert "from files in" in done.stderr
    assert "overrides existing task" not in done.stderr
    assert "piqa" in done.stdout


@lm
def test_a_typo_in_its_own_command_line(model: Path, files: Path) -> None:
    args = ["--model", "sensprobe", "--model_args", f"model={model}", "--tasks", "piqua"]
    done = own_main(*args)
    assert done.returncode == 2
    assert "lm-eval says: " in done.stderr
    assert "Traceback" not in done.stderr


@lm
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"model": "MODEL", "pln": "w8a8"}, "--model_args pln: there are model, plan, data"),
        ({"plan": "w8a8"}, "--model_args names no model"),
        ({"model": "nowhere.safetensors"}, "no model 'nowhere.safetensors'"),
        ({"model": "MODEL", "plan": "w9a9"}, "w9a9"),
        ({"model": "MODEL", "batch_size": "few"}, "--batch_size few"),
        ({"model": "s4d-digits"}, "so text says nothing to it"),
    ],
)
def test_model_args_that_are_wrong(model: Path, given: dict[str, Any], says: str) -> None:
    named = {key: str(model) if value == "MODEL" else value for key, value in given.items()}
    with pytest.raises(SensprobeError, match=says):
        lm_eval.open_model(**named)


@lm
@pytest.mark.parametrize(
    ("asked", "together"), [(None, 256), (1, 256), ("auto:4", 256), ("8", 8), (32, 32)]
)
def test_batch_sizes_as_lm_eval_gives_them(model: Path, asked: Any, together: int) -> None:
    made = lm_eval.open_model(model=str(model), batch_size=asked, device="cuda:0")
    assert made._batch == together


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("so"), 2),
        (DataError("so"), 1),
        (ValueError("so"), 2),
        (RuntimeError("so"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes_of_its_own_command_line(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(words: list[str], folder: Path) -> None:
        assert words == ["ls"]
        raise error

    monkeypatch.setattr(room, "find_spec", lambda name: "here")
    monkeypatch.setattr(lm_eval, "_run", fails)
    assert lm_eval.main(["ls"]) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    if not isinstance(error, KeyboardInterrupt):
        assert "so" in said
        with pytest.raises(type(error)):
            lm_eval.main(["ls", "--debug"])


# -- what goes wrong ------------------------------------------------------------------------------


@lm
def test_a_typo_says_what_is_near(shell: Shell, model: Path, files: Path) -> None:
    refused(shell, "Nearest: lambada_openai", "eval", model, "--task", "lambada_openia")


@lm
def test_a_task_that_needs_the_network(
    shell: Shell, model: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "lm_tasks" / "piqa.jsonl").unlink()

    def unreachable(**asked: Any) -> None:
        raise ConnectionError("Couldn't reach 'baber/piqa' on the Hub")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    asked = ["eval", model, "--task", "piqa"]
    refused(shell, "data that is not on this machine cannot be had", *asked, code=1)
    refused(shell, "set SENSPROBE_DATA to a folder whose lm_tasks/ has one of", *asked, code=1)
    refused(shell, "which downloads what", *asked, code=1)


@lm
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--limit", 0], "--limit 0: give 1 or more"),
        (["--batch-size", 0], "--batch-size 0"),
        (["--num-fewshot", -1], "--num-fewshot -1"),
        (["--include", "nowhere"], "no such folder of task files"),
        (["--task", "blimp_first"], "lm-eval says"),
        (["--metric", "divergence"], "--metric is for --data"),
        (["--split", "search"], "--split is for --data"),
        (["--dead-band"], "--dead-band is for --data"),
        (["--run", "runs/x"], "--run is for --data"),
    ],
)
def test_options_that_cannot_be(
    shell: Shell, model: Path, files: Path, options: list[Any], says: str
) -> None:
    refused(shell, says, "eval", model, "--task", "blimp", *options)


@lm
def test_models_that_read_no_text(shell: Shell, tmp_path: Path, files: Path) -> None:
    write_own(tmp_path / "s4.safetensors", S4DConfig(d_input=1, d_output=2, d_model=4, d_state=2))
    says = "so text says nothing to it"
    refused(shell, says, "eval", tmp_path / "s4.safetensors", "--task", "blimp", code=1)


def test_a_missing_extra(shell: Shell, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    refused(shell, "pip install -e '.[lm]'", "eval", model, "--task", "blimp")
    assert lm_eval.main(["ls", "tasks"]) == 2


def test_neither_data_nor_task(shell: Shell, model: Path) -> None:
    refused(shell, "give --data DATA (digits, text:FILE, …), or --task TASK", "eval", model)
    asked = ["eval", model, "--data", "pydoc", "--num-fewshot", 1]
    refused(shell, "--num-fewshot is for --task", *asked)
