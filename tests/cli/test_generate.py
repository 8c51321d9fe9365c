"""`sensprobe generate`: text on stdout, speed and memory on stderr."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch

from sensprobe.apply import Applier
from sensprobe.cli import commands, main
from sensprobe.data import BYTES
from sensprobe.export import export_model
from sensprobe.loading import load_model
from sensprobe.plan import Plan
from sensprobe.scheme import parse
from sensprobe.steps import generating

PLAN = {"layers.*.in_proj.?": "int8/channel", "layers.*.state": "int8/head/dynamic"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "mamba-bytes"
    model = load_model("mamba-bytes").model
    plan = Plan(tuple((p, parse(s)) for p, s in PLAN.items())).resolve(model.sites.values())
    export_model(model, plan, Applier(model), folder, name="mamba-bytes")
    return folder


def test_a_prompt_is_gone_on_from(exported, capsys):
    assert main(["generate", str(exported), "--prompt", "It was ", "--tokens", "12"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("It was ")
    assert len(out.strip()) > len("It was")
    assert "12 tokens" in err
    assert "packed" in " ".join(err.split())
    assert main(["generate", str(exported), "--prompt", "It was ", "--tokens", "12"]) == 0
    assert capsys.readouterr().out == out, "the likeliest token is the same each time"


def test_one_document_and_nothing_else(exported, capsys):
    words = ["generate", str(exported), "--tokens", "5", "--json", "--temperature", "0.8"]
    assert main([*words, "--seed", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["tokens"], told["prompt_tokens"], told["packed"]) == (5, 2, True)
    cost = load_model("mamba-bytes").model.sites
    assert told["weight_bytes"] < sum(s.full_bytes for s in cost.values())
    assert told["tokens_per_second"] > 0
    assert main([*words, "--seed", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == told["text"]
    assert main([*words, "--seed", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] != told["text"]


def test_packed_and_simulated_write_the_same(exported, capsys):
    """Of the model and plan that were exported; greedy, so an answer near a tie could differ."""
    sets = [word for pattern, scheme in PLAN.items() for word in ("--set", f"{pattern}={scheme}")]
    words = ["--prompt", "There is no ", "--tokens", "20"]
    assert main(["generate", str(exported), *words]) == 0
    packed = capsys.readouterr().out
    assert main(["generate", "mamba-bytes", *sets, *words]) == 0
    out, err = capsys.readouterr()
    assert out == packed
    assert "float32" in err


def test_a_temperature_next_to_nothing_takes_the_likeliest(exported, capsys):
    words = ["generate", str(exported), "--prompt", "It was ", "--tokens", "8"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert main([*words, "--temperature", "1e-320"]) == 0
    assert capsys.readouterr().out == out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["s4d-digits"], "does not predict the next of its tokens"),
        (["mamba-bytes", "--tokens", "0"], "at least one token"),
        (["mamba-bytes", "--temperature", "-1"], "from 0"),
        (["mamba-bytes", "--temperature", "nan"], "from 0"),
        (["mamba-bytes", "--seed", "99999999999999999999"], "2^63"),
        (["no-such-model"], "no-such-model"),
    ],
)
def test_what_cannot_be_says_why(words, why, capsys):
    assert main(["generate", "--prompt", "hello", *words]) in (1, 2)
    out, err = capsys.readouterr()
    assert why in " ".join(err.split())
    assert not out


class Counting:
    """Bytes, and how many were read at once."""

    most = 0

    def decode(self, tokens):
        self.most = max(self.most, len(tokens))
        return BYTES.decode(tokens)


@pytest.mark.parametrize("text", ["It was so. " * 40, "naïve → 😀😀 ∂ " * 20])
def test_pieces_are_the_text_and_none_is_read_anew(text):
    tokenizer, told, pieces = Counting(), (0, 0), []
    tokens = list(text.encode())
    for k in range(len(tokens)):
        piece, told = generating._piece(tokenizer, tokens[: k + 1], told)
        pieces.append(piece)
    assert "".join(pieces) == text
    assert tokenizer.most <= 8


def test_bytes_that_are_no_text_are_told_at_the_end():
    tokens, told, pieces = [65, 0xFF, 66, 0xE2, 0x86], (0, 0), []
    for k in range(len(tokens)):
        piece, told = generating._piece(BYTES, tokens[: k + 1], told)
        pieces.append(piece)
    assert pieces == ["A", "", "\ufffdB", "", ""]
    piece, _ = generating._piece(BYTES, tokens, told, last=True)
    assert "".join([*pieces, piece]) == BYTES.decode(tokens)


@pytest.mark.parametrize("words", [["generate", "--tokens", "100000"], ["generate", "--json"]])
def test_a_stopped_generation_promises_nothing(exported, words, capsys, monkeypatch):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.api, "generate", stopped)
    assert main([*words, str(exported)]) == 130
    out, err = capsys.readouterr()
    assert not out
    assert err == "\nStopped.\n"


def test_a_closed_pipe_ends_it_quietly(exported):
    words = [sys.executable, "-m", "sensprobe", "generate", str(exported), "--tokens", "20000"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.stdout.close()
    assert process.wait(timeout=300) == 1
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_folder_cut_short_says_so(exported, tmp_path, capsys):
    folder = shutil.copytree(exported, tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(["generate", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert f"{weights} cannot be read as safetensors" in err
    assert "truncated or damaged; copy it again" in err


def test_a_gpu_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["generate", "mamba-bytes", "--device", "cuda"]) == 2
    assert "device cuda: torch sees no CUDA GPU here. Use cpu" in capsys.readouterr().err
