"""What a run keeps on disk: the weights it would ship, and all it needs to go on after a stop.

    OUT/weights.safetensors     an own checkpoint of the averaged weights, after the last epoch kept
    OUT/snapshot.safetensors    parameters, their average, AdamW's moments; progress in the header

Both are tensors and JSON, no pickle, and each is replaced whole. The snapshot is written last and
alone decides where a run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from sensprobe.checkpoints import own
from sensprobe.checkpoints.files import METADATA_KEY, read_safetensors
from sensprobe.documents.files import disk_errors, write_whole
from sensprobe.errors import CheckpointError, RunError
from sensprobe.models import family_of, output_head

WEIGHTS, SNAPSHOT = "weights.safetensors", "snapshot.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class Snapshot:
    """A run after `epoch` whole epochs. `tensors` are grouped as GROUP/NAME."""

    epoch: int
    history: list[dict[str, float]]
    tensors: dict[str, Tensor]

    def group(self, name: str) -> dict[str, Tensor]:
        """One group of tensors, under their own names."""
        prefix = name + "/"
        return {k.removeprefix(prefix): t for k, t in self.tensors.items() if k.startswith(prefix)}


def grouped(**groups: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `Snapshot.group`, detached."""
    return {f"{g}/{k}": t.detach() for g, tensors in groups.items() for k, t in tensors.items()}


def write_snapshot(out: Path, snapshot: Snapshot, identity: Mapping[str, Any]) -> None:
    """Replace the snapshot in `out`. `identity` is what a run must share to go on from it."""
    header = {
        "format": FORMAT,
        "identity": identity,
        "epoch": snapshot.epoch,
        "history": snapshot.history,
    }
    write_tensors(out / SNAPSHOT, snapshot.tensors, header)


def read_snapshot(out: Path, identity: Mapping[str, Any]) -> Snapshot | None:
    """The snapshot in `out`, None where there is none; RunError where it is of another run."""
    path = out / SNAPSHOT
    if not path.exists():
        return None
    tensors, header = read_safetensors(path)
    told = header.get("identity", {})
    before = told if isinstance(told, dict) else {}
    now = json.loads(json.dumps(identity))  # tuples to lists
    _complete(before)
    if header.get("format") != FORMAT or before != now:
        changed = sorted(key for key in now if before.get(key) != now[key])
        raise RunError(
            f"{out} holds a training run that differs in {', '.join(changed) or 'format'}. Name "
            "another folder, or start afresh with `--restart` (resume=False)."
        )
    epoch, history = header.get("epoch"), header.get("history")
    if type(epoch) is not int or epoch < 0 or not isinstance(history, list):
        raise RunError(f"{path} is damaged: start afresh with `--restart` (resume=False).")
    return Snapshot(epoch, history, tensors)


def _complete(identity: Mapping[str, Any]) -> None:
    """Say of a recipe what one of an earlier version left open: heads were one linear map."""
    match identity:
        case {"recipe": {"model": dict(model)}}:
            model.setdefault("head", output_head.DEFAULT)


def write_weights(
    path: Path, params: Mapping[str, Tensor], config: Any, recorded: Mapping[str, Any]
) -> None:
    """An own checkpoint: what a trained model is loaded from."""
    header = {
        "format": own.FORMAT,
        "family": family_of(config).name,
        "config": asdict(config),
        "recorded": recorded,
    }
    write_tensors(path, {name: p.detach() for name, p in params.items()}, header)


def record(weights: Path, recorded: Mapping[str, Any], out: Path | None = None) -> Path:
    """Write into an own checkpoint what was measured of it, in place or as `out`.

    recorded: {"metric", "value", "n", "split"}, shown to whoever loads the file. Tensors stay.
    """
    tensors, header = read_safetensors(weights)
    if not header:
        raise CheckpointError(
            f"{weights} has no sensprobe header to record in; name a file of fit."
        )
    write_tensors(out or weights, tensors, {**header, "recorded": dict(recorded)})
    return out or weights


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """A safetensors file that appears whole or not at all; RunError where the disk refuses."""
    content = save(
        {name: t.contiguous() for name, t in tensors.items()}, {METADATA_KEY: json.dumps(header)}
    )
    with disk_errors(path.parent, "creating"):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
