"""What an export takes along of where a text starts and stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from language import BYTES, MAMBA, byte_level, write_model
from language_models import HF_CONFIG, write

from sensprobe.errors import DataError
from sensprobe.export.runtimes import fit, runtime_named, write_for
from sensprobe.jobs.export import text_files
from sensprobe.jobs.export_runtime import _token_ids
from sensprobe.models.apply import Applier
from sensprobe.models.mamba import MambaConfig
from sensprobe.plans.scheme import parse
from sensprobe.session.source import open_model

DOCUMENTS = {
    "tokenizer_config.json": {"bos_token": "a", "eos_token": "b", "pad_token": "c"},
    "special_tokens_map.json": {"eos_token": {"content": "d"}},
    "generation_config.json": {"eos_token_id": [9, 5], "temperature": 0.5},
}


def hugging_face(folder: Path, **ids: Any) -> Path:
    """A folder of transformers with a tokenizer, and `ids` in its config.json."""
    config = MambaConfig(**{**BYTES, "d_input": 300, "d_output": 300}, dt_rank=1)
    sizes = {"vocab_size": 300, "hidden_size": 8, "num_hidden_layers": 1, "state_size": 16}
    tied: dict[str, Any] = {"tie_word_embeddings": True}
    write(folder, HF_CONFIG | sizes | tied | ids, config, "model.safetensors")
    byte_level(folder / "tokenizer.json")
    return folder


def add(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text(json.dumps(DOCUMENTS[name]))


def test_documents_go_along_as_they_are(tmp_path: Path) -> None:
    folder = hugging_face(tmp_path / "m", bos_token_id=4, eos_token_id=5, pad_token_id=None)
    add(folder, *DOCUMENTS)
    found = text_files(open_model(folder), model_config=True)
    assert found.keys() == {"tokenizer.json", *DOCUMENTS}
    assert all((folder / name).read_bytes() == content for name, content in found.items())
    own = text_files(open_model(folder), model_config=False)
    generation = json.loads(own.pop("generation_config.json"))
    assert generation == DOCUMENTS["generation_config.json"] | {"bos_token_id": 4}
    assert own.items() < found.items()


def test_a_runtimes_config_says_what_the_models_own_says(tmp_path: Path) -> None:
    ids = {"bos_token_id": 4, "eos_token_id": [5, 7], "pad_token_id": None}
    source = open_model(hugging_face(tmp_path / "m", **ids))
    assert _token_ids(source) == ids
    assert _token_ids(open_model(hugging_face(tmp_path / "silent"))) == {}
    plan = {"layers.0.out_proj": parse("int8/channel")}
    fitted = fit(runtime_named("torchao"), source.model, plan)
    files = text_files(source, model_config=True)
    out = tmp_path / "out"
    write_for(fitted, Applier(source.model), out, name="x", text_files=files, ids=ids)
    document = json.loads((out / "config.json").read_text())
    assert {key: document[key] for key in ids} == ids
    assert (out / "tokenizer.json").read_bytes() == files["tokenizer.json"]


def test_a_model_of_no_such_config_says_what_its_tokenizer_says(tmp_path: Path) -> None:
    none = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    assert _token_ids(open_model(write_model(tmp_path / "bytes.safetensors", MAMBA))) == none
    folder = hugging_face(tmp_path / "m")
    (folder / "config.json").unlink()
    source = open_model(write_model(folder / "own.safetensors", MAMBA))
    object.__setattr__(source, "tokenizer", open_model(hugging_face(tmp_path / "o")).tokenizer)
    add(tmp_path / "o", "tokenizer_config.json", "generation_config.json")
    token = source.tokenizer.named  # type: ignore[union-attr]
    assert _token_ids(source) == {
        "bos_token_id": token("bos")[0], "eos_token_id": [9, 5], "pad_token_id": token("pad")[0]
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{", "[]", '{"a": ' * 100_000])
def test_a_damaged_document_is_named(tmp_path: Path, text: str) -> None:
    folder = hugging_face(tmp_path / "m")
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(DataError, match=r"generation_config\.json (cannot be read|holds no)"):
        text_files(open_model(folder), model_config=True)
