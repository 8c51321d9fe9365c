"""Models of the Hugging Face Hub, with the hub played by a folder on this machine."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from language_models import HF_CONFIG, LAYERS, VOCABULARY, WIDTH, N, shard, write

import sensprobe
from sensprobe import api
from sensprobe.checkpoints import hub
from sensprobe.errors import CheckpointError, UsageError
from sensprobe.models.mamba import MambaConfig
from sensprobe.session.source import open_model

REPO, COMMIT = "someone/tiny-mamba", "0123456789abcdef" * 2 + "01234567"
CONFIG = MambaConfig(
    encoder="embedding", d_input=VOCABULARY, d_output=VOCABULARY, d_model=WIDTH, layers=LAYERS,
    norm="pre", final_norm=True, residual=True, pooling="none", head_bias=False, tied_head=False,
    d_state=N, dt_rank=1,
)  # fmt: skip


@dataclass
class Hub:
    """A hub that has one repository, or does not answer; and its cache."""

    files: Path
    cache: Path
    up: bool = True
    asked: list[str] = field(default_factory=list)
    fails: Exception | None = None

    def info(self, repo: str, *, revision: str, **_: Any) -> SimpleNamespace:
        self._answer(f"info {repo} {revision}")
        files = [
            SimpleNamespace(rfilename=p.name, size=p.stat().st_size)
            for p in sorted(self.files.iterdir())
        ]
        return SimpleNamespace(sha=COMMIT, siblings=files)

    def download(
        self,
        repo: str,
        *,
        revision: str,
        allow_patterns: list[str] | None = None,
        local_files_only: bool = False,
    ) -> str:
        folder = self.cache / COMMIT
        if local_files_only:
            if revision not in ("main", COMMIT) or not folder.exists():
                raise huggingface_hub.errors.LocalEntryNotFoundError("not there")
            return str(folder)
        self._answer(f"download {repo} {revision}")
        folder.mkdir(parents=True, exist_ok=True)
        for name in allow_patterns or []:
            shutil.copy(self.files / name, folder / name)
        return str(folder)

    def _answer(self, what: str) -> None:
        self.asked.append(what)
        if self.fails is not None:
            raise self.fails
        if not self.up:
            raise ConnectionError("Name or service not known")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    files = write(tmp_path / "repo", HF_CONFIG, CONFIG, "model.safetensors")
    (files / "README.md").write_text("about it")
    torch.save({}, files / "pytorch_model.bin")  # what safetensors make needless
    found = Hub(files, tmp_path / "cache")
    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda self, *a, **k: found.info(*a, **k)
    )
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.download)
    return found


def test_a_model_is_fetched_once_and_says_so(served: Hub, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        source = open_model(f"hf:{REPO}")
    assert source.name == "tiny-mamba"
    assert "downloading someone/tiny-mamba" in caplog.text
    assert COMMIT in caplog.text
    assert {p.name for p in (served.cache / COMMIT).iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    caplog.clear()
    served.up = False
    again = open_model(f"hf:{REPO}@{COMMIT}")
    assert again.fingerprint == source.fingerprint == open_model(served.files).fingerprint
    assert not caplog.text
    logits = sensprobe.load(f"hf:{REPO}@{COMMIT}")(torch.arange(5)[None])
    assert logits.shape == (1, 5, VOCABULARY)


def test_a_run_remembers_the_commit(served: Hub, tmp_path: Path) -> None:
    from sensprobe.session.open import settings_of

    assert settings_of(f"hf:{REPO}", "pydoc")["model"] == f"hf:{REPO}@{COMMIT}"
    assert settings_of(f"hf:{REPO}@{COMMIT}", "pydoc")["model"] == f"hf:{REPO}@{COMMIT}"
    open_model(f"hf:{REPO}")
    served.up = False
    assert hub.pinned(f"hf:{REPO}") == f"hf:{REPO}@{COMMIT}"  # of the cache
    with pytest.raises(CheckpointError, match="no answer"):
        hub.pinned(f"hf:{REPO}@other")


def test_a_download_that_was_cut_off_is_done_again(served: Hub) -> None:
    shard(served.files)
    (served.files / "pytorch_model.bin").unlink()
    shards = sorted(p.name for p in served.files.glob("*.safetensors"))
    assert len(shards) == 2
    open_model(f"hf:{REPO}")
    for name in [*shards, "config.json"]:
        (served.cache / COMMIT / name).unlink()
        open_model(f"hf:{REPO}@{COMMIT}")
        assert served.asked[-1].startswith("download")


def test_a_whole_file_needs_no_shards_of_an_index_beside_it(served: Hub) -> None:
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (served.files / "model.safetensors.index.json").write_text(json.dumps(index))
    open_model(f"hf:{REPO}")
    shutil.copy(served.files / "model.safetensors.index.json", served.cache / COMMIT)
    served.up = False
    open_model(f"hf:{REPO}@{COMMIT}")


def test_costs_are_those_of_the_folder(served: Hub) -> None:
    assert api.cost(f"hf:{REPO}") == api.cost(served.files)


@pytest.mark.parametrize("spec", ["hf:", "hf:one", "hf:a/b/c", "hf:a/b@", "hf:a/b c"])
def test_what_names_no_model(spec: str) -> None:
    with pytest.raises(UsageError, match="hf:OWNER/NAME"):
        open_model(spec)


def test_an_id_without_its_prefix_is_never_fetched(served: Hub) -> None:
    with pytest.raises(UsageError, match=f"write hf:{REPO}"):
        open_model(REPO)
    assert not served.asked


def test_a_repository_without_weights(served: Hub) -> None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        (served.files / name).unlink()
    with pytest.raises(CheckpointError, match=r"holds no checkpoint.*README\.md"):
        open_model(f"hf:{REPO}")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("RepositoryNotFoundError", "no such model"),
        ("RevisionNotFoundError", "no such revision"),
        ("GatedRepoError", "asks for consent"),
    ],
)
def test_what_the_hub_refuses(served: Hub, kind: str, says: str) -> None:
    error = getattr(huggingface_hub.errors, kind)
    served.fails = error.__new__(error)
    with pytest.raises(CheckpointError, match=says):
        open_model(f"hf:{REPO}")


def test_no_network(served: Hub) -> None:
    served.up = False
    with pytest.raises(CheckpointError, match="where there is a network"):
        open_model(f"hf:{REPO}")


def test_a_run_of_a_hub_model_says_so_before_anything_is_fetched(
    served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may be somebody else's, and name what this machine does not have."""
    from sensprobe.progress import Silent
    from sensprobe.runs import Manifest, open_run
    from sensprobe.session.open import open_session

    asked: list[list[str]] = []

    class Told(Silent):
        def note(self, text: str) -> None:
            if f"is of hf:{REPO}, read from the hub's cache or downloaded" in text:
                asked.append(list(served.asked))

    settings = {"model": f"hf:{REPO}", "data": "digits"}
    open_run(tmp_path / "run", Manifest("m", "a", "d", "b", 1, settings=settings))
    with pytest.raises(sensprobe.errors.SensprobeError):
        open_session(run=tmp_path / "run", progress=Told())
    assert asked == [[]]
    assert served.asked != []
