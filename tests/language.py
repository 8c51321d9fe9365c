"""Small byte-level language models with random weights, and text for them."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save
from selective import Config, parameters

from sensprobe.checkpoints.files import METADATA_KEY
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config

BYTES: dict[str, Any] = {
    "encoder": "embedding",
    "d_input": 256,
    "d_output": 256,
    "d_model": 8,
    "pooling": "none",
    "head_bias": False,
    "tied_head": True,
}
MAMBA = MambaConfig(**BYTES, dt_rank=1, d_state=3)
MAMBA2 = Mamba2Config(**BYTES, d_state=3, d_head=4)
SAMPLE = "naïve states — decay.\n\n  €5 😀 the state decays\n" * 3
WORDS = ["the", "state", "of", "a", "model", "decays", "while", "naïve", "steps", "go", "—", "on"]


def write_model(path: Path, config: Config = MAMBA, seed: int = 0) -> Path:
    """An own checkpoint of random weights."""
    family = "mamba" if isinstance(config, MambaConfig) else "mamba2"
    header = {"format": 1, "family": family, "config": asdict(config), "recorded": {}}
    path.write_bytes(save(parameters(config, seed), {METADATA_KEY: json.dumps(header)}))
    return path


def story(number: int, words: int) -> str:
    """Words drawn by chance, the same for a number on every machine."""
    draw = random.Random(number)
    return " ".join(f"{draw.choice(WORDS)} {draw.randrange(1000)}" for _ in range(words)) + ".\n"


def write_stories(folder: Path, count: int = 24, words: int = 60) -> Path:
    """A folder of documents, none like another, each longer than the one before."""
    folder.mkdir(exist_ok=True)
    for k in range(count):
        (folder / f"story{k:02}.txt").write_text(story(k, words + k), encoding="utf-8")
    return folder


def byte_level(path: Path, vocabulary: int = 300) -> Path:
    """A byte-level BPE as GPT-NeoX has, trained on `SAMPLE`."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([SAMPLE], trainer)
    made.save(str(path))
    return path
