"""The RAM that is free, and an error of ours where something needs more.

Linux grants RAM that is not there and ends the process when it is written to, so what is known
to be needed is compared with what is free before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sensprobe.errors import CapacityError

MEMINFO = Path("/proc/meminfo")
LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
"""Pairs of files (limit, used) of a container, in either version of cgroups."""


def free_bytes() -> int | None:
    """Bytes that can still be allocated here; None where the system does not say."""
    known = [_available(), *(_left(limit, used) for limit, used in LIMITS)]
    return min((size for size in known if size is not None), default=None)


@contextmanager
def room(needed: int, free: int | None, what: str, advice: str) -> Iterator[None]:
    """CapacityError where `what` needs more bytes than are free, before the block runs; and where
    memory is refused inside it."""
    if free is not None and needed > free:
        raise CapacityError(f"{what}: that needs {needed:,} bytes, and {free:,} are free. {advice}")
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch raises RuntimeErrors
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        raise CapacityError(
            f"{what}: that needs {needed:,} bytes, and the system refused memory "
            f"({(str(error).splitlines() or ['no reason given'])[0][:120]}). {advice}"
        ) from error


def _available() -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(sizes[0]) if sizes else None


def _left(limit: Path, used: Path) -> int | None:
    """Bytes that a container may still take; None where it has no limit."""
    try:
        most, now = limit.read_text().strip(), used.read_text().strip()
    except OSError:
        return None
    return max(int(most) - int(now), 0) if most.isdecimal() and now.isdecimal() else None
