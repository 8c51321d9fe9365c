"""Small files of the tasks that run without a network, in the form the real ones have."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PAIRS = {
    "first": [("The cats sleep.", "The cats sleeps."), ("A dog barks.", "A dog bark.")] * 2,
    "second": [(f"It is {k} now.", f"It are {k} now.") for k in range(6)],
}
WORDS = [
    {"context": f"The state of number {k} decays, and then the", "continuation": "state"}
    for k in range(7)
]
CHOICES = [
    {"query": f"Question: what is {k}?", "choices": ["a number", "a state", "no"], "gold": k % 3}
    for k in range(8)
]
Archive = Mapping[str, Iterable[tuple[str, str]] | None]


def lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_files(data: Path, pairs: Archive = PAIRS) -> Path:
    """A folder whose lm_tasks has all files; a paradigm of None is damaged."""
    folder = data / "lm_tasks"
    folder.mkdir(parents=True)
    (folder / "lambada_openai.jsonl").write_bytes(lines(WORDS))
    (folder / "arc_easy.jsonl").write_bytes(lines(CHOICES))
    (folder / "piqa.jsonl").write_bytes(
        lines(
            row | {"query": f"{row['query']}\n", "choices": row["choices"][:2], "gold": 0}
            for row in CHOICES
        )
    )
    with tarfile.open(folder / "blimp_data.tar.xz", "w:xz") as tar:
        for name, some in reversed(pairs.items()):
            rows = [{"sentence_good": good, "sentence_bad": bad} for good, bad in some or ()]
            content = b"{broken" if some is None else lines(rows)
            entry = tarfile.TarInfo(f"blimp/{name}.jsonl")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return data
