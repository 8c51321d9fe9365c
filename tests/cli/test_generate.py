"""`sensprobe generate`: text on stdout, speed and memory on stderr."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from language import write_stories

from sensprobe import api
from sensprobe.cli import commands, main
from sensprobe.data import BYTES
from sensprobe.errors import DataError
from sensprobe.export import export_model
from sensprobe.jobs import generate
from sensprobe.models.apply import Applier
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import parse
from sensprobe.session.open import open_calibrated
from sensprobe.session.source import open_model

PLAN = {"layers.*.in_proj.?": "int8/channel", "layers.*.state": "int8/head/dynamic"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "mamba-bytes"
    model = open_model("mamba-bytes").model
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
    cost = open_model("mamba-bytes").model.sites
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
        piece, told = generate._piece(tokenizer, tokens[: k + 1], told)
        pieces.append(piece)
    assert "".join(pieces) == text
    assert tokenizer.most <= 8


def test_bytes_that_are_no_text_are_told_at_the_end():
    tokens, told, pieces = [65, 0xFF, 66, 0xE2, 0x86], (0, 0), []
    for k in range(len(tokens)):
        piece, told = generate._piece(BYTES, tokens[: k + 1], told)
        pieces.append(piece)
    assert pieces == ["A", "", "\ufffdB", "", ""]
    piece, _ = generate._piece(BYTES, tokens, told, last=True)
    assert "".join([*pieces, piece]) == BYTES.decode(tokens)


def test_a_plan_with_static_ranges_takes_text_to_calibrate_on(capsys, tmp_path):
    words = ["generate", "mamba-bytes", "--prompt", "It was ", "--tokens", "4", "--json"]
    static = ["--set", "layers.*.y=int8", "--set", "layers.0.in_proj.?=int8/channel/gptq"]
    assert main([*words, *static]) == 2
    out, err = capsys.readouterr()
    assert "Name data, of which the calibration split is used: --data text:FILE" in " ".join(
        err.split()
    )
    assert not out
    data = ["--data", f"text:{write_stories(tmp_path / 's', 12, 40)},length=32,context=8"]
    assert main([*words, *static, *data]) == 0
    text = json.loads(capsys.readouterr().out)["text"]
    source, schemes, applier = open_calibrated("mamba-bytes", Plan(tuple(
        (pattern, parse(scheme)) for pattern, scheme in (w.split("=") for w in static[1::2])
    )), data[1])  # fmt: skip
    tokens, model = list(b". It was "), source.model
    for _ in range(4):
        tokens.append(int(model(torch.tensor([tokens]), applier.tap(schemes))[0, -1].argmax()))
    assert text == BYTES.decode(tokens[-4:])


@pytest.mark.parametrize(
    "raw", [b"caf\xe9 ", b"\xff\xfe", "\ud800x".encode("utf-8", "surrogatepass")]
)
def test_a_prompt_that_is_no_utf_8_is_read_with_replacements(exported, raw, capsys):
    escaped = os.fsdecode(raw)  # as a command line passes it on
    assert main(["generate", str(exported), "--tokens", "2", "--prompt", escaped]) == 0
    assert capsys.readouterr().out.startswith(raw.decode("utf-8", "replace"))
    assert main(["generate", str(exported), "--tokens", "2", "--prompt", escaped, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["prompt"] == raw.decode("utf-8", "replace")
    assert api.generate(exported, raw, tokens=2)["text"] == told["text"]


class Scripted:
    """A model that says tokens in turn, and a tokenizer of which several end a text."""

    name, packed, weight_bytes, sites = (
        "scripted",
        False,
        0,
        {"embedding": SimpleNamespace(shape=(9, 1))},
    )
    file, ends = Path("tokenizer.json"), (7, 5)

    def start(self, text=None):
        return iter([1, 1, 5, 2, 2, 2]) if text is None else (0,)

    def state_bytes(self):
        return 0

    def advance(self, x, state):
        return torch.nn.functional.one_hot(torch.tensor([next(state)]), 9).float(), state

    def encode(self, content):
        return np.array([0, 3] if content == b"<s>a" else [8 if content == b"a" else 9]), None

    def decode(self, tokens):
        return "".join(map(str, tokens))


def test_any_token_that_ends_a_text_ends_it_and_none_is_beyond_the_embedding():
    def asked(prompt):
        model = Scripted()
        return generate.generate(
            model, model, prompt, tokens=6, temperature=0, seed=0, write=lambda piece: None
        )

    assert (asked("a")["text"], asked("a")["prompt_tokens"]) == ("1", 2)
    assert asked("<s>a")["prompt_tokens"] == 2, "a prompt that brings the first token has it once"
    with pytest.raises(DataError, match=r"tokenizer of scripted does not fit: .* 9, .* 0 to 8"):
        asked("b")


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
