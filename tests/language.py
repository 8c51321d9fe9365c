"""Small byte-level language models with random weights, and text for them."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
