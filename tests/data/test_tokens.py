"""Tokens and where in the text each ends."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from language import SAMPLE, byte_level

from sensprobe.data.tokens import ByteTokenizer, FileTokenizer
from sensprobe.errors import DataError


def by_words(path: Path) -> Path:
    """A tokenizer that drops spaces, and puts a token before every text."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: k for k, word in enumerate(["<s>", "<?>", *sorted(set(SAMPLE.split()))])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<?>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", None, [("<s>", 0)])
    made.save(str(path))
    return path


def test_a_byte_is_a_token() -> None:
    tokens, ends = ByteTokenizer().encode("ä€".encode())
    assert tokens.tolist() == list("ä€".encode())
    assert ends.tolist() == [1, 2, 3, 4, 5]
    assert ByteTokenizer().size == 256


def test_a_file_gives_the_tokens_of_its_library(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    file = byte_level(tmp_path / "tokenizer.json")
    reader = FileTokenizer(file)
    tokens, ends = reader.encode(SAMPLE.encode())
    own = tokenizers.Tokenizer.from_file(str(file))
    assert tokens.tolist() == own.encode(SAMPLE, add_special_tokens=False).ids
    assert reader.size == own.get_vocab_size()
    assert ends[-1] == len(SAMPLE.encode())
    assert (np.diff(ends) >= 0).all()


def test_ends_are_where_the_text_of_whole_tokens_ends(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    file = byte_level(tmp_path / "tokenizer.json")
    own = tokenizers.Tokenizer.from_file(str(file))
    content = SAMPLE.encode()
    tokens, ends = FileTokenizer(file).encode(content)
    clean = 0
    for k, end in enumerate(ends.tolist(), 1):
        said = own.decode(tokens[:k].tolist(), skip_special_tokens=False).encode()
        if "\ufffd".encode() not in said:  # the first k tokens are whole characters
            assert content[:end] == said
            clean += 1
    assert clean > len(tokens) / 2


def test_dropped_spaces_go_to_the_next_word_and_nothing_is_put_before(tmp_path: Path) -> None:
    tokens, ends = FileTokenizer(by_words(tmp_path / "tokenizer.json")).encode(
        "the €5  decay. ".encode()
    )
    assert len(tokens) == 3
    assert 0 not in tokens
    assert ends.tolist() == [3, 8, 16]


def test_no_tokens_of_no_text(tmp_path: Path) -> None:
    tokens, ends = FileTokenizer(by_words(tmp_path / "tokenizer.json")).encode(b"\n ")
    assert (len(tokens), len(ends)) == (0, 0)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    file = tmp_path / "tokenizer.json"
    file.write_text('{"model": ')
    with pytest.raises(DataError, match=r"tokenizer\.json is not a tokenizer"):
        FileTokenizer(file).encode(b"text")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"needs the package `tokenizers`.*\[lm\]"):
        _ = FileTokenizer(tmp_path / "tokenizer.json").size


def test_text_goes_there_and_back(tmp_path: Path) -> None:
    for reader in (ByteTokenizer(), FileTokenizer(byte_level(tmp_path / "tokenizer.json"))):
        tokens, _ = reader.encode(SAMPLE.encode())
        assert reader.decode(tokens.tolist()) == SAMPLE
    assert ByteTokenizer().decode("a€".encode()[:-1]) == "a�"


def test_a_text_starts_and_ends_as_the_tokenizer_says(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    assert (ByteTokenizer().start("A"), ByteTokenizer().end) == (tuple(b". "), None)
    assert ByteTokenizer().start(" A") == ByteTokenizer().start("\nA") == tuple(b".")
    assert ByteTokenizer().start("") == tuple(b". ")
    file = byte_level(tmp_path / "tokenizer.json")
    token = tokenizers.Tokenizer.from_file(str(file)).token_to_id
    assert FileTokenizer(file).start("A") == (FileTokenizer(file).end,) == (token("<|endoftext|>"),)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text('{"bos_token": {"content": "a"}, "eos_token": "b", "clean": true}')
    assert (FileTokenizer(file).start("A"), FileTokenizer(file).end) == ((token("a"),), token("b"))
    settings.write_text('{"eos_token": "b", "bos_token": null}')
    assert FileTokenizer(file).start("A") == (token("b"),)
    settings.write_text("{")
    with pytest.raises(DataError, match=r"tokenizer_config\.json cannot be read"):
        FileTokenizer(file).start("A")
    settings.write_text("[]")
    with pytest.raises(DataError, match="holds no settings"):
        FileTokenizer(file).start("A")


def test_a_tokenizer_without_edges_says_what_to_do(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match=r"Name it as bos_token in tokenizer_config\.json"):
        FileTokenizer(tmp_path / "tokenizer.json").start("A")
