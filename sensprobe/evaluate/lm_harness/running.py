"""lm-eval's tasks by name: found, loaded and run, with what can go wrong said in one message."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any

import tqdm as bars
from lm_eval.api import task as task_module
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from sensprobe.errors import DataError, UsageError
from sensprobe.evaluate.lm_harness.local import BLIMP, FOLDER, TASKS, write_tasks
from sensprobe.evaluate.lm_harness.model import HarnessModel
from sensprobe.evaluate.lm_harness.results import Results
from sensprobe.progress import Progress

BOOTSTRAP = 1000
"""Resamples behind the standard errors that lm-eval has no formula for; its own command line takes
100,000, which minutes go into and the error of the error, 2 %, is not worth."""
SEED = 1234
"""lm-eval's own, for the examples shown before a question."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks, loaded. Run them on as many models as there are to compare."""

    loaded: Mapping[str, Any]

    def run(self, model: HarnessModel, limit: int | None = None) -> Results:
        """lm-eval's results of a model, samples with them; `limit` is of each task's documents."""
        with _quiet():
            return evaluate(
                model, self.loaded, limit=limit, bootstrap_iters=BOOTSTRAP, log_samples=True
            )


def load_tasks(
    asked: Sequence[str],
    progress: Progress,
    *,
    data: Path | None = None,
    include: Path | None = None,
    num_fewshot: int | None = None,
) -> Tasks:
    """The tasks, groups or patterns (`blimp_*`) of these names, or of YAML files.

    `data` is the folder whose lm_tasks has files for the tasks of `local`, which take the place of
    lm-eval's; `include` one of more YAML. UsageError for a name there is not, DataError where data
    cannot be had.
    """
    with tempfile.TemporaryDirectory() as made, _quiet():
        own = write_tasks(data, Path(made)) if data is not None else []
        folders = [Path(made), *([include] if include is not None else [])]
        manager = TaskManager(include_path=folders, include_defaults=False)
        if any(not _matching(manager, name) for name in asked):
            progress.note("reading lm-eval's list of tasks: about 15 s")
            manager = TaskManager(include_path=folders)
        names = _resolved(manager, asked)
        if distant := [name for name in names if name not in own]:
            progress.note(
                f"{', '.join(distant)}: data is read by `datasets`, which downloads what "
                f"{_cache_folder()} does not hold from the Hugging Face hub"
            )
        loaded = _loaded(manager, names)
    for task in loaded["tasks"].values():
        _show_examples(task, num_fewshot)
    return Tasks(loaded)


def _matching(manager: TaskManager, name: str) -> list[str]:
    if name.endswith((".yaml", ".yml")):
        return [name] if Path(name).is_file() else []
    return list(manager.match_tasks([name]))


def _resolved(manager: TaskManager, asked: Sequence[str]) -> list[str]:
    """Every name that was meant, once; UsageError with the nearest names for one there is not."""
    names: dict[str, None] = {}
    for name in asked:
        if not (found := _matching(manager, name)):
            near = get_close_matches(name, manager.all_tasks, n=3, cutoff=0.5)
            hint = f" Nearest: {', '.join(near)}." if near else ""
            raise UsageError(
                f"--task {name}: neither lm-eval nor --include has a task of that name.{hint} List "
                "them with `python -m sensprobe.lm_eval ls tasks`."
            )
        names |= dict.fromkeys(found)
    return list(names)


def _loaded(manager: TaskManager, names: Sequence[str]) -> Mapping[str, Any]:
    try:
        return manager.load(list(names))
    except OSError as error:  # ConnectionError, and what `datasets` raises for what it cannot find
        raise DataError(
            f"{', '.join(names)}: data that is not on this machine cannot be had ({error}). Run it "
            f"once where there is a network, or from files: {_local_hint()}"
        ) from None
    except ValueError as error:
        raise UsageError(f"--task {', '.join(names)}: lm-eval says: {error}.") from None


def _local_hint() -> str:
    files = [BLIMP, *(f"{name}.jsonl" for name in TASKS)]
    return (
        f"set SENSPROBE_DATA to a folder whose {FOLDER}/ has one of {', '.join(files)}, for the "
        "tasks of these names."
    )


def _cache_folder() -> str:
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return os.environ.get("HF_DATASETS_CACHE", f"{home}/datasets")


def _show_examples(task: Any, count: int | None) -> None:
    """Set the number of solved examples before a question; a task that fixes none keeps none."""
    given = task.get_config("num_fewshot")
    if given is None or (count is not None and given != 0):
        task.set_config(key="num_fewshot", value=count or 0)
    task.set_fewshot_seed(seed=SEED)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's lines on both streams, its bars and its processes.

    What a user needs to know is said by `Progress` or raised.
    """
    loggers = [logging.getLogger(name) for name in ("lm_eval", "huggingface_hub", "datasets")]
    levels = [logger.level for logger in loggers]
    single, bar = os.environ.get("DISABLE_MULTIPROC"), bars.tqdm
    os.environ["DISABLE_MULTIPROC"] = "1"
    bars.tqdm = task_module.tqdm = _barless
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with redirect_stdout(StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        bars.tqdm = task_module.tqdm = bar
        if single is None:
            del os.environ["DISABLE_MULTIPROC"]


def _barless(items: Iterable[Any], **options: Any) -> Iterable[Any]:
    """An iterable that lm-eval would draw a bar for, without the bar."""
    return items
