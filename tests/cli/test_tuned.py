"""Tuned models of a run on the command line: what `tune` prints next works as it stands there."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from command_line import Shell
from shipped_run import copy_searched

ONE = ["--epochs", 1, "--lr", 0.01]


def commands(err: str) -> list[list[str]]:
    """The commands that were printed as next steps, as a shell takes them apart."""
    lines = err[err.index("next: ") :].removeprefix("next: ").splitlines()
    words = [shlex.split(line) for line in lines]
    assert {line[0] for line in words} == {"sensprobe"}
    return [line[1:] for line in words]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    copy_searched(tmp_path / "it's mine" / "run $1")
    return tmp_path / "it's mine" / "run $1"


def test_next_steps_in_a_run(
    shell: Shell, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = shell.ok("tune", "--run", run, "--plan", "1.5KiB", *ONE)
    evaluated, exported, reported = commands(done.err)
    document = json.loads((run / "tuned" / "1.5KiB" / "tuned.json").read_text())
    after = document["splits"]["confirmation"]["after"]
    assert shell.ok(*evaluated, "--json").json["value"] == after["value"]
    assert "reloaded: the same tensors" in shell.ok(*exported).out
    again = shell.ok("eval", tmp_path / "exported", "--data", "digits", "--json").json
    assert again["value"] == after["value"]
    said = shell.ok(*reported).out
    assert "✚ tuned" in said
    assert "Tuned: trained under their plans, scored on 400 confirmation samples" in said


def test_next_steps_without_a_run(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "it's mine" / "tuned $1"
    asked = ["tune", "s4d-digits", "--data", "digits", "--data-seed", 3, "--set", "*.C=int3"]
    done = shell.ok(*asked, *ONE, "--metric", "f1", "--out", out)
    evaluated, exported = commands(done.err)
    document = json.loads((out / "tuned.json").read_text())
    after = document["splits"]["confirmation"]["after"]
    scored = shell.ok(*evaluated, "--json").json
    assert {key: scored[key] for key in after} == after
    written = shell.ok(*exported[:-1], tmp_path / "exported", "--json").json
    assert written["cost"]["total_bytes"] == document["cost"]["total_bytes"]


def test_what_is_stopped_goes_on_with_the_same_command(
    shell: Shell, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*values: Any) -> None:
        raise KeyboardInterrupt

    asked = ["tune", "--run", run, "--plan", "1.5KiB", *ONE]
    with monkeypatch.context() as patch:
        patch.setattr("sensprobe.jobs.tune._scores", stop)
        done = shell(*asked)
    assert done.code == 130
    assert "the same command goes on from there" in done.err
    assert "leg 1/1" not in shell.ok(*asked).err


def test_a_folder_is_asked_for_without_a_run(shell: Shell) -> None:
    done = shell("tune", "s4d-digits", "--data", "digits", "--set", "*.C=int3")
    assert done.code == 2
    assert "name it with --out, or a run with --run" in done.err
