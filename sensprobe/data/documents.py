r"""Documents: pieces of text that are independent of one another, and so may part the splits.

    FILE.txt            one document, or several with a line `<|endoftext|>` between them
    FILE.txt.xz, .gz    the same, packed
    FOLDER              every .txt in it and below, each a document
    FILE.tar[.xz|.gz]   every .txt in it, each a document

Text is UTF-8. It is kept as it is, but for a byte order mark, which goes, and line ends, which
become \n: bytes are counted after that.

**What is held out.** A document is held out where the SHA-256 of its name (the file's name without
folders, of several in one file with `#NUMBER`) begins with a byte below 26: one in ten. What is
trained on the rest can be judged on these, on any machine.
"""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PurePosixPath

from sensprobe.errors import DataError

SEPARATOR = b"<|endoftext|>"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PACKED = {".xz": lzma.decompress, ".gz": gzip.decompress}
DAMAGE = (OSError, EOFError, lzma.LZMAError, zlib.error, tarfile.TarError)
HELD_OUT_BELOW = 26
STRETCH_BYTES = 8192
"""About 1,400 words, a few pages, so that one part tells little of the next but one."""


@dataclass(frozen=True, slots=True)
class Document:
    """A name, for rules and messages, and valid UTF-8. `begins` is False of a stretch that starts
    inside a longer one."""

    name: str
    content: bytes
    begins: bool = True


def held_out(document: Document) -> bool:
    """True if training leaves a document alone."""
    return sha256(document.name.encode()).digest()[0] < HELD_OUT_BELOW


def read_documents(path: Path, spec: str) -> list[Document]:
    """Every document at `path` that is not empty, in order of name; DataError where there is none.

    `spec` names the data in errors.
    """
    if not path.exists():
        raise DataError(
            f"{spec}: {path} does not exist; name a UTF-8 text file (.xz and .gz too), a folder "
            "or a tar of .txt files"
        )
    if path.is_dir():
        files = sorted(path.rglob("*.txt"))
        found = [_document(p.name, p.read_bytes(), p, spec) for p in files]
    elif ".tar" in path.suffixes:
        members = list(_members(path, spec))
        files = [Path(name) for name, _ in members]
        found = [_document(PurePosixPath(n).name, raw, n, spec) for n, raw in members]
    else:
        files = [path]
        found = _separate(_document(path.name, _unpacked(path, spec), path, spec))
    if not files:
        raise DataError(f"{spec}: {path} holds no .txt file; name one that does, or a file")
    found = [d for d in found if d.content.strip()]
    if not found:
        raise DataError(f"{spec}: {path} holds no text: it is empty")
    return found


def stretches(documents: list[Document]) -> list[Document]:
    """The documents cut into stretches of `STRETCH_BYTES`, never inside a character.

    What is left at the end of each, shorter than that, is part of the last one.
    """
    out = []
    for document in documents:
        content = document.content
        edges = [_boundary(content, k) for k in range(0, len(content), STRETCH_BYTES)]
        if len(edges) > 1 and len(content) - edges[-1] < STRETCH_BYTES:
            edges.pop()
        for k, (start, stop) in enumerate(zip(edges, [*edges[1:], len(content)], strict=True)):
            out.append(Document(f"{document.name}@{k}", content[start:stop], begins=k == 0))
    return out


def _boundary(content: bytes, at: int) -> int:
    """The first start of a character from `at` on."""
    while at < len(content) and content[at] & 0xC0 == 0x80:
        at += 1
    return at


def _separate(document: Document) -> list[Document]:
    """The documents that one file holds: itself, or what lines of `SEPARATOR` part."""
    parts: list[list[bytes]] = [[]]
    for line in document.content.splitlines(keepends=True):
        if line.strip() == SEPARATOR:
            parts.append([])
        else:
            parts[-1].append(line)
    if len(parts) == 1:
        return [document]
    return [Document(f"{document.name}#{k}", b"".join(part)) for k, part in enumerate(parts)]


def _unpacked(path: Path, spec: str) -> bytes:
    try:
        return PACKED.get(path.suffix, bytes)(path.read_bytes())
    except DAMAGE as error:
        raise DataError(_damaged(path, spec, error)) from error


def _members(path: Path, spec: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of every .txt of a tar, in order of name."""
    try:
        with tarfile.open(fileobj=BytesIO(_unpacked(path, spec))) as archive:
            for member in sorted(archive.getmembers(), key=lambda m: m.name):
                if member.isfile() and member.name.endswith(".txt"):
                    file = archive.extractfile(member)
                    assert file is not None
                    yield member.name, file.read()
    except DAMAGE as error:
        raise DataError(_damaged(path, spec, error)) from error


def _damaged(path: Path, spec: str, error: Exception) -> str:
    what = f"{type(error).__name__}: {error}"
    return f"{spec}: {path} cannot be read ({what}); copy or pack it again"


def _document(name: str, raw: bytes, place: object, spec: str) -> Document:
    content = raw.removeprefix(BYTE_ORDER_MARK)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{spec}: {place} is not UTF-8 text: byte {content[error.start]:#04x} at position "
            f"{error.start:,} (line {line:,}) fits nowhere; save it as UTF-8"
        ) from None
    return Document(name, content.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
