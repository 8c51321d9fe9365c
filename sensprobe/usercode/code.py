"""A Python file of the user's own: what it is made of, and how it is executed. Knows no data.

What a file is, is its own content and that of every file below its folder that it imports. Both
are read here and nowhere else: modules below the folder are compiled from the bytes whose hash is
kept, never from a cached .pyc, which need not be of that source. Each file has its helpers for
itself: two files that import `helper` from two folders get two, and an edited one is read anew.
What is imported from elsewhere (installed packages, this one) is the machine's, and not looked at.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from pathlib import Path
from types import ModuleType
from typing import Any

from sensprobe.documents.files import named_path
from sensprobe.errors import CodeError, UsageError

PREFIX = "python:"
OWN = frozenset({"sensprobe", "sensprobe_kernels", "__main__"})
"""Names in a file's folder that are not the file's own: this package and what runs it."""
INSTALLED = tuple(
    Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)

Files = dict[str, str]
"""Name of a file, relative to the folder of the one that is run -> SHA-256 of its content."""


def parsed(spec: str) -> tuple[Path, str]:
    """The file, absolute and with links followed, and the function that a spec names."""
    path, _, name = spec.removeprefix(PREFIX).rpartition(":")
    if not spec.startswith(PREFIX) or not path or not name.isidentifier():
        raise UsageError(f"{spec!r} does not name a function; write python:FILE.py:FUNCTION")
    try:
        return named_path(path).resolve(), name
    except (
        ValueError,
        OSError,
        RuntimeError,
    ) as error:  # a null byte, a loop of links, no such ~user
        raise UsageError(f"{spec!r} does not name a file ({error})") from error


def mark_of(files: Mapping[str, str]) -> str:
    """One word that changes where any of the files does."""
    return sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]


def files_of(path: Path) -> Files:
    """A file and what its import statements, and theirs, find below its folder; nothing is run.

    Statements inside functions count. Where a module and a package have the same name, both do.
    """
    root, found = path.parent, Files()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(root).as_posix()
        if name in found:
            continue
        content = file.read_bytes()
        found[name] = sha256(content).hexdigest()
        if file.suffix == ".py":
            package = file.relative_to(root).parts[:-1]
            for dotted in _imported(content, package):
                waiting += _below(root, dotted)
    return found


def _imported(content: bytes, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Names of modules, from the folder's root, that a file's import statements may mean."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # importing it will say so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else ()
            base = (*up, *(node.module or "").split(".")) if node.module else up
            yield from ((*base, alias.name) for alias in node.names)


def _below(root: Path, dotted: tuple[str, ...]) -> Iterator[Path]:
    """The files that importing a module runs: of every package on the way, and its own."""
    if not dotted or dotted[0] in OWN:
        return
    for size in range(1, len(dotted) + 1):
        place = root.joinpath(*dotted[:size])
        names = (place / "__init__", place)
        for stem in names:
            for suffix in (".py", ".pyc", *EXTENSION_SUFFIXES):
                file = stem.with_name(stem.name + suffix)
                with contextlib.suppress(OSError, ValueError):
                    if file.is_file():
                        yield file


class Code:
    """A file that was run. `files` is what it is made of, `mark` one word for that.

    With `allowed` only these files are run, as they were when their hashes were taken: CodeError
    for another, before any of it is executed.
    """

    def __init__(self, path: Path, allowed: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.files = files_of(path)
        self._allowed = allowed
        self._sealed = False
        self._helpers: dict[str, ModuleType] = {}
        self._found: set[str] = set()  # names of modules below the folder
        name = f"sensprobe_user_{sha256(str(path).encode()).hexdigest()[:12]}"
        loader = _Loader(name, str(path), self)
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        assert spec is not None
        self.module = importlib.util.module_from_spec(spec)
        before = sys.modules.get(name)
        importlib.invalidate_caches()  # a neighbour may be a moment old
        sys.modules[name] = self.module  # dataclasses and pickling look a module up by name
        try:
            with self.running():
                loader.exec_module(self.module)
        except BaseException:
            if before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = before
            raise

    @property
    def mark(self) -> str:
        return mark_of(self.files)

    def seal(self) -> None:
        """Fixes `files`: from here on no other file below the folder is imported."""
        self._sealed = True

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within this block imports find the file's neighbours first, as a script's do, and each
        file has its own copies of helpers."""
        roots = {name.partition("/")[0].removesuffix(".py") for name in self.files}
        roots |= {name.partition(".")[0] for name in self._found}
        aside = {n: m for n, m in sys.modules.items() if n.partition(".")[0] in roots and _loose(m)}
        for name in aside:
            del sys.modules[name]
        sys.modules.update(self._helpers)
        finder = _Finder(self)
        sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            sys.meta_path.remove(finder)
            for name in self._found & sys.modules.keys():
                self._helpers[name] = sys.modules.pop(name)
            sys.modules.update(aside)

    def read(self, file: str) -> bytes:
        """The content of a file below the folder that is to be run; CodeError where it may not."""
        content = Path(file).read_bytes()
        name, found = self._name(file), sha256(content).hexdigest()
        if self._allowed is not None and self._allowed.get(name) != found:
            raise CodeError(
                f"{self.path} imports {file}, which you have not allowed as it is now. "
                "It was not run; look at it, and use --allow-code"
            )
        if self._sealed and self.files.get(name) != found:
            mine = self.path.name
            new = f"is imported while {mine} is called, and was not known when it was loaded"
            how = f"has changed since {mine} was loaded" if name in self.files else new
            raise CodeError(
                f"{file} {how}, so that what is measured with it could not be told apart. Import "
                "it at the top of that file, and run the command again"
            )
        self.files[name] = found
        return content

    def found(self, name: str) -> None:
        """A module of this name is one of the file's helpers."""
        self._found.add(name)

    def _name(self, file: str) -> str:
        path = Path(file)
        root = self.path.parent
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


class _Loader(SourceFileLoader):
    """Compiles what `Code.read` gave, and looks at no cache."""

    def __init__(self, fullname: str, path: str, code: Code) -> None:
        super().__init__(fullname, path)
        self._code = code

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self._code.read(self.path), self.path)


class _Finder:
    """Finds modules below a file's folder."""

    def __init__(self, code: Code) -> None:
        self._code = code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root = self._code.path.parent
        where = [str(root)] if path is None else [p for p in path if Path(p).is_relative_to(root)]
        if not where or fullname.partition(".")[0] in OWN:
            return None
        spec = PathFinder.find_spec(fullname, where)
        if spec is None or (spec.origin is not None and _installed(Path(spec.origin))):
            return None
        if isinstance(spec.loader, SourceFileLoader) and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin, self._code)
        elif spec.origin is not None:
            self._code.read(spec.origin)  # compiled code, which is loaded from where it lies
        self._code.found(fullname)
        return spec


def _loose(module: ModuleType) -> bool:
    """True if a module lies in a user's folder, not in an installed package or in Python's own."""
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    if origin in ("built-in", "frozen") or module.__name__.partition(".")[0] in OWN:
        return False
    return origin is None or not _installed(Path(origin))


def _installed(path: Path) -> bool:
    return any(path.is_relative_to(place) for place in INSTALLED)
