"""A search for a runtime and the export for it drop nothing; any other export says all it drops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Shell
from language import BYTES, write_model, write_stories
from selective import Config

from sensprobe.cli import main
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config

WIDE = BYTES | {"d_model": 32, "layers": 2}
CONFIGS: dict[str, Config] = {
    "mamba": MambaConfig(**WIDE, dt_rank=2, d_state=3),
    "mamba2": Mamba2Config(**WIDE, d_state=4, d_head=8),
}
SCHEMES = ["fp16", "int8/channel", "int8/group32", "int4/group32", "int8/head/asym/dynamic"]
CASES = [
    *((family, t) for family in CONFIGS for t in ("vllm", "compressed-tensors", "torchao")),
    *((family, "llama.cpp") for family in CONFIGS),
    ("mamba2", "modelopt"),
]


@pytest.fixture(scope="module")
def profiled_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each family with a profile by part."""
    folder = tmp_path_factory.mktemp("targets")
    stories = write_stories(folder / "stories", 24, 12)
    words = [word for scheme in SCHEMES for word in ("--scheme", scheme)]
    made = {}
    for family, config in CONFIGS.items():
        model, run = write_model(folder / f"{family}.safetensors", config), folder / family
        data = ["--data", f"text:{stories},length=32,context=8"]
        asked = ["profile", model, *data, *words, "--method", "taylor", "--run", run]
        assert main([str(word) for word in asked]) == 0
        made[family] = run
    return made


FEW = ["--evaluations", 4, "--no-confirm", "--max-loss", 5]


@pytest.mark.parametrize(("family", "target"), CASES)
def test_what_is_searched_for_a_target_is_exported_whole(
    family: str, target: str, shell: Shell, profiled_runs: dict[str, Path], tmp_path: Path
) -> None:
    run = profiled_runs[family]
    found = shell.ok("search", "--run", run, "--target", target, *FEW, "--json").json["search"]
    assert found["target"] == target
    asked = ["export", "--run", run, "--plan", found["chosen"][0]["candidate"], "--for", target]
    done = shell.ok(*asked, "--out", tmp_path / "out", "--json").json
    assert (done["dropped"], done["narrowed"]) == ([], [])
    candidate = next(c for c in found["candidates"] if c["name"] == done["plan"])
    assert done["weight_bytes"]["plan"] == candidate["weight_bytes"] < found["full"]["weight_bytes"]
    assert done["state_bytes"]["plan"] == done["state_bytes"]["here"] == candidate["state_bytes"]
    assert (done["quantized"] > 0) == ((family, target) != ("mamba", "vllm"))
    again = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert again["name"].endswith(done["plan"])
    note = f"for {target}, "
    assert note in shell.ok("search", "--run", run, "--target", target, *FEW).err
    printed = shell.ok(*asked, "--out", tmp_path / "again").out
    assert "dropped: nothing, the plan is kept whole" in printed
    assert done["use"][-1].replace("out", "again") in printed


def test_what_another_runtime_loses_is_printed(
    shell: Shell, profiled_runs: dict[str, Path], tmp_path: Path
) -> None:
    run = profiled_runs["mamba2"]
    freeze = ["--freeze", "layers.*.state=int8/head/dynamic", "--freeze", "layers.*.A=fp16"]
    found = shell.ok("search", "--run", run, *freeze, *FEW, "--json").json["search"]
    plan = found["chosen"][0]["candidate"]
    asked = ["export", "--run", run, "--plan", plan, "--for", "vllm", "--out", tmp_path / "out"]
    done = shell.ok(*asked, "--json").json
    lost = {row["sites"]: row for row in done["dropped"]}
    assert lost["layers.*.state"] == {
        "sites": "layers.*.state",
        "count": 2,
        "asked": "int8/head/dynamic",
        "becomes": "fp32",
        "why": "vllm keeps this state in fp32 or fp16 or bf16",
        "dropped": True,
    }
    assert lost["layers.*.A"]["becomes"] == "fp32"
    assert done["state_bytes"]["plan"] < done["state_bytes"]["here"]
    printed = shell.ok(*asked, "--overwrite").out
    assert "dropped: the plan says more than the runtime can" in printed
    for words in ("layers.*.state", "int8/head/dynamic", "--mamba-ssm-cache-dtype float32"):
        assert words in printed
    assert (tmp_path / "out" / "README.md").read_text().count("| `layers.*.state` | 2 |") == 1


def refused(shell: Shell, code: int, words: str, *asked: object) -> None:
    done = shell(*asked)
    assert done.code == code
    assert words in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_bad_input(shell: Shell, profiled_runs: dict[str, Path], tmp_path: Path) -> None:
    run, out = profiled_runs["mamba"], tmp_path / "out"
    found = shell.ok("search", "--run", run, *FEW, "--json").json["search"]
    export = ["export", "--run", run, "--plan", found["chosen"][0]["candidate"], "--out", out]
    refused(shell, 2, "no runtime 'trt'. There are: compressed-tensors,", *export, "--for", "trt")
    refused(shell, 1, "modelopt knows mamba2 models", *export, "--for", "modelopt")
    search = ["search", "--run", run, *FEW]
    refused(shell, 2, "no runtime 'trt'", *search, "--target", "trt")
    refused(shell, 1, "modelopt knows mamba2 models", *search, "--target", "modelopt")
    frozen = ["--target", "vllm", "--freeze", "layers.*.D=int8"]
    refused(shell, 2, "--freeze layers.0.D=int8: vllm keeps this tensor", *search, *frozen)
    narrow = ["--target", "vllm", "--scheme", "int8/head/asym/dynamic"]
    refused(shell, 2, "Profile again with some it can", *search, *narrow)
    assert not out.exists()
    shell.ok(*export, "--for", "torchao")
    refused(shell, 2, "holds an exported model already", *export, "--for", "torchao")
    refused(shell, 1, "packed for torchao", "sites", out)


def test_a_classifier_has_no_class_there(shell: Shell, searched: Path, tmp_path: Path) -> None:
    asked = ["export", "--run", searched, "--plan", "2KiB", "--out", tmp_path / "out"]
    refused(
        shell, 1, "vllm knows mamba and mamba2 models, and this one is s4d", *asked, "--for", "vllm"
    )
