"""The compact form of a small model: one tensor in the file, and a row for tensors that are alike.

A name, a dtype, a shape and two offsets a tensor cost a small model more than its scales do. Where
they would, `model.safetensors` holds one tensor `packed` of bytes, and `tensors` in config.json is
a list of rows in the order in which they lie there, without gaps:

    ["layers.{0-3}.A.codes", "uint8", [16, 16, 2], 4, true]     bits and sign of codes
    ["layers.{0,2-3}.A.scale", "float16", [16, 1, 1]]
    ["head.bias", "float32", [10]]

`{0,2-3}` stands for layers 0, 2 and 3, one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sensprobe.export.tensors import Entry

NAME = "packed"
SHARE, REST = 0.05, 4096
"""What names and sizes may weigh beside a model's tensors, before it is written compactly."""
_LAYER = re.compile(r"layers\.(\d+)\.(.+)")


def is_heavy(around: int, data: int) -> bool:
    """Whether `around` bytes are too many beside `data` bytes of tensors."""
    return around > SHARE * data + REST


def _groups(entries: Mapping[str, Entry]) -> dict[tuple[Any, ...], dict[str, int | None]]:
    """What tensors have in common -> their names and layers."""
    groups: dict[tuple[Any, ...], dict[str, int | None]] = {}
    for name, entry in entries.items():
        found = _LAYER.fullmatch(name)
        inner = found[2] if found else name
        key = (found is not None, inner, *_row(entry))
        groups.setdefault(key, {})[name] = int(found[1]) if found else None
    return groups


def _row(entry: Entry) -> tuple[Any, ...]:
    written = entry.to_json()
    row = (written["dtype"], tuple(written["shape"]))
    return row if entry.bits is None else (*row, entry.bits, entry.signed)


def rows(entries: Mapping[str, Entry]) -> list[list[Any]]:
    """The list in config.json."""
    found = []
    for (layered, inner, dtype, shape, *more), names in _groups(entries).items():
        layers = [layer for layer in names.values() if layer is not None]
        name = f"layers.{{{_ranges(layers)}}}.{inner}" if layered else inner
        found.append([name, dtype, list(shape), *more])
    return found


def _ranges(layers: Iterable[int]) -> str:
    """`0,2-3` of 0, 2, 3."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _order(entries: Mapping[str, Entry]) -> Sequence[str]:
    return [name for names in _groups(entries).values() for name in names]


def joined(tensors: Mapping[str, Tensor], entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    """The one tensor of the file."""
    parts = [tensors[name].contiguous().view(-1).view(torch.uint8) for name in _order(entries)]
    return {NAME: torch.cat(parts) if parts else torch.zeros(0, dtype=torch.uint8)}


def split(packed: Tensor, entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    """The tensors by name, from bytes of which there are as many as `entries` ask for."""
    found, at = {}, 0
    for name in _order(entries):
        entry = entries[name]
        raw = packed[at : at + entry.size_bytes].clone()  # numbers of several bytes begin anywhere
        found[name] = raw.view(entry.dtype).view(entry.stored_shape)
        at += entry.size_bytes
    return {name: found[name] for name in entries}
