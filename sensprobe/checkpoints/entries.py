"""Finding the entry of a file that holds the model, among averages and optimizers.

    bare state_dict                         its tensors
    {"model": …, "optimizer": …}            `model` (or model_state_dict, params, net, …)
    {"state_dict": …, "callbacks": …}       Lightning's `state_dict`
    {"model": …, "ema": …}                  `model`; `ema` where model.toml says entry = "ema"
    {"generator": …, "discriminator": …}    neither, until model.toml says which

An entry is found by what it is, a table from names to tensors, and not by a list of names. An
average may also stand among the names themselves (`ema_model.…` beside `online_model.…`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sensprobe.checkpoints.headers import is_tensor
from sensprobe.errors import CheckpointError

logger = logging.getLogger("sensprobe.checkpoints")
State = Mapping[str, Any]
_AVERAGED = {"ema", "averaged", "average", "avg", "swa", "shadow", "polyak"}
_MODEL = re.compile("model|module|net")
_NO_MODEL = ("optim", "sched", "lr", "scaler", "rng", "hparams", "hyper", "config", "args", "loops")
_DEPTH = 5


def state_of(
    loaded: Mapping[Any, Any],
    path: Path,
    entry: str | None = None,
    looks: Callable[[State], bool] = lambda state: True,
) -> dict[str, Any]:
    """The tensors of the model in what a file holds, by name.

    `entry` names the entry; without it the one that can be meant is taken: of those that `looks`
    finds right, where there are such, the only one that is no average. CheckpointError lists the
    entries where several can be meant, or where the named one is not there, and says what a file
    without tensors holds.
    """
    found = dict(_entries(loaded))
    if entry is not None:
        if entry not in found:
            raise CheckpointError(
                f"{path}: there is no entry {entry!r} of tensors. It holds {listed(found)}."
            )
        return dict(found[entry])
    likely = [name for name, state in found.items() if looks(state)] or list(found)
    trained = [name for name in likely if not _is_average(name)] or likely
    if len(trained) > 1:
        raise CheckpointError(
            f"{path} holds {len(trained)} entries that may be the model: "
            f"{listed({name: found[name] for name in trained})}. Say which in a model.toml: "
            f'entry = "{next(filter(None, trained))}".'
        )
    if not trained:
        if not any(is_tensor(t) or "." in str(name) for name, t in loaded.items()):
            raise CheckpointError(f"{path} holds no tensors by name: {_kinds(loaded)}.")
        return {str(name): value for name, value in loaded.items()}
    chosen = trained[0]
    others = [name for name in likely if name != chosen]
    if others:
        note(
            f"{path} holds {listed({name: found[name] for name in [chosen, *others]})}. "
            f'{_called(chosen)} is read; entry = "{others[0]}" in a model.toml reads the other.'
        )
    elif _is_average(chosen):
        note(f"{path} holds averaged weights alone: {_called(chosen)} is read.")
    return dict(found[chosen])


def listed(found: Mapping[str, State]) -> str:
    """Entries with how many tensors they have and what the first are called."""
    parts = []
    for name, state in list(found.items())[:6]:
        names = [n for n, value in state.items() if is_tensor(value)]
        more = ", …" if len(names) > 3 else ""
        parts.append(f"{_called(name)} ({len(names)} tensors: {', '.join(names[:3])}{more})")
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    return (", ".join(parts) + more) or "no entry of tensors"


def entries(loaded: Mapping[Any, Any]) -> dict[str, State]:
    """Every entry of tensors by the dotted path of its name; "" is the file itself."""
    return dict(_entries(loaded))


def _entries(
    loaded: Mapping[Any, Any], path: str = "", depth: int = 0
) -> Iterator[tuple[str, Any]]:
    inner: list[tuple[str, Any]] = []
    for name, value in loaded.items():
        inside = isinstance(value, Mapping) and isinstance(name, str) and depth < _DEPTH
        if inside and not name.lower().startswith(_NO_MODEL):
            inner += _entries(value, f"{path}.{name}".lstrip("."), depth + 1)
    weights = [
        str(name)
        for name, value in loaded.items()
        if is_tensor(value) and value.ndim and value.is_floating_point()
    ]
    if any("." in name for name in weights) or (weights and not inner):
        yield from _parted(path, {str(name): value for name, value in loaded.items()})
    yield from inner


def _parted(path: str, state: dict[str, Any]) -> Iterator[tuple[str, State]]:
    """The state, and apart from it what stands under an average's name."""
    parts: dict[str, dict[str, Any]] = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        around = f"{first}.{rest.partition('.')[0]}"  # `ema_model.layers`, `ema.module.layers`
        average = first if rest and _is_average(first) and _MODEL.search(around) else ""
        parts.setdefault(average, {})[rest if average else name] = value
    for first, part in parts.items():
        if any(is_tensor(value) and value.ndim for value in part.values()):
            yield f"{path}.{first}".strip("."), part


def _kinds(loaded: Mapping[Any, Any]) -> str:
    """A text that names the types of a file's entries, for a file without named tensors."""
    kinds = [f"{_called(str(k))} is of type {type(v).__name__}" for k, v in loaded.items()]
    return ", ".join(kinds[:6]) or "it is empty"


def _is_average(name: str) -> bool:
    return not _AVERAGED.isdisjoint(re.split(r"[^a-z]+", name.lower()))


def _called(name: str) -> str:
    return f"`{name}`" if name else "the file itself"


@cache
def note(text: str) -> None:
    """Once a text."""
    logger.warning("%s", text)
