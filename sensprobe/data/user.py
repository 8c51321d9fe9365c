"""A user's own code, run only when they name it: `python:FILE.py:FUNCTION`.

What the code prints goes to stderr, because stdout belongs to the command's own output.
"""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Callable, Iterator
from functools import update_wrapper
from pathlib import Path
from types import ModuleType
from typing import Any

from sensprobe.errors import DataError, SensprobeError, UsageError
from sensprobe.usercode.code import Code, parsed
from sensprobe.usercode.trust import Gate, Named


class UserFunction:
    """A function of the user's, whose failure is a `DataError` that keeps the message and chains
    it. `code` is the file it comes from, with all that the file imports."""

    def __init__(self, spec: str, function: Callable[..., Any], code: Code) -> None:
        update_wrapper(self, function)
        self.code = code
        self.function_name = spec.rpartition(":")[2]
        self._doing = f"{spec}: {self.function_name}() failed"
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self.code.running(), _blamed(self._doing):
            return self._function(*args, **kwargs)


def load_function(spec: str, gate: Gate | None = None) -> UserFunction:
    """The function that `python:FILE.py:FUNCTION` names; importing runs the file, if a
    `gate` lets it.

    Raises CodeError where it does not, UsageError for a spec that names no function.
    """
    path, name = parsed(spec)
    if not path.is_file():
        raise DataError(f"{spec}: file {path} does not exist; name a Python file of yours")
    if path.suffix != ".py":
        raise UsageError(f"{spec}: {path} is not a Python file; its name must end in .py")
    allowed = (gate or Named()).check(path, name)
    with _blamed(f"{spec}: importing {path.name} failed"):
        code = Code(path, allowed)
    function = getattr(code.module, name, None)
    if not callable(function):
        raise UsageError(_lacking(code.module, name, path, spec))
    return UserFunction(spec, function, code)


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
