"""How the artefacts beside this file were written, by version 0.1.0, before models, plans and
numbers had folders of their own: `PYTHONPATH=tests python tests/kept/make.py FOLDER`.

They are not written again when code changes: that today's code reads them is what they are for.
Imports here name modules of that version, which called `state.carry` of `kept_artefacts` `memory`.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept_artefacts import FAMILIES, FOLDERS, SCHEMES, SEARCH, data_of, exported, go_on, model, plan

from sensprobe import api, load, loading, zoo
from sensprobe.checkpoints.files import read_safetensors
from sensprobe.checkpoints.own import parameter_shapes
from sensprobe.models import FAMILIES as KINDS
from sensprobe.models import mamba, mamba2
from sensprobe.train.snapshot import write_tensors, write_weights

SIZES: dict[str, dict[str, Any]] = {
    "s4d": {"d_input": 2, "d_output": 3, "d_model": 4, "d_state": 3, "layers": 2},
    "mamba": {"d_input": 2, "d_output": 3, "d_model": 8, "d_state": 3, "dt_rank": 2},
    "mamba2": {"d_input": 2, "d_output": 3, "d_model": 8, "d_state": 8, "d_head": 16},
}
EXPORTED = {
    "s4d": {
        "weights": "int8/channel/asym", "encoder": "int4", "layers.*.A": "int8/head/asym/parts",
        "layers.*.B": "int6/head/asym/parts", "layers.*.C": "e4m3/head",
        "layers.*.state": "int8/head/asym/parts/dynamic", "*.bias": "fp16",
        "layers.0.out_proj": "int4/group2/gptq",
    },
    "mamba": {
        "weights": "int8/channel", "layers.*.out_proj": "int4/group4/hadamard",
        "layers.*.A": "int6/channel/asym", "layers.*.state": "int8/channel/dynamic",
        "layers.*.conv_state": "int8/channel/asym", "layers.*.x": "int8/p99.5", "*.bias": "bf16",
        "layers.*.in_proj_in": "int8/dynamic",
    },
    "mamba2": {
        "weights": "int8/channel/asym", "layers.*.in_proj.x": "int4/group2/s32",
        "layers.*.state": "int8/head/dynamic/stochastic7", "layers.*.conv_state": "e4m3/pow2",
        "layers.*.A": "log5", "layers.*.B": "int8/mse", "*.bias": "fp16",
    },
    "polar": {
        "weights": "int8/tensor", "layers.*.A": "polar(m6,p10)/head",
        "layers.1.A": "logpolar(m4,p11)/head/s32", "layers.*.state": "int8/head/dynamic/feedback",
        "layers.0.state": "int7/head/dynamic/every3/clip30",
    },
}  # fmt: skip
PLAN = [
    ["weights", "int8/channel/asym"], ["*.bias", "fp16"], ["encoder", "int4/group2/pow2"],
    ["layers.*.A", "logpolar(m3,p9)/head"], ["layers.1.A", "int8/head/asym/parts"],
    ["layers.*.B", "int5/head/range2"], ["layers.0.C", "e5m2/head/s32"],
    ["layers.1.C", "log6/head"],
    ["layers.*.D", "int6/mse"], ["layers.*.out_proj", "int4/channel/hadamard"],
    ["layers.0.out_proj", "int3/group2/gptq/s32"],
    ["layers.0.state", "int8/head/clip40/feedback/dynamic"],
    ["layers.1.state", "int6/head/asym/dynamic/stochastic11/every3"],
    ["layers.*.x", "int8/p99.9"], ["layers.*.y", "int8/range-8:9/asym"],
    ["layers.0.y", "e4m3/dynamic"],
    ["head", "int7/truncate/channel"], ["head_in", "bf16/truncate"],
]  # fmt: skip


def write_models(root: Path) -> None:
    """Random parameters at the scales that models train at."""
    for seed, family in enumerate(FAMILIES):
        config = KINDS[family][0](**SIZES[family])
        shapes = {"mamba": mamba.parameter_shapes, "mamba2": mamba2.parameter_shapes}
        generator = torch.Generator().manual_seed(seed)
        params = {}
        for name, shape in shapes.get(family, parameter_shapes)(config).items():
            x = torch.randn(*shape, generator=generator)
            match name.split("."):
                case [*_, "log_dt" | "dt_bias"] | [*_, "dt_proj", "bias"]:
                    x = np.log(0.3) + x / 2
                case [*_, "log_A_real"]:
                    x = np.log(0.5) + x / 4
                case [*_, "A_imag"]:
                    x = np.pi * torch.arange(shape[1]) + x / 4
                case [*_, "A_log"]:
                    x = x / 2
                case [*_, "norm" | "gated_norm", "weight"]:
                    x = 1 + x / 4
            params[name] = x.float()
        recorded = {"metric": "accuracy", "value": 0.5, "n": 48, "split": "confirmation"}
        write_weights(root / "models" / f"{family}.safetensors", params, config, recorded)


def write_data(root: Path) -> None:
    """112 sequences of sixteenths, labelled by the S4D model, of which every sixth label is moved.

    The head's biases of each model are set so that it prefers no class.
    """
    rng = np.random.default_rng(5)
    x = (rng.integers(-16, 17, (112, 12, 2)) / 16).astype(np.float32)
    for family in FAMILIES:
        path = root / "models" / f"{family}.safetensors"
        tensors, header = read_safetensors(path)
        tensors["head.bias"] -= load(path)(x).mean(0)
        write_tensors(path, tensors, header)
    y = load(root / "models" / "s4d.safetensors")(x).argmax(1).numpy()
    y[::6] = (y[::6] + 1) % 3
    split = np.repeat(["calibration", "search", "confirmation"], [16, 48, 48])
    np.savez_compressed(root / "data.npz", x=x, y=y, split=split)


def write_exported(root: Path) -> None:
    """The folders: each plan measured beside a search, and exported from that run."""
    for name, family in FOLDERS.items():
        run = root / f"run-{name}"
        path = root / "models" / f"{family}.safetensors"
        api.profile(path, data_of(root), run, ["int8/head"], method="taylor")
        document = {"sensprobe_plan": 1, "name": name, "schemes": list(EXPORTED[name].items())}
        (root / "mine.json").write_text(json.dumps(document))
        found = api.search(run, ["60%"], evaluations=1, also=[root / "mine.json"])
        api.export(run, found["search"]["also"][0]["name"], root / "exported" / name)
        shutil.rmtree(run)
        (root / "mine.json").unlink()


def main(root: Path) -> None:
    socket.gethostname = lambda: "host"
    root.mkdir()
    os.chdir(root)
    write_models(root)
    write_data(root)
    write_exported(root)
    (root / "plan.json").write_text(
        json.dumps({"sensprobe_plan": 1, "name": "many kinds", "schemes": PLAN}, indent=1) + "\n"
    )
    expected = {
        "models": {family: model(root, family) for family in FAMILIES},
        "exported": {name: exported(root, name) for name in FOLDERS},
        "plan": plan(root),
        "run": go_on(root / "run", root),
        "zoo": {name: loading.load_model(name).fingerprint for name in zoo.shipped()},
    }
    again = go_on(root / "run", root)
    assert again == expected["run"], (SEARCH, SCHEMES)
    manifest = root / "run" / "run.json"
    document = json.loads(manifest.read_text())
    document["data"] = "npz:data.npz"
    document["settings"] |= {"model": "models/s4d.safetensors", "data": "npz:data.npz"}
    manifest.write_text(json.dumps(document, indent=1))
    shutil.make_archive("run", "zip", root / "run")
    shutil.rmtree(root / "run")
    (root / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
