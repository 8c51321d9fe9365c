"""Snapshots: the weights a run would ship, and all it needs to go on after a stop.

    OUT/weights.safetensors     an own checkpoint of the averaged weights, after the last leg kept
    OUT/snapshot.safetensors    parameters, their average, AdamW's moments; progress in the header

Both are tensors and JSON, no pickle, and each is replaced whole. The snapshot is written last and
alone decides where a run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sensprobe.checkpoints import own
from sensprobe.checkpoints.files import METADATA_KEY, read_safetensors
from sensprobe.documents.files import disk_errors, write_whole
from sensprobe.errors import CheckpointError, RunError
from sensprobe.models import family_of, output_head
from sensprobe.models.family import config_document

WEIGHTS, SNAPSHOT = "weights.safetensors", "snapshot.safetensors"
FORMAT = 1
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW remembers of a parameter


@dataclass
class Run:
    """All that training changes: parameters, their average, and the optimizer's moments; and the
    parameters that it leaves as they are, and the seconds it took, NaN where an earlier version did
    not keep them."""

    params: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    seconds: float = 0.0

    @property
    def trained(self) -> dict[str, Tensor]:
        """The parameters that the optimizer changes; the others stay as they are."""
        return {name: p for name, p in self.params.items() if p.requires_grad}

    def tensors(self) -> dict[str, Tensor]:
        """All that training changes, each tensor as GROUP/NAME."""
        trained = self.trained
        state = {name: self.optimizer.state[p] for name, p in trained.items()}
        average = {name: self.average[name] for name in trained}
        groups = {"params": trained, "average": average} | {
            key: {name: moments[key] for name, moments in state.items()} for key in MOMENTS
        }
        return {f"{g}/{k}": t.detach() for g, found in groups.items() for k, t in found.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the run where these tensors left it."""
        for name, p in self.trained.items():
            p.copy_(tensors[f"params/{name}"])
            self.average[name].copy_(tensors[f"average/{name}"])
            self.optimizer.state[p] = {key: tensors[f"{key}/{name}"] for key in MOMENTS}


def write_snapshot(
    out: Path, identity: Mapping[str, Any], run: Run, history: Sequence[Mapping[str, float]]
) -> None:
    """Replace the snapshot in `out`. `identity` is what a run must share to go on from it."""
    header = {"format": FORMAT, "identity": identity, "epoch": len(history), "history": history}
    write_tensors(out / SNAPSHOT, run.tensors(), {**header, "seconds": run.seconds})


def drop_snapshot(out: Path) -> None:
    """Remove an earlier training's snapshot, before its weights are replaced: a stop between the
    two leaves none beside weights that are not its own."""
    with disk_errors(out / SNAPSHOT, "removing"):
        (out / SNAPSHOT).unlink(missing_ok=True)


def read_snapshot(out: Path, identity: Mapping[str, Any], run: Run) -> list[dict[str, float]]:
    """Put a run where the snapshot in `out` left it; the history of its legs, [] without a
    snapshot. RunError where it is of another run or damaged."""
    path = out / SNAPSHOT
    if not path.exists():
        return []
    tensors, header = read_safetensors(path)
    told = header.get("identity", {})
    before = told if isinstance(told, dict) else {}
    now = json.loads(json.dumps(identity))  # tuples to lists
    _complete(before)
    if header.get("format") != FORMAT or before != now:
        changed = sorted(key for key in now if before.get(key) != now[key])
        raise RunError(
            f"{out} holds a training run that differs in {', '.join(changed) or 'format'}. Name "
            "another folder, move that one away, or start afresh with `--restart` (resume=False)."
        )
    history = header.get("history")
    if not isinstance(history, list) or header.get("epoch") != len(history):
        raise RunError(f"{path} is damaged: start afresh with `--restart` (resume=False).")
    run.restore(tensors)
    seconds = header.get("seconds")
    run.seconds = float(seconds) if isinstance(seconds, (int, float)) else nan
    return history


def _complete(identity: Mapping[str, Any]) -> None:
    """Add to the recipe of an earlier version what it left out: heads were one linear map, and legs
    of samples were epochs."""
    match identity:
        case {"recipe": {"model": dict(model), "schedule": dict(schedule)}}:
            model.setdefault("head", output_head.DEFAULT)
            schedule.setdefault("every", 0)


def write_weights(
    path: Path, params: Mapping[str, Tensor], config: Any, recorded: Mapping[str, Any]
) -> None:
    """An own checkpoint: what a trained model is loaded from."""
    header = {
        "format": own.FORMAT,
        "family": family_of(config).name,
        "config": config_document(config),
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
