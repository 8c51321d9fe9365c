"""Documents from files, folders and archives; what is no text is named."""

from __future__ import annotations

import gzip
import lzma
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from sensprobe.data.documents import STRETCH_BYTES, Document, held_out, read_documents, stretches
from sensprobe.errors import DataError


def read(path: Path) -> dict[str, bytes]:
    return {d.name: d.content for d in read_documents(path, f"text:{path}")}


def test_a_file_is_one_document_without_mark_and_with_plain_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n\xe2\x82\xac")
    assert read(tmp_path / "a.txt") == {"a.txt": "one\ntwo\nthree\n€".encode()}


def test_separators_part_a_file(tmp_path: Path) -> None:
    text = "first\nstory\n<|endoftext|>\nsecond <|endoftext|> is no line\n<|endoftext|>\n"
    (tmp_path / "a.txt").write_text(text)
    assert read(tmp_path / "a.txt") == {
        "a.txt#0": b"first\nstory\n",
        "a.txt#1": b"second <|endoftext|> is no line\n",
    }


@pytest.mark.parametrize(("end", "pack"), [(".xz", lzma.compress), (".gz", gzip.compress)])
def test_packed_files_read_the_same(tmp_path: Path, end: str, pack) -> None:
    (tmp_path / f"a.txt{end}").write_bytes(pack(b"some text"))
    assert read(tmp_path / f"a.txt{end}") == {f"a.txt{end}": b"some text"}
    (tmp_path / f"b.txt{end}").write_bytes(pack(b"some text" * 99)[:-9])
    with pytest.raises(DataError, match=r"b\.txt.*cannot be read"):
        read(tmp_path / f"b.txt{end}")


@pytest.mark.parametrize("end", ["", ".gz", ".xz"])
def test_folders_and_tars_hold_documents(tmp_path: Path, end: str) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name, text in {"b.txt": "B", "deep/a.txt": "A", "c.md": "C", "empty.txt": " \n"}.items():
        (tmp_path / "in" / name).write_text(text)
    want = {"b.txt": b"B", "a.txt": b"A"}
    assert read(tmp_path / "in") == want
    with tarfile.open(tmp_path / f"x.tar{end}", f"w:{end[1:]}") as archive:
        archive.add(tmp_path / "in", "corpus")
    assert read(tmp_path / f"x.tar{end}") == want


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"", "holds no text: it is empty"),
        ("a.txt", b"\n \n", "holds no text"),
        ("a.txt", b"good\nb\xffad", r"not UTF-8 text: byte 0xff at position 6 \(line 2\)"),
        ("a.tar", b"not a tar", "cannot be read"),
        ("d/a.md", b"text", "holds no .txt file"),
        ("a.md.not", None, "does not exist; name a UTF-8 text file"),
    ],
)
def test_what_is_no_text(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    with pytest.raises(DataError, match=says):
        read(file.parent if name.startswith("d/") else file)


@pytest.mark.parametrize("size", [10, STRETCH_BYTES, 3 * STRETCH_BYTES - 1, 3 * STRETCH_BYTES + 1])
def test_stretches_are_the_document_in_pieces_of_whole_characters(size: int) -> None:
    content = ("€" * size).encode()[: size // 3 * 3]
    pieces = stretches([Document("d", content), Document("e", b"short")])
    assert b"".join(p.content for p in pieces) == content + b"short"
    for piece in pieces:
        piece.content.decode()
    mine = [len(p.content) for p in pieces[:-1]]
    assert all(STRETCH_BYTES - 3 <= n < 2 * STRETCH_BYTES + 3 for n in mine) or len(mine) == 1
    assert pieces[-1].content == b"short"


def test_the_rule_of_what_is_held_out() -> None:
    names = [f"book{k}.txt" for k in range(1000)]
    out = [n for n in names if held_out(Document(n, b""))]
    assert out == [n for n in names if int(sha256(n.encode()).hexdigest()[:2], 16) < 26]
    assert 70 < len(out) < 135
