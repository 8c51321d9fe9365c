"""What the kept artefacts are and give, by functions that users call. Plain JSON values.

`make.py` records what the version that wrote the artefacts measured; `test_kept.py` asks the same
of today's code.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sensprobe
from sensprobe import api
from sensprobe.export import load_artefact

FAMILIES = ("s4d", "mamba", "mamba2")
FOLDERS = {"s4d": "s4d", "mamba": "mamba", "mamba2": "mamba2", "polar": "s4d"}
"""Exported folder -> the model it was made of. No streaming kernel reads the plan of the last."""
STEPS = 6
SEARCH: dict[str, Any] = {"budgets": ["30%", "45%"], "evaluations": 6, "seed": 3}
SCHEMES = ["int8/head/asym", "int4/head"]


def data_of(root: Path) -> str:
    """The kept data set, as DATA names it."""
    return f"npz:{root / 'data.npz'}"


def inputs(root: Path, batch: int = 3) -> Tensor:
    """Sequences (batch, length, 2) float32 of the data's search split."""
    with np.load(root / "data.npz") as arrays:
        return torch.from_numpy(arrays["x"][arrays["split"] == "search"][:batch])


def hex_of(x: Tensor) -> str:
    """The bits of float32 numbers, eight hex digits each, row by row."""
    whole = x.detach().contiguous().to(torch.float32).numpy().reshape(-1).view(np.uint32)
    return " ".join(f"{bits:08x}" for bits in whole)


def floats_of(digits: str) -> np.ndarray:
    """The inverse of `hex_of`: (n,) float32."""
    return np.array([int(word, 16) for word in digits.split()], np.uint32).view(np.float32)


def digest(*contents: Any) -> str:
    """16 hex digits of the bytes of arrays, in order."""
    found = hashlib.sha256()
    for content in contents:
        found.update(np.ascontiguousarray(content).tobytes())
    return found.hexdigest()[:16]


def cost_of(document: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a cost, without the sentence that explains one."""
    return {key: value for key, value in document["cost"].items() if key != "held_why"}


def model(root: Path, family: str) -> dict[str, Any]:
    """A checkpoint: its name, its sites, its score at full precision and its outputs."""
    path = root / "models" / f"{family}.safetensors"
    found = api.evaluate(path, data_of(root))
    kept = ("model_fingerprint", "plan_fingerprint", "metric", "value", "stderr", "n")
    return {key: found[key] for key in kept} | {
        "cost": cost_of(found),
        "sites": {row["site"]: [row["kind"], *row["shape"]] for row in api.list_sites(path)},
        "outputs": hex_of(sensprobe.load(path)(inputs(root))),
    }


def exported(root: Path, name: str) -> dict[str, Any]:
    """An exported folder: weights as they decode, outputs as a whole and by steps, bytes."""
    folder = root / "exported" / name
    artefact = load_artefact(folder)
    weights = {
        site: digest(torch.view_as_real(w) if w.is_complex() else w)
        for site, w in artefact.tap.weights.items()
    }
    scales = {
        site: [digest(x) for x in pair if x is not None]
        for site, pair in artefact.tap.scales.items()
    }
    loaded = sensprobe.load(folder)
    state, by_step = loaded.start(3), []
    for x in inputs(root)[:, :STEPS].unbind(1):
        out, state = loaded.step(x, state)
        by_step.append(out)
    scored = api.evaluate(folder, data_of(root))
    return {
        "weights": weights,
        "scales": scales,
        "packed": loaded.packed,
        "weight_bytes": loaded.weight_bytes,
        "state_bytes": loaded.state_bytes(3),
        "cost": cost_of(scored),
        "model_fingerprint": scored["model_fingerprint"],
        "plan_fingerprint": scored["plan_fingerprint"],
        "value": scored["value"],
        "outputs": hex_of(loaded(inputs(root))),
        "steps": hex_of(torch.stack(by_step)),
        "memory": digest(state.carry) if loaded.packed else None,
    }


def plan(root: Path) -> dict[str, Any]:
    """The plan of many kinds of scheme on the S4D model: its name, cost and score."""
    found = api.evaluate(
        root / "models" / "s4d.safetensors", data_of(root), root / "plan.json", compare=True
    )
    kept = ("plan_fingerprint", "max_abs_A", "value", "n", "difference")
    return {key: found[key] for key in kept} | {"cost": cost_of(found)}


def go_on(run: Path, root: Path) -> dict[str, Any]:
    """Profile and search again in a run, as it was asked for at first; what they chose."""
    model = root / "models" / "s4d.safetensors"
    profiled = api.profile(model, data_of(root), run, SCHEMES, by="part")
    found = api.search(run, **SEARCH)
    search, confirmation = found["search"], found["confirmation"]
    return {
        "rows": len(profiled["rows"]),
        "chosen": [[c[key] for key in ("budget", "candidate", "uniform", "loss_bound")]
                   for c in search["chosen"]],
        "candidates": [c["plan_fingerprint"] for c in search["candidates"]],
        "confirmed": [[row["name"], row["metric"]["value"]] for row in confirmation["plans"]],
    }  # fmt: skip
