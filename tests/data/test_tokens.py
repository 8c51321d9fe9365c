"""Tokens and where in the text each ends."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from language import SAMPLE, byte_level

from sensprobe.data.tokens import ByteTokenizer, FileTokenizer, readable
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


def test_truncation_and_padding_of_whoever_saved_it_are_ignored(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    file = byte_level(tmp_path / "tokenizer.json")
    want = FileTokenizer(file).encode(SAMPLE.encode())[0].tolist()
    made = tokenizers.Tokenizer.from_file(str(file))
    made.enable_truncation(max_length=5)
    made.enable_padding(length=900, pad_token="<|endoftext|>")
    other = tmp_path / "saved.json"
    made.save(str(other))
    assert FileTokenizer(other).encode(SAMPLE.encode())[0].tolist() == want


def test_what_a_tokenizer_puts_around_a_text(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    file = by_words(tmp_path / "tokenizer.json")
    made = tokenizers.Tokenizer.from_file(str(file))
    made.post_processor = tokenizers.processors.TemplateProcessing(
        "<s> $A <?>", None, [("<s>", 0), ("<?>", 1)]
    )
    both = tmp_path / "both" / "tokenizer.json"
    both.parent.mkdir()
    made.save(str(both))
    assert FileTokenizer(file).added == ((0,), ())
    assert FileTokenizer(both).added == ((0,), (1,))
    assert FileTokenizer(both).start("the") == (0,)
    assert FileTokenizer(byte_level(tmp_path / "bare.json")).added == ((), ())
    # transformers 5 makes this class anew from the vocabulary
    (both.parent / "tokenizer_config.json").write_text('{"tokenizer_class": "GPTNeoXTokenizer"}')
    assert FileTokenizer(both).added == ((), ())


def test_documents_beside_a_tokenizer_in_the_order_of_transformers(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    file = byte_level(tmp_path / "tokenizer.json")
    token = tokenizers.Tokenizer.from_file(str(file)).token_to_id
    reader = FileTokenizer(file)
    first = token("<|endoftext|>")
    (tmp_path / "config.json").write_text('{"bos_token_id": 7, "eos_token_id": 8}')
    assert (reader.start("a"), reader.ends) == ((7,), (8,))
    generation = tmp_path / "generation_config.json"
    generation.write_text('{"eos_token_id": [9, 5], "bos_token_id": -1}')
    assert (reader.start("a"), reader.ends, reader.end) == ((7,), (9, 5), 9)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text('{"bos_token": "a", "eos_token": "b"}')
    assert (reader.start("a"), reader.ends) == ((token("a"),), (9, 5))
    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": {"content": "c"}}')
    assert reader.start("a") == (token("c"),)
    settings.write_text('{"bos_token": "a", "added_tokens_decoder": {}}')
    assert reader.start("a") == (token("a"),)
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).unlink()
    assert reader.ends == (token("a"),)
    settings.unlink()
    (tmp_path / "special_tokens_map.json").unlink()
    assert (reader.start("a"), reader.ends) == ((first,), (first,))


@pytest.mark.parametrize("value", ['"</s>"', "1.5", "[3, true]", "{}"])
def test_an_id_that_is_none_is_named(tmp_path: Path, value: str) -> None:
    reader = FileTokenizer(byte_level(tmp_path / "tokenizer.json"))
    (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": {value}}}')
    with pytest.raises(DataError, match=r"generation_config\.json: eos_token_id is .* no token's"):
        _ = reader.ends


def test_text_that_utf_8_has_no_form_for_is_replaced() -> None:
    escaped = b"caf\xe9 \xff".decode("utf-8", "surrogateescape")
    assert readable(escaped) == readable(b"caf\xe9 \xff") == "caf\ufffd \ufffd"
    assert readable("\ud83d\ude00 \ud83d.") == "😀 \ufffd."
    assert readable("\ufeffnaïve") == "\ufeffnaïve"


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    reader = FileTokenizer(byte_level(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="not UTF-8: byte 0xe9 at position 3"):
        reader.encode(b"caf\xe9")
