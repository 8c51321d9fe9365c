"""Tasks that run from files of one's own, without a network: their YAML, and what reads their data.

The files are those of a folder `lm_tasks`: `blimp_data.tar.xz` (BLiMP as its authors publish it,
67 files of 1,000 pairs) and `arc_easy.jsonl`, `piqa.jsonl`, `lambada_openai.jsonl` as MosaicML has
them (rows of query, choices, gold, or of context, continuation). The tasks have lm-eval's names and
prompts and take the place of its own where the file is there, so that scores can be compared.
"""

from __future__ import annotations

import io
import json
import lzma
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sensprobe.documents import DocumentError, json_of
from sensprobe.documents.files import write_whole
from sensprobe.errors import DataError

FOLDER = "lm_tasks"
BLIMP = "blimp_data.tar.xz"
READER = "sensprobe.evaluate.lm_harness.local.documents"
CHOICE: dict[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_text": "query",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
}
MEAN = {"aggregation": "mean", "higher_is_better": True}
ACC, ACC_NORM = {"metric": "acc", **MEAN}, {"metric": "acc_norm", **MEAN}
PERPLEXITY = {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}
TASKS: dict[str, dict[str, Any]] = {
    "lambada_openai": {
        "output_type": "loglikelihood",
        "doc_to_text": "context",
        "doc_to_target": "continuation",
        "metric_list": [PERPLEXITY, ACC],
    },
    "arc_easy": {**CHOICE, "metric_list": [ACC, ACC_NORM]},
    "piqa": {**CHOICE, "metric_list": [ACC, ACC_NORM]},
}
"""Task -> its YAML, less where its data lies."""


def write_tasks(data: Path, folder: Path) -> list[str]:
    """Write the YAML of every task whose file is in `data`/lm_tasks; their names, groups too."""
    source, written = data / FOLDER, []
    for name, task in TASKS.items():
        if (file := source / f"{name}.jsonl").is_file():
            _write(folder, name, {**task, "dataset_kwargs": {"jsonl": str(file)}})
            written.append(name)
    if (file := source / BLIMP).is_file():
        members = [f"blimp_{name}" for name in pairs_of(str(file))]
        task = {**CHOICE, "metric_list": [ACC], "num_fewshot": 0}
        for name in members:
            where = {"jsonl": str(file), "member": name.removeprefix("blimp_")}
            _write(folder, name, {**task, "dataset_kwargs": where})
        mean = [{"metric": "acc", "aggregation": "mean", "weight_by_size": False}]
        group = {"group": "blimp", "task": members, "aggregate_metric_list": mean}
        _write_lines(folder / "blimp.yaml", group)
        written += [*members, "blimp"]
    return written


def _write(folder: Path, name: str, task: dict[str, Any]) -> None:
    about = {"task": name, **task, "test_split": "test"}
    _write_lines(folder / f"{name}.yaml", about, f"custom_dataset: !function {READER}\n")


def _write_lines(path: Path, about: dict[str, Any], more: str = "") -> None:
    """JSON is YAML, one line a key."""
    about = {**about, "metadata": {"version": 1.0}}
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in about.items())
    write_whole(path, (lines + more).encode())


def documents(jsonl: str, member: str | None = None, **others: Any) -> dict[str, Any]:
    """The data of a task as lm-eval reads it, {"test": Dataset}; `others` are arguments it
    passes."""
    from datasets import Dataset

    if member is not None:
        rows = [
            {"query": "", "choices": [pair["sentence_good"], pair["sentence_bad"]], "gold": 0}
            for pair in pairs_of(jsonl)[member]
        ]
    else:
        rows = [_templated(row) for row in _rows(Path(jsonl).read_bytes(), jsonl)]
    return {"test": Dataset.from_list(rows)}


def _templated(row: dict[str, Any]) -> dict[str, Any]:
    """A row as lm-eval's own task says it: choices follow "Answer:", a word follows a space."""
    if "continuation" in row:
        return {"context": row["context"], "continuation": f" {row['continuation']}"}
    query = row["query"].rstrip("\n")
    return {"query": f"{query}\nAnswer:", "choices": row["choices"], "gold": row["gold"]}


@cache
def pairs_of(path: str) -> dict[str, list[dict[str, Any]]]:
    """Every paradigm of BLiMP and its pairs, in order of name."""
    try:
        with tarfile.open(fileobj=io.BytesIO(lzma.decompress(Path(path).read_bytes()))) as tar:
            found = dict(_paradigms(tar, path))
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
        raise DataError(f"{path} cannot be read ({error}); copy it again") from None
    if not found:
        raise DataError(f"{path} holds no .jsonl file, where BLiMP has 67")
    return dict(sorted(found.items()))


def _paradigms(tar: tarfile.TarFile, path: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for entry in tar:
        name = Path(entry.name)
        if name.suffix == ".jsonl" and (content := tar.extractfile(entry)) is not None:
            yield name.stem, _rows(content.read(), f"{path}: {entry.name}")


def _rows(content: bytes, where: str) -> list[dict[str, Any]]:
    try:
        return [json_of(line) for line in content.splitlines() if line.strip()]
    except DocumentError as error:
        raise DataError(f"{where} is not JSON lines ({error}); copy it again") from None
