"""What cannot be done: one clear message, the right exit code, nothing half-written."""

from __future__ import annotations

import gzip
import pickle
import shutil
import struct
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import FAST, PROFILE, Shell
from safetensors.torch import load_file, save_file

from sensprobe.cli import commands
from sensprobe.runs import open_run
from sensprobe.session.source import open_model

EVAL = ["eval", "s4d-digits", "--data", "digits"]
USAGE, FAILED = 2, 1


def refused(shell: Shell, code: int, says: str, *argv: object) -> None:
    """The command ends with this code and one message that holds these words."""
    done = shell(*argv)
    assert done.code == code, (done.code, done.err)
    assert done.out == ""
    assert says in done.err, done.err
    assert "Traceback" not in done.err
    message = [line for line in done.err.splitlines() if line.startswith("sensprobe")]
    assert len(message) == 1, done.err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["sites", "s4d-digit"], "Did you mean s4d-digits?"),
        (["eval", "s4d-digits"], "--data"),
        ([*EVAL, "--limit", "0"], "--limit 0 leaves no samples of confirmation; give 1 to 400"),
        ([*EVAL, "--limit", "-3"], "--limit -3"),
        ([*EVAL, "--limit", "many"], "invalid int value"),
        ([*EVAL, "--set", "layers.*.Q=int8"], "matches no site of this model. Nearest: layers.*"),
        ([*EVAL, "--set", "layers.7.A=int8"], "It has layers 0-0"),
        ([*EVAL, "--set", "encoder.bias=int8/head"], "it has no heads"),
        ([*EVAL, "--set", "layers.*.A=int8/feedback"], "feedback, clip and every are for states"),
        ([*EVAL, "--set", "layers.*.A=int99"], "Formats: int2 to int16"),
        ([*EVAL, "--set", "layers.*.A=int8/banana"], "banana"),
        ([*EVAL, "--set", "layers.*.A"], "PATTERN=SCHEME"),
        ([*EVAL, "--norm", "post"], "ships with its config"),
        ([*EVAL, "--batch", "0"], "batch 0"),
        (["eval", "s4d-digits", "--data", "digitz"], "The forms are digits, mnist:FOLDER"),
        (["eval", "s4d-digits", "--data", "npz:"], "names nothing after npz:"),
        ([*EVAL, "--metric", "accuracy"], "no metric is called"),
        (["cost", "s4d-digits", "--batch", "0"], "batch 0"),
        ([*PROFILE, "--scheme", "int1", "--run", "NEW"], "no format 'int1'"),
        ([*PROFILE, "--limit", "0", "--run", "NEW"], "--limit 0 leaves no samples of search"),
        ([*EVAL, "--set", "*.state=int8/every99999999999"], "from 1 to 999999999"),
        ([*EVAL, "--set", "*.state=int8/clip1e39"], "a number float32 can name"),
        ([*EVAL, "--data-seed", "-1"], "--data-seed -1"),
        ([*PROFILE, "--by", "layer", "--run", "NEW"], "invalid choice: 'layer'"),
        (["train", "s4d-nothing"], "no recipe 's4d-nothing'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_cannot_be_asked(
    argv: list[str], says: str, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(shell, USAGE, says, *argv)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--budget", "10B"],
            "no plan fits 10 total bytes (asked for as 10B): the smallest one takes 1",
        ),
        (["--budget", "100MiB"], "every plan fits 104857600 total bytes"),
        (["--budget", "12 apples"], "'12 apples' is not a size; write 12288, 12KiB or 12kB"),
        (["--weight-budget", "10"], "10 weight bytes"),
        (["--state-budget", "1"], "1 state bytes"),
        (["--max-loss", "-1"], "cannot be negative"),
        (["--freeze", "nope=int8"], "matches no site"),
        (["--freeze", "nope"], "PATTERN=SCHEME"),
        (["--tie", "nope"], "--tie 'nope' matches no site"),
        (["--batch", "0"], "batch 0"),
        (["--evaluations", "0"], "--evaluations 0"),
        (["--method", "exhaustive", "--evaluations", "5"], "262,144 plans"),
        (["--method", "exhaustive"], "100000 evaluations are allowed"),
        (["--scheme", "int3"], "int3: not profiled in this run, which has fp16, int8"),
        (["--limit", "0"], "--limit 0"),
        (["--seed", "-1"], "--seed -1: give a whole number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_searched(
    options: list[str], says: str, shell: Shell, profiled: Path
) -> None:
    before = contents(profiled)
    refused(shell, USAGE, says, "search", "--run", profiled, *options)
    assert contents(profiled) == before


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run that holds results (opening a run may add an empty segment)."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (folder / "results").rglob("*")
        if path.is_file()
    }


# -- runs -----------------------------------------------------------------------------------------


def test_a_run_that_is_none(shell: Shell, tmp_path: Path) -> None:
    refused(shell, FAILED, "no run at", "search", "--run", tmp_path / "x", "--budget", "1KiB")
    refused(shell, FAILED, "is not a run", "report", "--run", tmp_path)
    refused(shell, FAILED, "no run at", "export", "--run", "x", "--plan", "p", "--out", "o")


def test_a_run_of_another_model_is_left_alone(shell: Shell, profiled: Path) -> None:
    other = ["profile", "s4d-smnist-16", "--data", "digits", "--run", profiled]
    refused(shell, FAILED, "it was made with s4d-digits", *other)


def test_a_folder_of_other_files_is_left_alone(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("words")
    refused(shell, FAILED, "It was left untouched", *PROFILE, *FAST, "--run", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_steps_out_of_order(shell: Shell, profiled: Path, tmp_path: Path) -> None:
    run = shutil.copytree(profiled, tmp_path / "run")
    (run / "results" / "search.json").unlink(missing_ok=True)
    export = ["export", "--run", run, "--plan", "p1", "--out", tmp_path / "o"]
    refused(shell, FAILED, "Run `sensprobe search", *export)
    assert not (tmp_path / "o").exists()


def test_an_export_is_of_a_run_or_of_a_model(shell: Shell, searched: Path, tmp_path: Path) -> None:
    out, told = ["--set", "weights=int8", "--out", tmp_path / "o"], "give one of the two"
    refused(shell, USAGE, told, "export", *out)
    refused(shell, USAGE, told, "export", "s4d-digits", *out)
    run = ["export", "--run", searched, "--plan", "2KiB", "--out", tmp_path / "again"]
    refused(shell, USAGE, told, *run, "--data", "digits")
    refused(shell, USAGE, told, *run[:1], "s4d-digits", *run[1:], "--data", "digits")
    shell.ok("export", "s4d-digits", "--data", "digits", *out)
    again = ["export", tmp_path / "o", "--data", "digits", "--set", "weights=int8"]
    refused(shell, USAGE, "is an exported model", *again, "--out", tmp_path / "again")
    refused(shell, USAGE, "writes one plan", *again[:4], "--out", tmp_path / "again")
    refused(shell, USAGE, "writes one plan", *again[:4], "--plan", "", "--out", tmp_path / "again")
    refused(shell, USAGE, "writes one plan", *run, "--set", "weights=int8")
    refused(shell, USAGE, told, *run, "--norm", "pre")
    refused(shell, USAGE, told, *run, "--data-seed", "1")
    assert not (tmp_path / "again").exists()


def test_an_export_never_replaces_other_files(shell: Shell, searched: Path, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "keep.txt").write_text("mine")
    export = ["export", "--run", searched, "--plan", "2KiB", "--out", tmp_path / "o"]
    done = shell(*export, "--overwrite")
    assert done.code in (USAGE, FAILED)
    assert (tmp_path / "o" / "keep.txt").read_text() == "mine"
    unknown = ["export", "--run", searched, "--plan", "p999", "--out", tmp_path / "new"]
    refused(shell, USAGE, "this run has no plan 'p999'. Chosen plans: 2KiB, 1600", *unknown)
    assert not (tmp_path / "new").exists()


def test_an_exported_model_takes_no_other_plan(
    shell: Shell, searched: Path, tmp_path: Path
) -> None:
    out = tmp_path / "exported"
    shell.ok("export", "--run", searched, "--plan", "2KiB", "--out", out)
    asked = ["eval", out, "--data", "digits", "--set", "*.A=int8"]
    refused(shell, USAGE, "is an exported model and runs its own plan", *asked)


def test_a_plan_file_that_is_none(shell: Shell, tmp_path: Path) -> None:
    refused(shell, USAGE, "nope.json", *EVAL, "--plan", tmp_path / "nope.json")
    for name, text in (("torn", '{"version": 1, "plan"'), ("other", "[1, 2]"), ("empty", "")):
        file = tmp_path / f"{name}.json"
        file.write_text(text)
        refused(shell, USAGE, f"{name}.json", *EVAL, "--plan", file)


# -- checkpoints ----------------------------------------------------------------------------------


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_checkpoints_that_cannot_be_read(shell: Shell, tmp_path: Path) -> None:
    whole = open_model("s4d-digits").path.read_bytes()
    for name, content in {
        "cut.safetensors": whole[:-40],
        "empty.safetensors": b"",
        "text.pth": b"not a checkpoint",
        "empty.pth": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        refused(shell, FAILED, name, "sites", tmp_path / name)
    refused(shell, USAGE, "nowhere.pth", "sites", tmp_path / "nowhere.pth")


def test_a_checkpoint_that_would_run_code_is_not_run(shell: Shell, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "raw.pth").write_bytes(pickle.dumps({"model": Bomb(mark)}))
    torch.save({"model": Bomb(mark)}, tmp_path / "zip.pth")
    for name in ("raw.pth", "zip.pth"):
        refused(shell, FAILED, name, "sites", tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float, shell: Shell, tmp_path: Path) -> None:
    source = open_model("s4d-digits").path
    from safetensors import safe_open

    with safe_open(source, "pt") as file:
        header = file.metadata()
    tensors = load_file(source)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] = value
    save_file(tensors, tmp_path / "bad.safetensors", header)
    refused(shell, FAILED, name, "eval", tmp_path / "bad.safetensors", "--data", "digits")


def test_weights_of_another_family(shell: Shell, tmp_path: Path) -> None:
    torch.save({"model": {"conv1.weight": torch.ones(3, 3)}}, tmp_path / "resnet.pth")
    save_file({"conv1.weight": torch.ones(3, 3)}, tmp_path / "resnet.safetensors")
    for name in ("resnet.pth", "resnet.safetensors"):
        refused(shell, FAILED, name, "sites", tmp_path / name)


# -- data -----------------------------------------------------------------------------------------


def idx(kind: int, shape: tuple[int, ...], values: np.ndarray) -> bytes:
    """An IDX file of bytes."""
    head = struct.pack(">HBB", 0, kind, len(shape)) + struct.pack(f">{len(shape)}I", *shape)
    return head + values.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A folder laid out as MNIST, with 300 images of each part."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for part in ("train", "t10k"):
        images, labels = draw.integers(0, 256, (300, 28, 28)), draw.integers(0, 10, 300)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(8, (300, 28, 28), images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(8, (300,), labels))
    return folder


LABELS = "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda file: file.unlink(), LABELS),
        (lambda file: file.write_bytes(file.read_bytes()[:-10]), LABELS),
        (lambda file: file.write_bytes(b"\x00\x00\x09\x01" + file.read_bytes()[4:]), LABELS),
        (lambda file: file.write_bytes(b""), LABELS),
        (lambda file: file.write_bytes(gzip.compress(b"junk")), LABELS),
        (lambda file: file.write_bytes(idx(8, (300,), np.full(300, 11))), "11"),
        (lambda file: file.write_bytes(idx(8, (299,), np.zeros(299))), "299"),
    ],
    ids=["missing", "truncated", "magic", "empty", "gzip", "label", "count"],
)
def test_mnist_files_that_are_damaged(damage: Any, says: str, shell: Shell, mnist: Path) -> None:
    damage(mnist / LABELS)
    asked = ["eval", "s4d-smnist-16", "--data", f"mnist:{mnist}", "--limit", 2]
    refused(shell, FAILED, says, *asked)


def test_a_missing_folder_says_what_belongs_in_it(shell: Shell, tmp_path: Path) -> None:
    asked = ["eval", "s4d-smnist-16", "--data", f"mnist:{tmp_path / 'no'}"]
    refused(shell, FAILED, "train-images-idx3-ubyte", *asked)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.zeros((30, 8)), "labels": np.zeros(30, int)}, "y missing; it has x, labels"),
        ({"x": np.zeros((30, 8)), "y": np.zeros(29, int)}, "29"),
        ({"x": np.zeros((30, 8)), "y": np.full(30, 10)}, "10"),
        ({"x": np.zeros((30, 8)), "y": np.full(30, -1)}, "-1"),
        ({"x": np.full((30, 8), np.nan), "y": np.zeros(30, int)}, "x"),
        ({"x": np.zeros((0, 8)), "y": np.zeros(0, int)}, "npz"),
        ({"x": np.zeros((30, 8, 3)), "y": np.zeros(30, int)}, "3"),
    ],
    ids=["no y", "count", "label", "negative", "nan", "empty", "inputs"],
)
def test_arrays_that_do_not_fit(
    arrays: dict[str, np.ndarray], says: str, shell: Shell, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    refused(shell, FAILED, says, "eval", "s4d-digits", "--data", f"npz:{tmp_path / 'a.npz'}")


def test_user_code_that_fails_is_named(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def data():\n    raise ValueError('no disk')\n")
    asked = ["eval", "s4d-digits", "--data"]
    refused(shell, FAILED, "no disk", *asked, f"python:{file}:data")
    refused(shell, USAGE, "other", *asked, f"python:{file}:other")
    refused(shell, FAILED, "does not exist", *asked, f"python:{tmp_path / 'no.py'}:data")


def test_debug_shows_the_traceback(shell: Shell) -> None:
    with pytest.raises(Exception, match="nothing ships under that name"):
        shell("sites", "nope", "--debug")


# -- the disk -------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every flush to disk fails as a full one does."""
    import errno
    import os

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_nothing_half_written(
    shell: Shell, searched: Path, tmp_path: Path
) -> None:
    refused(shell, FAILED, "the disk is full", *PROFILE, *FAST, "--run", tmp_path / "run")
    export = ["export", "--run", searched, "--plan", "2KiB", "--out", tmp_path / "out"]
    refused(shell, FAILED, "the disk is full", *export)
    refused(
        shell, FAILED, "the disk is full", "report", "--run", searched, "--out", tmp_path / "report"
    )
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert left == []


def test_a_full_disk_midway_keeps_what_was_measured(
    shell: Shell, profiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(profiled, tmp_path / "run")
    count, before = open_run(run).count, contents(run)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        patch.setattr("sensprobe.runs.segment.SYNC_SECONDS", inf)  # only results are synced
        refused(shell, FAILED, "the disk is full", "search", "--run", run, "--evaluations", 5)
    measured = open_run(run).count
    assert measured > count
    assert contents(run) == before
    shell.ok("search", "--run", run, "--evaluations", 5, "--no-confirm")
    assert open_run(run).count == measured


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_what_should_not_happen_is_no_traceback(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(arguments: object) -> None:
        raise KeyError("metric")

    monkeypatch.setitem(commands.COMMANDS, "doctor", broken)
    done = shell("doctor")
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "--debug" in done.err
    with pytest.raises(KeyError):
        shell("doctor", "--debug")
