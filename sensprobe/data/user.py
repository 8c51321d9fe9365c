"""A user's own code, run only when they name it: `python:FILE.py:FUNCTION`.

What the code prints goes to stderr, because stdout belongs to the command's own output.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from sensprobe.errors import DataError, SensprobeError, UsageError

PREFIX = "python:"


def load_function(spec: str) -> Callable[..., Any]:
    """The function that `python:FILE.py:FUNCTION` names; importing runs the file.

    An exception inside it becomes a `DataError` that keeps its message and chains it.
    """
    path, name = _parse(spec)
    if not path.is_file():
        raise DataError(f"{spec}: file {path} does not exist; name a Python file of yours")
    module = _execute(path, spec)
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(_lacking(module, name, path, spec))

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with _blamed(f"{spec}: {name}() failed"):
            return function(*args, **kwargs)

    return guarded


def _parse(spec: str) -> tuple[Path, str]:
    path, _, name = spec.removeprefix(PREFIX).rpartition(":")
    if not spec.startswith(PREFIX) or not path or not name.isidentifier():
        raise UsageError(f"{spec!r} does not name a function; write python:FILE.py:FUNCTION")
    return Path(path), name


def _execute(path: Path, spec: str) -> ModuleType:
    resolved = path.resolve()
    unique = hashlib.sha256(str(resolved).encode()).hexdigest()[:12]
    module_spec = importlib.util.spec_from_file_location(f"sensprobe_user_{unique}", resolved)
    if module_spec is None or module_spec.loader is None:
        raise UsageError(f"{spec}: {path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module.__name__] = module  # dataclasses and pickling look a module up by name
    try:
        with _importable(resolved.parent), _blamed(f"{spec}: importing {path.name} failed"):
            module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The file may import its neighbours, as it could when run as a script."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


@contextlib.contextmanager
def _blamed(doing: str) -> Iterator[None]:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except SensprobeError:
        raise
    except (Exception, SystemExit) as error:
        raise DataError(
            f"{doing}: {type(error).__name__}: {error}; correct it, or see where with --debug"
        ) from error


def _lacking(module: ModuleType, name: str, path: Path, spec: str) -> str:
    mine = [
        key
        for key, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    ]
    if not mine:
        return f"{spec}: {path} defines no function; define {name}()"
    near = difflib.get_close_matches(name, mine, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{spec}: {path} has no function {name}; {hint}It defines {', '.join(mine)}"
