"""Folders that are damaged, changed or hostile: one clear CheckpointError, and nothing runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import NAMES, applier, tiny

from sensprobe.checkpoints.unchanged import digest_of
from sensprobe.errors import CapacityError, CheckpointError
from sensprobe.export import compact, export_model, is_artefact, load_artefact, read
from sensprobe.plans.scheme import parse

PLAN = {
    "layers.0.A": parse("int6/head/asym"),
    "layers.0.state": parse("int8/s32"),
    "layers.0.C": parse("e4m3"),
    "head": parse("bf16"),
}
SCALE = "layers.0.state.scale"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An export with a tensor a name, as large models have; small ones: `test_export_compact`."""
    monkeypatch.setattr(compact, "REST", 10**6)
    export_model(tiny(NAMES[0]), PLAN, applier(NAMES[0]), tmp_path / "m", name="m")
    return tmp_path / "m"


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps(change(document) or document))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the weights and sign for it, as who wants to be believed would."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(folder / "config.json", lambda d: d["weights"].update(sha256=digest))
    sign(folder)


def sign(folder: Path) -> None:
    """Make the digest of a folder fit what it holds."""
    config, plan = (json.loads((folder / n).read_text()) for n in ("config.json", "plan.json"))
    mark = digest_of(config, plan, config["weights"]["sha256"])
    edit(folder / "config.json", lambda d: d | {"digest": mark})


def refused(folder: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        load_artefact(folder)


def test_the_untouched_folder_loads(folder: Path) -> None:
    assert is_artefact(folder)
    assert dict(load_artefact(folder).tap.plan) == PLAN
    edit_tensors(folder, lambda t: None)
    assert load_artefact(folder).model.weights["head"].shape == (3, 3)


@pytest.mark.parametrize("name", ["model.safetensors", "plan.json", "config.json"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    refused(folder, f"lacks {name}")
    assert is_artefact(folder)


def test_no_folder_at_all(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no exported model at")
    refused(tmp_path, "none of the files that export writes")


def test_the_card_is_not_needed(folder: Path) -> None:
    (folder / "README.md").unlink()
    load_artefact(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "plan.json", "config.json"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_truncated_files(name: str, keep: float, folder: Path) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * keep)])
    refused(folder, name)


def test_a_file_of_weights_cut_short_says_so_and_what_to_do(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(folder, f"{path} cannot be read as safetensors .*truncated or damaged; copy it again")


def test_one_flipped_bit_in_the_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    refused(folder, "SHA-256 differs")


@pytest.mark.parametrize("key", ["sensprobe_artefact", "semantics"])
def test_a_newer_version(key: str, folder: Path) -> None:
    edit(folder / "config.json", lambda d: {**d, key: 99})
    refused(folder, f"{key} 99 is newer .* upgrade")


def test_json_that_is_something_else(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["Mamba"]}')
    refused(folder, "not of a model `sensprobe export` wrote")
    (folder / "config.json").write_text("[" * 100_000)
    refused(folder, "cannot be read as JSON")
    (folder / "config.json").write_bytes(b"\xff\xfe")
    refused(folder, "cannot be read as JSON")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d["config"].update(d_model="3"), "d_model is '3', not int"),
        (lambda d: d["config"].update(d_model=3.0), "d_model is 3.0, not int"),
        (lambda d: d["config"].update(d_model=-3), "less than the minimum"),
        (lambda d: d["config"].update(d_model=4), "do not describe the same tensors"),
        (lambda d: d["config"].update(layers=10**9), "1000000000 layers and model.safetensors has"),
        (lambda d: d["config"].update(eval="1"), "unknown config key"),
        (lambda d: d["config"].pop("d_state"), "incomplete"),
        (lambda d: d.update(family="retnet"), "families here: s4d, s5, mamba, mamba2"),
        (lambda d: d["tensors"]["layers.0.A.codes"].update(bits=5), "same tensors"),
        (lambda d: d["tensors"].pop("head"), "same tensors"),
        (lambda d: d.update(tensors=3), "tensors: .* is not of type 'object'"),
        (lambda d: d.update(tensors=[]), "same tensors"),
        (
            lambda d: d["config"].update(residual=not d["config"]["residual"]),
            "config.json or plan.json .* was changed",
        ),
        (lambda d: d["config"].pop("residual"), "was changed after the export"),
        (lambda d: d["config"].update(pooling="last"), "was changed after the export"),
        (lambda d: d.update(name="another"), "was changed after the export"),
        (lambda d: d.pop("digest"), "was changed after the export"),
        (lambda d: d.update(weights={}), "weights: 'file' is a required property"),
        (lambda d: d["weights"].update(file="../x.safetensors"), "was expected"),
    ],
)
def test_a_changed_config(
    change: Callable[[dict[str, Any]], Any], match: str, folder: Path
) -> None:
    def apply(document: dict[str, Any]) -> dict[str, Any]:
        change(document)
        return document

    edit(folder / "config.json", apply)
    refused(folder, match)


@pytest.mark.parametrize(
    ("schemes", "match"),
    [
        ([["layers.7.A", "int8"]], r"names layers.7.A, which the model in config.json lacks"),
        ([["layers.*.A", "int6/head/asym"]], r"names layers.\*.A"),
        ([["layers.0.A", "int5/head/asym"]], "not the plan config.json was written with"),
        ([], "not the plan config.json was written with"),
        ([["layers.0.A", "int99"]], "damaged plan: .*no format 'int99'"),
        ([["head.bias", "int8/head"]], "damaged plan: .*makes no sense"),
        ({"layers.0.A": "int8"}, "damaged plan: .*is not a plan"),
    ],
)
def test_a_changed_plan(schemes: Any, match: str, folder: Path) -> None:
    edit(folder / "plan.json", lambda d: {**d, "schemes": schemes})
    refused(folder, match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.update({"layers.0.A.codes": t["layers.0.A.codes"][:-1]}), "of another shape"),
        (lambda t: t.pop("head.bias"), "missing: head.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), "left over: extra"),
        (lambda t: t.update({"head": t["head"].half()}), "needs torch.bfloat16"),
        (lambda t: t["head.bias"].fill_(float("nan")), "NaN or infinite values: head.bias"),
        (lambda t: t["layers.0.C.codes"].fill_(0x7F), "code 127, and e4m3 has 127 magnitudes"),
    ],
)
def test_tensors_that_do_not_fit(
    change: Callable[[dict[str, torch.Tensor]], Any], match: str, folder: Path
) -> None:
    edit_tensors(folder, change)
    refused(folder, match)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1"])
@pytest.mark.parametrize("site", ["layers.0.A", "layers.0.C", "layers.0.state"])
@pytest.mark.parametrize("signed_for", [False, True])
def test_a_corrupted_scale(site: str, value: str, signed_for: bool, folder: Path) -> None:
    """Of a weight and of a state; also where the file's digest was not made to fit."""
    before = (folder / "config.json").read_bytes()
    edit_tensors(folder, lambda t: t[f"{site}.scale"].view(-1)[-1:].fill_(float(value)))
    if not signed_for:
        (folder / "config.json").write_bytes(before)
    refused(
        folder,
        rf"{folder}/model.safetensors: the scales of {site} are not all positive numbers "
        rf"\({site}.scale: 1 of \d+, the first is {value}\): the file is damaged. Copy the folder "
        "again, or export it again.",
    )


def test_more_weights_than_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said from shapes alone: nothing of the file is read."""
    weights = sum(t.nbytes for t in load_file(folder / "model.safetensors").values())
    decoded = sum(4 * w.numel() * (1 + w.is_complex()) for w in tiny(NAMES[0]).weights.values())
    (folder / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(read, "free_bytes", lambda: weights + decoded - 1)
    wanted = (
        f"{weights:,} bytes of packed weights, and {decoded:,} as they are decoded while the file "
        f"is checked: that needs {weights + decoded:,} bytes, and {weights + decoded - 1:,} are "
        "free. Free some memory"
    )
    with pytest.raises(CapacityError, match=wanted):
        load_artefact(folder)
    monkeypatch.setattr(read, "free_bytes", lambda: weights + decoded)
    refused(folder, "is empty")


class Payload:
    """Leaves a mark when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_a_pickle_in_place_of_the_weights_is_not_run(folder: Path, tmp_path: Path) -> None:
    torch.save(Payload(tmp_path / "mark"), folder / "model.safetensors")
    refused(folder, "cannot be read as safetensors")
    assert not (tmp_path / "mark").exists()
    copied = (folder / "model.safetensors").rename(tmp_path / "copied.pt")
    torch.load(copied, weights_only=False)
    assert (tmp_path / "mark").exists(), "the payload must work for this test to mean anything"
