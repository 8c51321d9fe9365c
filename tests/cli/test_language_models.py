"""A byte-level language model on text, through every step of the main job; and what goes wrong."""

from __future__ import annotations

import json
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import write_own
from command_line import Shell, evaluations
from language import BYTES, MAMBA, MAMBA2, byte_level, write_model, write_stories
from language_models import HF_CONFIG, write
from selective import Config

from sensprobe import api
from sensprobe.data import load_data
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.s4d import S4DConfig
from sensprobe.progress import Silent
from sensprobe.runs import open_run
from sensprobe.session.source import open_model

OPTIONS = "length=32,context=8"
SCHEMES = ["--scheme", "int8/head/asym", "--scheme", "int4/head/asym/dynamic"]


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    return write_stories(tmp_path / "stories", 24, 12)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny.safetensors")


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(MAMBA, id="mamba"),
        pytest.param(MAMBA2, id="mamba2", marks=pytest.mark.thorough),
    ],
)
def test_the_main_job(shell: Shell, tmp_path: Path, stories: Path, config: Config) -> None:
    model, run, out = (
        write_model(tmp_path / "m.safetensors", config),
        tmp_path / "r",
        tmp_path / "o",
    )
    data = ["--data", f"text:{stories},{OPTIONS}"]
    profile = shell.ok("profile", model, *data, *SCHEMES, "--run", run, "--json").json
    assert (profile["task"], profile["metric"], profile["sign"]) == (
        "language",
        "bits_per_byte",
        -1,
    )
    assert 2 < profile["clusters"] < profile["n"]
    assert all(row["kl"]["value"] >= 0 for row in profile["rows"])
    budget = profile["full_bytes"] // 2
    found = shell.ok("search", "--run", run, "--budget", budget, "--evaluations", 8, "--json").json
    confirmed = found["confirmation"]["plans"][0]
    assert found["search"]["metric"] == "bits_per_byte"
    assert confirmed["metric"]["value"] > 7  # random weights: about 8 bits a byte
    shell.ok("export", "--run", run, "--plan", budget, "--out", out)
    scored = shell.ok("eval", out, *data, "--json").json
    for key in ("value", "stderr"):
        assert scored[key] == confirmed["metric"][key]
    assert "bits per byte" in shell.ok("report", "--run", run).out
    before = evaluations(run)
    shell.ok("profile", model, *data, *SCHEMES, "--run", run)
    assert evaluations(run) == before


def test_a_search_prefers_fewer_bits_a_byte(shell: Shell, tmp_path: Path, stories: Path) -> None:
    model, run = write_model(tmp_path / "m.safetensors"), tmp_path / "r"
    data = ["--data", f"text:{stories},{OPTIONS}"]
    shell.ok("profile", model, *data, *SCHEMES, "--run", run)
    few = ["--evaluations", 10]
    done = shell.ok("search", "--run", run, "--max-loss", 0.02, "--no-confirm", *few, "--json").json
    chosen = next(c for c in done["search"]["chosen"])["candidate"]
    candidates = {c["name"]: c for c in done["search"]["candidates"]}
    best = min(c["metric"]["value"] for c in candidates.values())
    full = done["search"]["full"]["metric"]["value"]
    assert candidates[chosen]["metric"]["value"] <= full + 0.02
    assert candidates[chosen]["total_bytes"] == min(
        c["total_bytes"] for c in candidates.values() if c["loss"]["value"] <= 0.02
    )
    assert best <= full


def test_eval_says_perplexity_and_positions(shell: Shell, model: Path, stories: Path) -> None:
    data = f"text:{stories},{OPTIONS}"
    asked = [
        "eval",
        model,
        "--data",
        data,
        "--set",
        "layers.*.state=int4/head/dynamic",
        "--compare",
    ]
    found = shell.ok(*asked, "--json").json
    text, split = found["text"], load_data(data).splits["confirmation"]
    assert (text["windows"], text["tokens"]) == (len(split), 24 * len(split))
    assert text["bytes"] == text["tokens"] == int(split.scored_bytes.sum())
    nats = found["value"] * log(2)  # a token is a byte
    assert text["perplexity"]["value"] == pytest.approx(exp(nats), rel=1e-6)
    assert text["perplexity"]["stderr"] == pytest.approx(
        exp(nats) * found["stderr"] * log(2), rel=1e-5
    )
    assert [(p["first"], p["last"]) for p in text["positions"]] == [(9, 16), (17, 32)]
    means = [p["bits_per_byte"]["value"] for p in text["positions"]]
    assert (means[0] * 8 + means[1] * 16) / 24 == pytest.approx(found["value"], rel=1e-6)
    assert all(p["kl"]["value"] > 0 for p in text["positions"])
    assert not [name for name in found["scores"] if "@" in name]
    printed = shell.ok(*asked).out
    assert "perplexity" in printed
    assert "17–32" in printed
    plain = shell.ok("eval", model, "--data", data, "--json").json
    assert "kl" not in plain["text"]["positions"][0]


class Told(Silent):
    """What a progress is told."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float, float | None]] = []
        self.done = 0.0

    def begin(self, title: str, total: float, seconds: float | None = None) -> None:
        self.begun.append((title, total, seconds))
        self.done = 0.0

    def advance(self, units: float = 1) -> None:
        self.done += units


def test_eval_counts_writes_that_do_not_move_the_state(
    shell: Shell, model: Path, stories: Path
) -> None:
    asked = ["eval", model, "--data", f"text:{stories},{OPTIONS}", "--limit", 9, "--dead-band"]
    shares = []
    for bits in (8, 3):
        scheme = ["--set", f"layers.*.state=int{bits}/head/dynamic"]
        found = shell.ok(*asked, *scheme, "--json").json["dead_band"]
        assert found["samples"] == 8
        assert [p["last"] for p in found["positions"]] == [1, 2, 4, 8, 16, 32]
        shares.append(found["states"]["layers.0.state"])
    assert 0 < shares[0] < shares[1] < 1
    assert "kept from moving the state" in shell.ok(*asked, *scheme).out
    refused(shell, "the plan rounds no recurrent state", *asked, code=2)
    told = Told()
    data, plan = f"text:{stories},{OPTIONS}", {"states": "int8/channel/dynamic"}
    api.evaluate(model, data, plan, limit=9, dead_band=True, progress=told)
    (title, total, seconds), done = told.begun[-1], told.done
    assert title.startswith("counting writes")
    assert seconds is not None
    assert done == total > 0
    static = [*asked, "--set", "layers.*.state=int4/head", "--run", model.parent / "run", "--json"]
    first, again = (shell.ok(*static).json for _ in range(2))  # the second is read from the run
    assert first["dead_band"] == again["dead_band"]


def test_errors_cluster_by_document(shell: Shell, tmp_path: Path, model: Path) -> None:
    data = f"text:{write_stories(tmp_path / 'long', 24, 60)},{OPTIONS}"
    run = tmp_path / "run"
    found = shell.ok("eval", model, "--data", data, "--run", run, "--json").json
    [bits] = [
        e.arrays["bits_per_byte"] for e in open_run(run).evaluations() if e.key.split != "search"
    ]
    group = load_data(data).splits["confirmation"].group.numpy()
    residual = bits.astype(float) - bits.astype(float).mean()
    sums = np.array([residual[group == g].sum() for g in np.unique(group)])
    count = len(sums)
    want = np.sqrt(count / (count - 1) * (sums**2).sum()) / len(bits)
    assert found["clusters"] == count
    assert found["stderr"] == pytest.approx(want, rel=1e-9)
    assert found["stderr"] != pytest.approx(residual.std() / len(bits) ** 0.5, rel=0.02)


def test_relative_paths_of_text_are_remembered(
    shell: Shell, stories: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["eval", model, "--data", f"text:stories,{OPTIONS}", "--run", "run", "--limit", 8]
    shell.ok(*asked)
    settings = open_run(tmp_path / "run").manifest.settings
    assert settings["data"] == f"text:{stories},{OPTIONS}"


def test_a_tokenizer_goes_with_the_model(shell: Shell, tmp_path: Path, stories: Path) -> None:
    folder, out, run = hugging_face(tmp_path / "lm", 300), tmp_path / "out", tmp_path / "run"
    settings = {"bos_token": "a", "eos_token": "b"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(document | {"eos_token_id": [7, 9]}))
    data = ["--data", f"text:{stories},length=16,context=4"]
    found = shell.ok("eval", folder, *data, "--json").json
    text = found["text"]
    assert text["bytes"] > 1.2 * text["tokens"]
    nats = log(text["perplexity"]["value"]) * text["tokens"]
    assert found["value"] == pytest.approx(nats / log(2) / text["bytes"], rel=1e-6)
    schemes = ["--scheme", "int8/head/asym/dynamic"]
    profile = shell.ok("profile", folder, *data, *schemes, "--run", run, "--json").json
    budget = profile["full_bytes"] * 3 // 4
    shell.ok("search", "--run", run, "--budget", budget, "--evaluations", 4)
    for extra in ([], ["--overwrite"]):
        shell.ok("export", "--run", run, "--plan", budget, "--out", out, *extra)
    own = (folder / "tokenizer.json").read_bytes()
    assert (out / "tokenizer.json").read_bytes() == own
    before, after = (open_model(place).tokenizer for place in (folder, out))
    assert before is not None
    assert after is not None
    assert (before.start(""), before.ends) == (after.start(""), after.ends)
    assert after.ends == (7, 9)
    assert shell.ok("eval", out, *data, "--json").json["text"]["bytes"] == text["bytes"]


TRAINED = """
family = "mamba2"
[model]
d_model = 8
d_state = 3
d_head = 4
[text]
source = "english_novels"
length = 32
pydoc = 0.25
[optimizer]
lr = 1e-2
beta2 = 0.95
weight_decay = 0.01
clip = 1.0
batch = 4
average = 0.9
[schedule]
steps = 4
every = 2
warmup = 0.1
"""


def test_train_then_eval_on_what_was_held_out(shell: Shell, tmp_path: Path) -> None:
    recipe, out = tmp_path / "tiny.toml", tmp_path / "out"
    recipe.write_text(TRAINED)
    text = f"text:{write_stories(tmp_path / 's', 150, 20)}"
    asked = ["train", recipe, "--data", text, "--out", out]
    done = shell.ok(*asked, "--json").json
    assert (done["metric"], done["steps"], done["split"]) == ("bits_per_byte", 4, "confirmation")
    assert done["ram"]["layers"] == "kept"
    held = f"{text},part=held-out,length=32,context=4"
    scored = shell.ok("eval", done["weights"], "--data", held, "--json").json
    assert (scored["value"], scored["n"]) == (done["value"], done["n"])
    again = shell.ok(*asked)
    assert "4 steps" in again.out
    assert "leg" not in again.err
    printed = shell.ok(*asked, "--restart")
    assert "leg 2/2" in printed.err
    assert "bits a byte" in printed.err


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "give --data text:PATH, a folder or a tar of .txt files, or set SENSPROBE_DATA"),
        (["--data", "digits"], "'digits' is no text to train on"),
        (["--data", "text:x.txt,length=9"], "leave ',length=9' out"),
    ],
)
def test_text_to_train_on_that_is_none(
    shell: Shell, data: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SENSPROBE_DATA", raising=False)
    refused(shell, says, "train", "mamba-bytes", *data, code=2)


def hugging_face(folder: Path, vocabulary: int) -> Path:
    """A folder as transformers writes it, with a byte-level BPE."""
    config = MambaConfig(**{**BYTES, "d_input": vocabulary, "d_output": vocabulary}, dt_rank=1)
    sizes: dict[str, Any] = {"vocab_size": vocabulary, "hidden_size": 8, "num_hidden_layers": 1}
    document = HF_CONFIG | sizes | {"state_size": 16, "tie_word_embeddings": True}
    write(folder, document, config, "model.safetensors")
    byte_level(folder / "tokenizer.json")
    return folder


# -- what goes wrong ------------------------------------------------------------------------------


def refused(shell: Shell, says: str, *argv: object, code: int = 1) -> None:
    done = shell(*argv)
    assert done.code == code, (done.code, done.err)
    assert says in " ".join(done.err.split()), done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("name", "content", "options", "says"),
    [
        ("none.txt", None, "", "none.txt does not exist"),
        ("empty.txt", b"", "", "holds no text: it is empty"),
        ("latin.txt", "naïve".encode("latin-1"), "", "is not UTF-8 text: byte 0xef at position 2"),
        ("short.txt", b"short\n" * 99, "", "give at least 40 KiB of text, or 10 documents"),
        ("book.txt", b"some words\n" * 9999, ",length=9000", "A window of length=9000 takes 9001"),
        ("bad.xz", b"not packed", "", "cannot be read (LZMAError"),
    ],
)
def test_text_that_cannot_be_read(
    shell: Shell, model: Path, name: str, content: bytes | None, options: str, says: str
) -> None:
    file = model.parent / name
    if content is not None:
        file.write_bytes(content)
    refused(shell, says, "eval", model, "--data", f"text:{file}{options}")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (",context=512", "context=512: it must be from 0 to 511"),
        (",stride=9", "stride=9: windows that score 448 tokens"),
        (",window=9", "no option 'window=9'"),
    ],
)
def test_windows_there_are_not(
    shell: Shell, model: Path, stories: Path, options: str, says: str
) -> None:
    refused(shell, says, "eval", model, "--data", f"text:{stories}{options}", code=2)


def test_a_forgotten_prefix_is_guessed(shell: Shell, model: Path, stories: Path) -> None:
    file = stories / "story00.txt"
    refused(shell, f"did you mean text:{file}?", "eval", model, "--data", file, code=2)
    refused(shell, f"or text:{stories}?", "eval", model, "--data", stories, code=2)


def test_models_and_data_of_different_kinds(
    shell: Shell, model: Path, stories: Path, tmp_path: Path
) -> None:
    text = f"text:{stories},{OPTIONS}"
    refused(shell, "predicts the next token of text, and digits is none", "eval", model, "--data",
            "digits")  # fmt: skip
    write_own(tmp_path / "s4.safetensors", S4DConfig(d_input=1, d_output=2, d_model=4, d_state=2))
    refused(
        shell, "so text says nothing to it", "eval", tmp_path / "s4.safetensors", "--data", text
    )


def test_a_vocabulary_without_tokenizer(shell: Shell, tmp_path: Path, stories: Path) -> None:
    folder = hugging_face(tmp_path / "lm", 300)
    (folder / "tokenizer.json").unlink()
    says = "knows 300 tokens and there is no tokenizer.json beside its weights"
    refused(shell, says, "eval", folder, "--data", f"text:{stories},{OPTIONS}")


def test_a_vocabulary_too_small_for_its_tokenizer(
    shell: Shell, tmp_path: Path, stories: Path
) -> None:
    folder = hugging_face(tmp_path / "lm", 280)
    size = max(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"].values())
    says = f"the tokenizer does not fit: it makes tokens up to {size}, the model knows 0 to 279"
    refused(shell, says, "eval", folder, "--data", f"text:{stories},{OPTIONS}")
