"""Small models: names and sizes weigh little beside the tensors, and nothing of them is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_models import NAMES, applier, tiny

from sensprobe.errors import CheckpointError
from sensprobe.export import compact, export_model, load_artefact
from sensprobe.export.tensors import layout
from sensprobe.models import FAMILIES
from sensprobe.numerics import SEMANTICS
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import uniform
from sensprobe.plans.scheme import parse


@pytest.mark.parametrize("name", NAMES)
def test_a_small_model_weighs_little_more_than_its_plan(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    plan = uniform(parse("int4/channel/asym"), model.sites.values()).resolve(model.sites.values())
    found = export_model(model, plan, applier(name), tmp_path / "m", name="m")
    bar = cost(model.sites.values(), plan).weight_bytes * 1.05 + 4096
    files = [
        (tmp_path / "m" / file).stat().st_size for file in ("model.safetensors", "config.json")
    ]
    assert sum(files) <= bar
    assert found.weight_bytes == cost(model.sites.values(), plan).weight_bytes
    read = load_artefact(tmp_path / "m").tap
    wanted = applier(name).tap(plan)
    assert all(torch.equal(read.weights[n], w) for n, w in wanted.weights.items())


def test_both_forms_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, plan = tiny(NAMES[0]), {"layers.0.A": parse("int6/head/asym")}
    monkeypatch.setattr(compact, "REST", 0)
    export_model(model, plan, applier(NAMES[0]), tmp_path / "small", name="m")
    monkeypatch.setattr(compact, "REST", 10**6)
    export_model(model, plan, applier(NAMES[0]), tmp_path / "large", name="m")
    small, large = (load_artefact(tmp_path / n) for n in ("small", "large"))
    assert isinstance(small.config["tensors"], list)
    assert isinstance(large.config["tensors"], dict)
    assert small.tensors.keys() == large.tensors.keys()
    assert all(torch.equal(small.tensors[n], t) for n, t in large.tensors.items())


def test_rows_join_layers_that_are_alike() -> None:
    model = tiny(NAMES[0])
    site = model.sites["layers.0.A"]
    sites = {f"layers.{k}.A": type(site)(f"layers.{k}.A", *_rest(site)) for k in range(5)}
    plan = {name: parse("int6") for name in sites if "2" not in name}
    names = [row[0] for row in compact.rows(layout(sites, plan))]
    assert names == ["layers.{0-1,3-4}.A.codes", "layers.{0-1,3-4}.A.scale", "layers.{2}.A"]


def _rest(site):  # type: ignore[no-untyped-def]
    return site.part, site.kind, site.shape, site.axes, site.is_complex


@pytest.mark.parametrize("field", ["residual", "pooling", "activation", "norm"])
def test_a_folder_of_format_1_that_lacks_a_field(field: str, tmp_path: Path) -> None:
    document = as_first(tmp_path / "m")
    del document["config"][field]
    (tmp_path / "m" / "config.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=f"config lacks {field}"):
        load_artefact(tmp_path / "m")


def test_a_folder_of_format_1_whose_card_says_another_config(tmp_path: Path) -> None:
    document = as_first(tmp_path / "m")
    load_artefact(tmp_path / "m")
    document["config"]["residual"] = not document["config"]["residual"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"README.md beside it has another config"):
        load_artefact(tmp_path / "m")


def test_a_later_folder_that_says_format_1(tmp_path: Path) -> None:
    for number, rest in enumerate((0, 10**6)):  # of compact form, and with a digest
        folder = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compact, "REST", rest)
            export_model(tiny(NAMES[0]), {}, applier(NAMES[0]), folder, name="m")
        document = json.loads((folder / "config.json").read_text())
        document |= {"sensprobe_artefact": 1}
        if number == 0:
            del document["digest"]
        (folder / "config.json").write_text(json.dumps(document))
        (folder / "README.md").unlink()
        with pytest.raises(CheckpointError, match="it says format 1 and is of a later"):
            load_artefact(folder)


def as_first(folder: Path) -> dict:  # type: ignore[type-arg]
    """A folder as format 1 had it: no digest, a tensor a name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compact, "REST", 10**6)
        plan = {"layers.0.A": parse("int6/head/asym")}
        export_model(tiny(NAMES[0]), plan, applier(NAMES[0]), folder, name="m")
    document = json.loads((folder / "config.json").read_text())
    del document["digest"], document["config"]["head"]
    document["sensprobe_artefact"] = 1
    fields = FAMILIES[document["family"]].earlier.fields.split()
    document["config"] = {name: document["config"][name] for name in fields}
    said = ", ".join(f"{name} {value}" for name, value in document["config"].items())
    card = (folder / "README.md").read_text().splitlines()
    lines = [f"Config: {said}." if line.startswith("Config: ") else line for line in card]
    (folder / "README.md").write_text("\n".join(lines))
    assert document["semantics"] == SEMANTICS
    (folder / "config.json").write_text(json.dumps(document))
    card = folder / "README.md"
    card.write_text(card.read_text().replace(", head linear", ""))
    return document
