"""`text:` and `pydoc` data: splits by document, samples as windows, options, fingerprints."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import torch
from language import byte_level, story, write_stories

from sensprobe.data import Split, load_data
from sensprobe.data.documents import read_documents
from sensprobe.data.pydoc_topics import held_out, topics
from sensprobe.data.tokens import FileTokenizer
from sensprobe.errors import DataError, UsageError

SMALL = "length=32,context=8"


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    return write_stories(tmp_path / "stories")


def text_of(row: torch.Tensor) -> bytes:
    return bytes(row.to(torch.uint8).tolist())


def test_splits_share_no_document(stories: Path) -> None:
    data = load_data(f"text:{stories},{SMALL}")
    assert (data.task, data.outputs, data.length) == ("language", 256, 32)
    groups = {name: set(split.group.tolist()) for name, split in data.splits.items()}
    assert set(groups) == {"calibration", "search", "confirmation"}
    for a, b in combinations(groups.values(), 2):
        assert not a & b
    assert len(set().union(*groups.values())) == 24
    data.check_disjoint()


def test_a_window_is_text_of_its_document(stories: Path) -> None:
    documents = read_documents(stories, "")
    for split in load_data(f"text:{stories},{SMALL}").splits.values():
        assert split.x.dtype == split.y.dtype == torch.int32
        for x, y, group, size in zip(
            split.x, split.y, split.group, split.scored_bytes, strict=True
        ):
            content = documents[group].content
            at = content.find(text_of(x))
            assert at % 24 == 0
            assert text_of(y[8:]) == content[at + 9 : at + 33]
            assert (y[:8] == -1).all()
            assert size == 24


def test_the_first_windows_come_from_many_documents(tmp_path: Path) -> None:
    split = load_data(f"text:{write_stories(tmp_path / 's', 24, 400)},{SMALL}").splits["search"]
    assert len(split) > 300
    assert len(split.group[:64].unique()) >= 8


def test_one_long_file_is_cut_with_gaps(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_text("".join(story(k, 300) for k in range(80)), encoding="utf-8")
    data = load_data(f"text:{file},{SMALL}")
    content = file.read_bytes()
    places = {}
    for name, split in data.splits.items():
        found = [content.find(text_of(x)) for x in split.x]
        places[name] = min(found), max(found)
    assert places["calibration"][1] + 8192 < places["search"][0]
    assert places["search"][1] + 8192 < places["confirmation"][0]
    groups = [set(s.group.tolist()) for s in data.splits.values()]
    assert max(groups[0]) + 2 == min(groups[1])
    assert max(groups[1]) + 2 == min(groups[2])
    assert len(groups[2]) > 3


def test_part_keeps_what_is_held_out(tmp_path: Path) -> None:
    folder = write_stories(tmp_path / "s", 150, 20)

    def contents(part: str) -> set[bytes]:
        splits = load_data(f"text:{folder},{SMALL},part={part}").splits
        return {text_of(x) for s in splits.values() for x in s.x}

    whole, train, held = contents("all"), contents("train"), contents("held-out")
    assert train | held == whole
    assert 0 < len(held) < len(train) / 2
    assert not held & train


def test_both_parts_train_on_one_and_judge_on_the_other(tmp_path: Path) -> None:
    folder = write_stories(tmp_path / "s", 150, 20)
    both, train, held = (
        load_data(f"text:{folder},{SMALL},part={part}")
        for part in ("train+held-out", "train", "held-out")
    )
    for name in held.splits:
        assert both.splits.fingerprint(name) == held.splits.fingerprint(name)

    def contents(*splits: Split) -> list[bytes]:
        return sorted(text_of(x) for split in splits for x in split.x)

    assert contents(both.splits["train"]) == contents(*train.splits.values())
    assert both.splits.count("train") == len(both.splits["train"])
    assert both.splits["train"].fingerprint == both.splits.fingerprint("train")
    other = load_data(f"text:{folder},{SMALL},part=train+held-out", seed=1)
    assert other.splits.fingerprint("train") != both.splits.fingerprint("train")
    both.check_disjoint()


def test_options_are_part_of_the_identity(stories: Path) -> None:
    specs = [
        f"text:{stories},length=32,context=8",
        f"text:{stories},length=32,context=4",
        f"text:{stories},length=32,context=8,stride=48",
        f"text:{stories},length=24,context=0",
    ]
    prints = [load_data(spec).fingerprint for spec in specs]
    assert len(set(prints)) == len(prints)
    assert load_data(specs[0]).fingerprint == prints[0]
    assert load_data(specs[0], seed=1).fingerprint != prints[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("lenght=9", "no option 'lenght=9'; did you mean length"),
        ("length=many", "length=many: give a whole number"),
        ("length=-1", "give a whole number"),
        ("length=8,context=8", "from 0 to 7"),
        ("part=half", r"part=half: there are all, train, held-out, train\+held-out"),
    ],
)
def test_options_there_are_not(stories: Path, options: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_data(f"text:{stories},{options}")


def test_a_window_longer_than_the_text(stories: Path) -> None:
    with pytest.raises(DataError, match=r"length=9999 takes 10,?000 tokens, the longest has \d+"):
        load_data(f"text:{stories},length=9999")


def test_too_little_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a few words\n" * 99)
    with pytest.raises(DataError, match="give at least 40 KiB of text, or 10 documents"):
        load_data(f"text:{tmp_path / 'a.txt'},{SMALL}")


def test_a_path_may_look_like_options(tmp_path: Path) -> None:
    folder = write_stories(tmp_path / "a,length=9")
    assert load_data(f"text:{folder},{SMALL}").length == 32


def test_pydoc_is_there_and_holds_topics_out() -> None:
    data = load_data("pydoc,length=128,context=16")
    names = [topic.name for topic in topics()]
    for split in data.splits.values():
        out = {held_out(topics()[k]) for k in split.group.tolist()}
        assert out == {split.name != "train"}
    assert "if" in names
    assert data.fingerprint == load_data("pydoc,length=128,context=16", seed=3).fingerprint
    data.check_disjoint()


def test_topics_share_no_paragraph() -> None:
    seen: dict[str, str] = {}
    for topic in topics():
        for paragraph in topic.content.decode().split("\n\n"):
            words = " ".join(paragraph.split())
            assert not words or seen.setdefault(words, topic.name) == topic.name
    assert sum(len(t.content) for t in topics()) > 200_000


def test_pydoc_has_a_part_of_its_own() -> None:
    with pytest.raises(UsageError, match="train split of its own"):
        load_data("pydoc,part=train")


def test_a_document_begins_with_what_its_tokenizer_puts_there(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    plain = FileTokenizer(byte_level(tmp_path / "tokenizer.json"))
    made = tokenizers.Tokenizer.from_file(str(plain.file))
    made.post_processor = tokenizers.processors.TemplateProcessing(
        "<|endoftext|> $A <|endoftext|>", None, [("<|endoftext|>", 0)]
    )
    made.save(str(tmp_path / "own.json"))
    own = FileTokenizer(tmp_path / "own.json")
    long = tmp_path / "long.txt"
    long.write_text(story(0, 12_000), encoding="utf-8")  # cut into stretches
    for spec in (f"text:{write_stories(tmp_path / 's')}", f"text:{long}"):
        splits = load_data(f"{spec},length=16,context=0", tokenizer=own).splits
        rows = [x for split in splits.values() for x in split.x]
        begun = [int(x[0]) == 0 for x in rows]
        assert not any((x[1:] == 0).any() for x in rows)
        assert sum(begun) == (1 if spec.endswith("long.txt") else 24)
        for split in splits.values():
            assert not (split.y == 0).any()
            for x, y, size in zip(split.x, split.y, split.scored_bytes, strict=True):
                text = plain.decode([*x.tolist(), *y[-1:].tolist()])
                assert text.encode().endswith(plain.decode(y.tolist()).encode())
                assert size == len(plain.decode(y.tolist()).encode())
