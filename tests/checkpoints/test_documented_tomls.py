"""Everything that checkpoints/README.md shows of model.toml is read as it says."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import builders
import mimo
import pytest
import s5_files
import selective
import torch
from checkpoint_files import s4_state, write_s4
from safetensors.torch import save_file
from torch import Tensor

import sensprobe.checkpoints
from sensprobe.checkpoints import read_checkpoint
from sensprobe.checkpoints.keymap import Rule
from sensprobe.checkpoints.own import parameter_shapes
from sensprobe.models import FAMILIES

TEXT = (Path(sensprobe.checkpoints.__file__).parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
TABLES = {"s4d": ["s4d"], "s5": ["s5"], "mamba": ["mamba and mamba2", "mamba"]}
TABLES["mamba2"] = [TABLES["mamba"][0], "mamba2"]
LEAST: dict[str, dict[str, Any]] = {
    "s4d": {"d_input": 1, "d_output": 3, "d_model": 4, "d_state": 2},
    "s5": {"d_input": 1, "d_output": 3, "d_model": 4, "d_state": 2},
    "mamba": {"d_input": 57, "d_output": 3, "d_model": 4, "dt_rank": 1},
    "mamba2": {"d_input": 57, "d_output": 3, "d_model": 64, "d_state": 4, "d_head": 32},
}


def random_parameters(config: Any) -> dict[str, Tensor]:
    made = {"S4DConfig": builders, "S5Config": mimo}.get(type(config).__name__, selective)
    return made.parameters(config)  # type: ignore[attr-defined]


def documented(family: str) -> dict[str, dict[str, Any]]:
    """Field -> the values of its example, of which it is the first."""
    out = {}
    for heading in TABLES[family]:
        section = TEXT.split(f"\n### {heading}\n")[1].split("\n#")[0]
        for line in re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE):
            values = tomllib.loads(f"x = {{ {line} }}")["x"]
            out[next(iter(values))] = values
    return out


def in_the_file(name: str, rules: list[Rule]) -> str:
    """What a file calls one of our parameters, if a key map is to find it there."""
    for rule in rules:
        theirs = Rule(rule.ours, rule.theirs).renamed(name) if rule.ours else None
        first = (r.renamed(theirs) for r in rules) if theirs else ()
        if next((ours for ours in first if ours is not None), None) == name:
            return str(theirs)
    return name


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.split('"')[1])
def test_an_example_reads_the_file_it_describes(tmp_path, text):
    document = tomllib.loads(text)
    (tmp_path / "model.toml").write_text(text)
    if document.get("format") == "s4":
        write_s4(tmp_path / document["file"], **{document["entry"]: s4_state()})
        assert read_checkpoint(tmp_path / "model.toml")[0].config.norm == document["config"]["norm"]
        return
    if document.get("format") == "s5":
        (tmp_path / document["file"]).write_bytes(s5_files.packed(s5_files.params()))
        config = read_checkpoint(tmp_path / "model.toml")[0].config
        assert {name: getattr(config, name) for name in document["config"]} == document["config"]
        return
    config = FAMILIES[document["family"]].config(**document["config"])
    rules = [Rule(theirs, ours) for theirs, ours in document["keys"].items()]
    params = random_parameters(config)
    tensors = {in_the_file(name, rules): tensor for name, tensor in params.items()}
    tensors |= {rule.theirs: torch.arange(3) for rule in rules if rule.ours == ""}
    assert not set(tensors) & set(params)  # the key map names every one
    file = tmp_path / document["file"]
    torch.save(tensors, file) if file.suffix == ".pt" else save_file(tensors, file)
    model, _ = read_checkpoint(tmp_path / "model.toml")
    assert model.config == config
    assert torch.equal(model.weights["head"].float(), params["head.weight"])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_config_field_has_an_example_that_is_read(tmp_path, family):
    kind = FAMILIES[family].config
    examples = documented(family)
    assert set(examples) == {f.name for f in fields(kind)}
    for field, values in examples.items():
        config = kind(**{**LEAST[family], **values})
        given = {**LEAST[family], **values}
        lines = (
            f"{k} = {str(v).lower() if isinstance(v, bool) else repr(v)}" for k, v in given.items()
        )
        (tmp_path / "model.toml").write_text(
            f'file = "w.safetensors"\nfamily = "{family}"\n[config]\n' + "\n".join(lines)
        )
        save_file(random_parameters(config), tmp_path / "w.safetensors")
        model, _ = read_checkpoint(tmp_path / "model.toml")
        said = values[field]
        assert getattr(model.config, field) == (", ".join(said) if field == "head" else said)


def test_every_parameter_is_named():
    for family, kind in ((name, record.config) for name, record in FAMILIES.items()):
        for more in (
            {},
            {"norm": "pre", "bias": True, "norm_kind": "layer"},
            {"encoder": "embedding"},
            {"head": ["layer norm", "linear 8", "linear"]},
        ):
            known = {f.name for f in fields(kind)}
            config = kind(**{k: v for k, v in {**LEAST[family], **more}.items() if k in known})
            for name in parameter_shapes(config):
                said = re.sub(r"(layers|head)\.\d+", r"\1.{i}", name)
                assert f"`{said}`" in TEXT, name
