"""What is known of a model without its weights: the same as of the opened model, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import language_models as lm
import numpy as np
import pytest
import s5_files as s5
import torch
from builders import PLAIN, tiny
from checkpoint_files import DOCUMENT, KEYS, one_block, write_own, write_s4
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from sensprobe.checkpoints import Description, describe, open_checkpoint
from sensprobe.export import export_model, load_artefact
from sensprobe.models.apply import Applier
from sensprobe.plans.scheme import parse
from sensprobe.zoo import shipped


def keyed(folder: Path) -> Path:
    save_file(one_block(), folder / "w.safetensors")
    (folder / "model.toml").write_text(DOCUMENT + KEYS)
    return folder / "model.toml"


def described(folder: Path) -> Path:
    write_own(folder / "w.safetensors")
    (folder / "model.toml").write_text('file = "w.safetensors"')
    return folder / "model.toml"


def sharded(folder: Path) -> Path:
    path = lm.write(folder / "t", lm.HF_CONFIG, lm.HF, "model.safetensors")
    lm.shard(path)
    return path


def of_flax(path: Path) -> Path:
    state = s5.train_state(s5.params(bidirectional=True), s5.batch_stats())
    path.write_bytes(s5.packed(state))
    return path


def of_numpy(path: Path) -> Path:
    np.savez(path, **s5.flat(s5.params()))
    return path


def of_names(path: Path) -> Path:
    save_arrays(s5.flat(s5.params("full_glu"), "."), path)
    return path


WITHOUT_TORCH = {
    "flax": lambda folder: of_flax(folder / "checkpoint_3"),
    "npz": lambda folder: of_numpy(folder / "m.npz"),
    "S5's names": lambda folder: of_names(folder / "m.safetensors"),
    "shipped": lambda folder: shipped()["mamba2-bytes"],
    "own": lambda folder: write_own(folder / "m.safetensors"),
    "keys": keyed,
    "described": described,
    "mamba_ssm": lambda folder: lm.write(folder / "m", lm.SSM_CONFIG, lm.SSM, "model.safetensors"),
    "transformers": sharded,
}
WITH_TORCH = {
    "s4": lambda folder: write_s4(folder / "ckpt.pth"),
    "pickled": lambda folder: lm.write(folder / "m", lm.SSM_CONFIG, lm.SSM),
}
TWICE = """
import sys
from pathlib import Path
import sensprobe.checkpoints, sensprobe.models
for path in sys.argv[1:]:
    found = sensprobe.checkpoints.describe(Path(path))
    assert found.sites and found.products, path
assert "torch" not in sys.modules, "torch is imported"
"""


def exported(folder: Path) -> Path:
    model = tiny(PLAIN)
    plan = {"layers.0.A": parse("int8/head/asym")}
    export_model(model, plan, Applier(model), folder / "e", name="mine")
    return folder / "e"


@pytest.mark.parametrize("kind", [*WITHOUT_TORCH, *WITH_TORCH])
def test_a_description_is_that_of_the_opened_model(tmp_path, kind):
    path = (WITHOUT_TORCH | WITH_TORCH)[kind](tmp_path)
    said, opened = describe(path), open_checkpoint(path)
    assert said.family.name == opened.model.family
    assert said.config == opened.model.config
    assert said.sites == opened.model.sites
    assert said.products == opened.model.products
    assert said.stored == opened.stored
    assert said.header == opened.header
    assert said.plan is None


def test_types_are_those_of_the_file(tmp_path):
    path = write_own(tmp_path / "m.safetensors")
    tensors = load_file(path)
    tensors["head.weight"] = tensors["head.weight"].to(torch.bfloat16)
    write_own(path, params=tensors)
    assert describe(path).stored == open_checkpoint(path).stored
    assert describe(path).stored["head"] == "bfloat16"


def test_an_exported_folder_has_its_plan_and_its_name(tmp_path):
    path = exported(tmp_path)
    said, loaded = describe(path), load_artefact(path)
    assert isinstance(said, Description)
    assert said.config == loaded.model.config
    assert said.plan == loaded.plan
    assert said.header == loaded.config
    assert said.name == "mine"


def test_an_exported_folder_that_was_changed_is_refused(tmp_path):
    path = exported(tmp_path)
    document = json.loads((path / "config.json").read_text())
    document["name"] = "theirs"
    (path / "config.json").write_text(json.dumps(document))
    with pytest.raises(Exception, match="was changed after the export") as told:
        describe(path)
    with pytest.raises(type(told.value), match="was changed after the export"):
        load_artefact(path)


def test_no_torch_is_imported_where_weights_are_safetensors(tmp_path):
    paths = [exported(tmp_path)]
    for kind, make in WITHOUT_TORCH.items():
        folder = tmp_path / kind
        folder.mkdir()
        paths.append(make(folder))
    subprocess.run([sys.executable, "-c", TWICE, *map(str, paths)], check=True)
