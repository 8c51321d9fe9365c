"""Models of the Hugging Face Hub: `hf:OWNER/NAME[@REVISION]`.

A revision is a branch, a tag or a commit. `pinned` turns it into the commit it stands for now,
which is what a run remembers; a commit that was fetched once is read from the hub's own cache,
without a network. Only the config, the weights (safetensors where there are any, else
pytorch_model.bin), tokenizer.json and what says where texts start and stop are fetched, after
saying how much that is.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from sensprobe.checkpoints.folder import is_checkpoint
from sensprobe.documents import DocumentError, read_json, schema
from sensprobe.errors import CheckpointError, UsageError

logger = logging.getLogger("sensprobe.hub")

PREFIX = "hf:"
_SPEC = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
SMALL = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
)
WHOLE = "model.safetensors"
WEIGHTS = ((WHOLE,), ("*.safetensors", "*.safetensors.index.json"), ("pytorch_model.bin",))
"""Patterns of weight files; the first that matches is downloaded."""
T = TypeVar("T")


def on_hub(spec: str | Path) -> bool:
    """True if a MODEL names a repository of the hub."""
    return isinstance(spec, str) and spec.startswith(PREFIX)


def pinned(spec: str) -> str:
    """The same model with its revision as a commit. What is in the cache needs no network.

    Raises UsageError for a spec that is none, CheckpointError where the hub has no such thing or
    does not answer.
    """
    repo, revision = _parts(spec)
    if _COMMIT.fullmatch(revision):
        return spec
    try:
        commit = _info(spec, repo, revision).sha
    except CheckpointError:
        known = _cached(repo, revision)
        if known is None:
            raise
        commit = known.name
        logger.warning("no answer from the hub: %s is commit %s of the cache", spec, commit)
    return f"{PREFIX}{repo}@{commit}"


def fetched(spec: str) -> Path:
    """The folder of a model: from the cache, else downloaded into it. Raises as `pinned` does."""
    repo, revision = _parts(spec)
    known = _cached(repo, revision)
    if known is not None and _COMMIT.fullmatch(revision):
        return known
    info = _info(spec, repo, revision)
    files = _wanted(spec, [s.rfilename for s in info.siblings])
    size = sum(s.size or 0 for s in info.siblings if s.rfilename in files)
    known = _cached(repo, info.sha)
    if known is not None and all((known / name).is_file() for name in files):
        return known
    logger.warning(
        "downloading %s from the Hugging Face Hub: commit %s, %d files, %.1f MB",
        repo, info.sha, len(files), size / 1e6,
    )  # fmt: skip
    from huggingface_hub import snapshot_download

    def download() -> Path:
        return Path(snapshot_download(repo, revision=info.sha, allow_patterns=files))

    return _asked(spec, download)


def _parts(spec: str) -> tuple[str, str]:
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise UsageError(
            f"{spec!r} names no model of the hub: write hf:OWNER/NAME or hf:OWNER/NAME@REVISION, "
            "as in hf:state-spaces/mamba-130m-hf."
        )
    return found["repo"], found["revision"] or "main"


def _cached(repo: str, revision: str) -> Path | None:
    """The cache's folder of a revision, if a whole checkpoint is there."""
    _require()
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except Exception:  # whatever the hub's library says of a cache without it
        return None
    held = [path.name for path in folder.iterdir()]
    if not is_checkpoint(folder) or not any(_matching(held, kind) for kind in WEIGHTS):
        return None
    if WHOLE in held:
        return folder  # an index beside it is of older weights
    return folder if all(_shards(path) <= {*held} for path in folder.glob("*.index.json")) else None


def _shards(index: Path) -> set[str]:
    """The files an index names; a name that is none where it cannot be read."""
    try:
        document = read_json(index)
        schema("index").require(document)
    except DocumentError:
        return {""}
    return set(document["weight_map"].values())


def _wanted(spec: str, names: list[str]) -> list[str]:
    """The files to fetch, at the top of the repository."""
    weights = next((found for kind in WEIGHTS if (found := _matching(names, kind))), [])
    if not weights or "config.json" not in names:
        raise CheckpointError(
            f"{spec} holds no checkpoint: config.json and *.safetensors or pytorch_model.bin are "
            f"needed, and there are {', '.join(sorted(names)) or 'no files'}."
        )
    return [*(name for name in SMALL if name in names), *weights]


def _matching(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    return [n for n in names if "/" not in n and any(fnmatch(n, p) for p in patterns)]


def _info(spec: str, repo: str, revision: str) -> Any:
    _require()
    from huggingface_hub import HfApi

    return _asked(
        spec, lambda: HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=30)
    )


def _asked(spec: str, ask: Callable[[], T]) -> T:
    """An answer of the hub; CheckpointError where there is none."""
    from huggingface_hub import errors

    try:
        return ask()
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{spec}: the hub has the model, and no such revision.") from error
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{spec}: its owner asks for consent. Give it on the model's page, then log in with "
            "`hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{spec}: the hub has no such model, or keeps it private (`hf auth login`)."
        ) from error
    except Exception as error:  # a dozen ways to fail, of three libraries
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{spec}: no answer from the Hugging Face Hub ({reason}). Run this once where there is "
            "a network: the cache does from then on. A folder that was downloaded otherwise is a "
            "MODEL too."
        ) from error


def _require() -> None:
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "models of the hub need huggingface_hub, which is not installed: "
            "pip install 'sensprobe[lm]'."
        ) from error
