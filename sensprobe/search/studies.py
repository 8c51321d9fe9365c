"""The door to Optuna: a study in memory that drives the search, and its mirror on disk.

A search is deterministic in its seed and in what evaluations return, and the caller caches those.
So a killed search is resumed by running it again: it asks the same questions, the cache answers
the ones it knows, and it goes on where it stopped. The SQLite file is for people (it opens in
optuna-dashboard): every trial that was evaluated is written there once, in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.study import Study
from optuna.trial import FrozenTrial

from sensprobe.errors import RunError


def fingerprint(*question: object) -> str:
    """Eight hex digits that change when the question (values with a faithful repr) does."""
    return sha256(repr(question).encode()).hexdigest()[:8]


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna's logging at warning level inside, as it was outside."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def open_study(alone: bool, name: str | None = None, storage: str | None = None) -> Study:
    """A study of extra loss, `alone` or beside log2 of the bytes; the one of that name if any."""
    return optuna.create_study(
        study_name=name,
        storage=storage,
        directions=["minimize"] * (1 if alone else 2),
        load_if_exists=True,
    )


class Mirror:
    """Copies evaluated trials into the SQLite file in order; what it held is not repeated."""

    def __init__(self, name: str, storage: Path | None, alone: bool) -> None:
        self._path, self._seen, self._held = storage, 0, 0
        self._copy: Study | None = None
        if storage is not None:
            with self._told():
                self._copy = open_study(alone, name, f"sqlite:///{storage}")
                self._held = len(self._copy.get_trials(deepcopy=False))

    def add(self, trial: FrozenTrial) -> None:
        """Write one evaluated trial, unless the file has it from before."""
        self._seen += 1
        if self._copy is not None and self._seen > self._held:
            with self._told():
                self._copy.add_trial(trial)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except StorageInternalError as error:
            raise RunError(
                f"cannot write Optuna's storage {self._path}: {error}. "
                "Free some disk space, or close what locks the file, and run the same again."
            ) from error
