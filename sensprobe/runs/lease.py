"""One process measures, the others wait: a lock in the run folder that goes with its process.

    leases/NAME.lock    held (flock) while something of that name is worked on

The system drops a lock when its process ends, however it ends, so no lease outlives its holder and
nothing has to be timed out. A file is removed by whoever holds its lock; one that a killed process
left is removed by the next who asks for it, or with `sweep`. Nobody may hold two leases, so that
there is no circle to wait in.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from sensprobe.documents.files import disk_errors, require_no_link

FOLDER = "leases"
SUFFIX = ".lock"


@contextlib.contextmanager
def held(run_folder: Path, name: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds the lease of `name`; `waiting` is called once where another process has it.

    RunError where the file cannot be made. An interrupt ends the waiting.
    """
    path = run_folder / FOLDER / f"{name}{SUFFIX}"
    descriptor = _acquired(path, waiting)
    try:
        yield
    finally:
        _released(path, descriptor)


def sweep(run_folder: Path) -> None:
    """Removes files that no process holds, and the folder where it is empty then."""
    folder = run_folder / FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return
    with contextlib.suppress(OSError):
        for path in list(folder.glob(f"*{SUFFIX}")):
            with contextlib.suppress(OSError):
                descriptor = _opened(path, os.O_RDWR)
                if _locked(descriptor, fcntl.LOCK_NB) and _is_at(path, descriptor):
                    _released(path, descriptor)
                else:
                    os.close(descriptor)
        folder.rmdir()


def _acquired(path: Path, waiting: Callable[[], None]) -> int:
    """A descriptor that holds the lock of the file which is at `path` now."""
    told = False
    while True:
        descriptor = _made(path)
        try:
            if not _locked(descriptor, fcntl.LOCK_NB):
                if not told:
                    told = True
                    waiting()
                _locked(descriptor, 0)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder removed the file: another may lie there by now


def _made(path: Path) -> int:
    """A descriptor of the file, which is made where it is not there."""
    while True:
        with disk_errors(path, "creating"):
            path.parent.mkdir(exist_ok=True)
            require_no_link(path.parent)
            try:
                return _opened(path, os.O_RDWR | os.O_CREAT)
            except FileNotFoundError:  # `sweep` of another process took the empty folder away
                continue


def _opened(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _locked(descriptor: int, flags: int) -> bool:
    """True if the lock is held now; False only with LOCK_NB, where another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """True if an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _released(path: Path, descriptor: int) -> None:
    """Removes the file while its lock is held, then lets the lock go, of forked children too."""
    with contextlib.suppress(OSError):
        path.unlink()
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
