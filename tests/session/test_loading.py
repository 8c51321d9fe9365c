"""`sensprobe.load`: what MODEL may be, what a plan may be, and what a loaded model does."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import PLAIN, parameters
from safetensors.torch import save_file

import sensprobe
from sensprobe import zoo
from sensprobe.checkpoints.files import METADATA_KEY
from sensprobe.data import load_data
from sensprobe.errors import CheckpointError, DataError, PlanError, SchemeError, UsageError
from sensprobe.evaluate import BATCH
from sensprobe.export import export_model
from sensprobe.models import Model
from sensprobe.models.apply import Applier, observe
from sensprobe.numerics.taps import EXACT
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.plans.sites import Kind
from sensprobe.session.load import load
from sensprobe.session.loaded import LoadedModel
from sensprobe.session.source import Source, open_model

NAME = "s4d-digits"
A = "int8/head/asym"


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(NAME).model


@pytest.fixture(scope="module")
def x(model: Model) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.rand(6, 16, model.config.d_input, generator=g)


def export(model: Model, out: Path, seen: torch.Tensor, **schemes: str) -> Applier:
    applier = Applier(model, observe(model, seen))
    plan = {f"layers.0.{site}": parse(text) for site, text in schemes.items()}
    name = open_model(NAME).fingerprint
    export_model(model, plan, applier, out, name="small", model_fingerprint=name)
    return applier


# -- MODEL ----------------------------------------------------------------------------------------


def test_a_shipped_name_wins_and_a_path_of_that_name_can_be_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NAME).write_bytes(b"")
    source = open_model(NAME)
    assert (source.name, source.path, source.artefact) == (NAME, zoo.shipped()[NAME], None)
    for path in (f"./{NAME}", Path(NAME)):
        with pytest.raises(CheckpointError, match="empty"):
            open_model(path)


def test_a_checkpoint_by_path_is_the_same_model_with_what_it_records(model: Model) -> None:
    by_path, by_name = open_model(zoo.shipped()[NAME]), open_model(NAME)
    assert by_path.fingerprint == by_name.fingerprint
    assert (by_path.name, by_path.model.config) == (NAME, model.config)
    assert isinstance(by_path.recorded, dict)


def test_a_toml_beside_its_weights(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(zoo.shipped()[NAME].read_bytes())
    (tmp_path / "model.toml").write_text('file = "w.safetensors"')
    source = open_model(str(tmp_path / "model.toml"))
    assert source.fingerprint == open_model(NAME).fingerprint
    assert source.name == tmp_path.name  # every model.toml is called so


def test_an_exported_folder(model: Model, x: torch.Tensor, tmp_path: Path) -> None:
    export(model, tmp_path / "m", x, A=A)
    source: Source = open_model(tmp_path / "m")
    assert source.artefact is not None
    assert source.name == source.recorded["name"] == "small"
    assert source.recorded["fingerprints"]["model"] == open_model(NAME).fingerprint
    assert source.fingerprint != open_model(NAME).fingerprint
    with pytest.raises(UsageError, match="name its folder"):
        open_model(tmp_path / "m" / "model.safetensors")
    (tmp_path / "m" / "plan.json").unlink()
    with pytest.raises(CheckpointError, match="lacks plan"):
        open_model(tmp_path / "m")


def test_what_a_user_has_is_counted_as_the_file_stores_it(
    model: Model, x: torch.Tensor, tmp_path: Path
) -> None:
    full = open_model(NAME)
    assert full.outline.stored_dtype == "float32"
    assert full.outline.stored_bytes == cost(full.model.sites.values(), {}).weight_bytes
    header = {"format": 1, "family": "s4d", "config": asdict(PLAIN)}
    for dtype in (torch.float16, torch.float64):
        params = {name: p.to(dtype) for name, p in parameters(PLAIN).items()}
        params["head.bias"] = params["head.bias"].float()
        save_file(params, tmp_path / "m.safetensors", {METADATA_KEY: json.dumps(header)})
        source = open_model(tmp_path / "m.safetensors")
        reals = sum(s.reals for s in source.model.sites.values() if s.kind is Kind.WEIGHT)
        bias = PLAIN.d_output
        assert source.outline.stored_bytes == (reals - bias) * dtype.itemsize + 4 * bias
        assert set(source.outline.stored_dtype.split(", ")) == {str(dtype)[6:], "float32"}
        assert source.outline.stored_as(source.model.sites["layers.0.A"])[0] == str(dtype)[6:]
        assert source.outline.stored_as(source.model.sites["layers.0.state"])[0] == "float32"
    export(model, tmp_path / "m", x, A=A, state="int8")  # with a static scale, once
    exported = open_model(tmp_path / "m")
    priced = cost(exported.model.sites.values(), exported.artefact.plan)  # type: ignore[union-attr]
    assert exported.outline.stored_bytes == priced.weight_bytes
    assert exported.outline.stored_dtype == "packed"
    assert exported.outline.stored_as(exported.model.sites["layers.0.A"])[0] == A


def test_a_folder_that_is_none_of_ours(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="folder"):
        open_model(tmp_path)


@pytest.mark.parametrize(
    ("spec", "near"), [("s4d-digit", NAME), ("weights.safetensor", "weights.safetensors")]
)
def test_an_unknown_model_says_what_there_is(
    spec: str, near: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.safetensors").touch()
    with pytest.raises(UsageError) as error:
        open_model(spec)
    text = str(error.value)
    assert f"no model {spec!r}" in text
    assert f"Did you mean {near}?" in text
    assert f"ship: {', '.join(zoo.shipped())}." in text
    assert "a checkpoint file, a folder that `sensprobe export` wrote, or a model.toml" in text


def test_norm_is_only_for_checkpoints_that_do_not_say(
    model: Model, x: torch.Tensor, tmp_path: Path
) -> None:
    export(model, tmp_path / "m", x)
    (tmp_path / "model.toml").write_text('file = "w.safetensors"')
    for spec in (NAME, zoo.shipped()[NAME], tmp_path / "m", tmp_path / "model.toml"):
        with pytest.raises(UsageError, match="norm 'pre' is for checkpoints of state-spaces/s4"):
            open_model(spec, norm="pre")


# -- a loaded model -------------------------------------------------------------------------------


def test_it_computes_what_the_model_computes(model: Model, x: torch.Tensor) -> None:
    loaded = load(NAME)
    out = loaded(x)
    assert torch.equal(out, model(x, EXACT))
    assert out.shape == (6, model.config.d_output)
    assert not out.requires_grad
    assert (loaded.name, loaded.plan.name, loaded.sites) == (NAME, "exact", model.sites)
    assert loaded.spectral_radius == pytest.approx(model.spectral_radius(), abs=1e-6)


def test_it_takes_numpy_and_other_dtypes(x: torch.Tensor) -> None:
    loaded = load(NAME)
    expected = loaded(x)
    assert torch.equal(loaded(x.numpy()), expected)
    assert torch.equal(loaded(x.double()), expected)
    ones = np.ones(x.shape, np.uint8)
    assert torch.equal(loaded(ones), loaded(ones.astype(np.float32)))


def test_sequences_without_a_channel_axis_where_there_is_one_channel(tmp_path: Path) -> None:
    name = next(name for name in zoo.shipped() if open_model(name).model.config.d_input == 1)
    loaded, x = load(name), torch.rand(2, 9)
    assert torch.equal(loaded(x), loaded(x[..., None]))
    outputs, state = loaded.step(x[:, 0], loaded.start(2))
    assert torch.equal(outputs, loaded.step(x[:, 0, None], loaded.start(2))[0])
    assert torch.equal(loaded.step(x[:, 0], loaded.start(2))[0], outputs)
    assert not torch.equal(loaded.step(x[:, 0], state)[0], outputs)


def test_shapes_that_do_not_fit_are_named(model: Model) -> None:
    loaded, width = load(NAME), model.config.d_input
    for shape in [(3,), (2, 5, width + 1), (2, 0, width), (1, 2, 5, width)]:
        with pytest.raises(DataError, match=rf"this model reads \(batch, length, {width}\)"):
            loaded(torch.zeros(shape))
    with pytest.raises(DataError, match=rf"one step of this model is \(batch, {width}\)"):
        loaded.step(torch.zeros(2, width + 1), loaded.start(2))
    with pytest.raises(DataError, match="complex"):
        loaded(torch.zeros(2, 3, width, dtype=torch.complex64))
    with pytest.raises(UsageError, match="at least one sequence"):
        loaded.start(0)


def test_no_sequences_give_no_outputs(model: Model) -> None:
    out = load(NAME)(torch.zeros(0, 4, model.config.d_input))
    assert out.shape == (0, model.config.d_output)


def test_many_sequences_run_in_the_batches_of_an_evaluation(model: Model) -> None:
    g = torch.Generator().manual_seed(1)
    x = torch.rand(BATCH + 3, 5, model.config.d_input, generator=g)
    loaded = load(NAME, {"*.out_proj_in": "int4/dynamic/stochastic"})
    tap = Applier(model).tap(loaded.schemes)
    with torch.inference_mode():
        parts = [model(x[:BATCH], tap.at(0)), model(x[BATCH:], tap.at(BATCH))]
    assert torch.equal(loaded(x), torch.cat(parts))
    assert not torch.equal(loaded(x[BATCH:]), parts[1])  # noise belongs to the position


@pytest.mark.parametrize("plan", [None, {"*.state": "int8/head/dynamic"}])
def test_steps_end_where_the_whole_sequence_does(
    plan: dict[str, str] | None, x: torch.Tensor
) -> None:
    loaded = load(NAME, plan)
    state = loaded.start(len(x))
    for t in range(x.shape[1]):
        outputs, state = loaded.step(x[:, t], state)
    assert torch.allclose(outputs, loaded(x), atol=1e-4)
    assert not torch.allclose(outputs, loaded(x[:, :-1]), atol=1e-4)


# -- plans ----------------------------------------------------------------------------------------


def test_a_plan_may_be_a_mapping_a_plan_or_a_file(x: torch.Tensor, tmp_path: Path) -> None:
    entries = {"layers.*.A": "int4/head/asym", "head": "int3/channel"}
    plan = Plan(tuple((p, parse(s)) for p, s in entries.items()), "mine")
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"sensprobe_plan": 1, "schemes": list(entries.items())}))
    expected = load(NAME, plan)(x)
    mixed: dict[str, str | Scheme] = {"layers.*.A": parse("int4/head/asym"), "head": "int3/channel"}
    for other in (entries, mixed, path, str(path)):
        assert torch.equal(load(NAME, other)(x), expected)
    assert not torch.equal(load(NAME)(x), expected)
    loaded = load(NAME, plan)
    assert loaded.plan is plan
    assert loaded.schemes["layers.0.A"] == parse("int4/head/asym")
    assert loaded.cost().weight_bytes < load(NAME).cost().weight_bytes
    assert loaded.cost(batch=3).state_bytes == 3 * loaded.cost().state_bytes


def test_plans_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="matches no site"):
        load(NAME, {"layers.*.Z": "int8"})
    with pytest.raises(SchemeError, match="no format"):
        load(NAME, {"head": "int99"})
    with pytest.raises(PlanError, match="no plan file"):
        load(NAME, tmp_path / "none.json")


def test_static_states_need_calibration(model: Model, x: torch.Tensor) -> None:
    plan = {"*.state": "int8"}
    with pytest.raises(SchemeError, match=r"layers.0.state in int8.*calibration=x.*dynamic"):
        load(NAME, plan)
    with pytest.raises(DataError, match="no sequence"):
        load(NAME, plan, calibration=x[:0])
    loaded = load(NAME, plan, calibration=x.numpy())
    tap = Applier(model, observe(model, x)).tap(loaded.schemes)
    assert torch.equal(loaded(x), model(x, tap))
    assert load(NAME, {"*.state": "int8/range9"})(x).shape == loaded(x).shape
    percentile = load(NAME, {"*.state": "int8/p99"}, calibration=x)
    assert not torch.equal(percentile(x), loaded(x))


def test_an_artefact_runs_as_it_was_simulated(
    model: Model, x: torch.Tensor, tmp_path: Path
) -> None:
    applier = export(model, tmp_path / "m", x, A=A, state="int8", x="int6")
    loaded = load(tmp_path / "m")
    assert torch.equal(loaded(x), model(x, applier.tap(loaded.schemes)))
    assert loaded.plan.name == "small"
    with pytest.raises(UsageError, match="rounded already"):
        load(tmp_path / "m", {"layers.0.C": "int4/head"})


# -- devices and the package ----------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99"])
def test_devices_that_are_not_there(device: str) -> None:
    with pytest.raises(UsageError, match="device"):
        load(NAME, device=device)


@pytest.mark.gpu
@pytest.mark.parametrize("plan", [None, {"*.state": "int8/head/dynamic", "layers.*.A": A}])
def test_a_gpu_computes_about_the_same(plan: dict[str, str] | None, x: torch.Tensor) -> None:
    on_gpu, on_cpu = load(NAME, plan, "cuda"), load(NAME, plan)
    out = on_gpu(x)
    assert out.device.type == "cuda"
    assert torch.allclose(out.cpu(), on_cpu(x), atol=1e-2)
    outputs, _ = on_gpu.step(x[:, 0], on_gpu.start(len(x)))
    assert torch.allclose(outputs.cpu(), on_cpu.step(x[:, 0], on_cpu.start(len(x)))[0], atol=1e-3)


def test_the_package_offers_it_and_imports_no_torch_for_its_name() -> None:
    assert sensprobe.load is load
    assert sensprobe.LoadedModel is LoadedModel
    assert {"load", "__version__"} <= set(sensprobe.__all__) <= set(dir(sensprobe))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        sensprobe.lode  # noqa: B018
    code = "import sys, sensprobe; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_version_is_the_one_that_is_packaged() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert sensprobe.__version__ == project["version"]


@pytest.mark.parametrize("where", ["x", "y", "out_proj_in", "out_proj_out", "out"])
def test_streaming_draws_the_noise_of_the_whole_sequence(where: str) -> None:
    model = load(NAME, {f"layers.*.{where}": "int3/range4/stochastic7"})
    x = load_data("digits").splits["search"].x[:6, :9]
    state = model.start(6)
    for t in range(9):
        streamed, state = model.step(x[:, t], state)
    torch.testing.assert_close(streamed, model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_state_of_another_batch_or_model_is_refused(batch: int) -> None:
    model, other = load(NAME), load("s4d-smnist-16")
    with pytest.raises(DataError, match="make one with start"):
        model.step(torch.zeros(batch), model.start(3))
    with pytest.raises(DataError, match="make one with start"):
        model.step(torch.zeros(3), other.start(3))
    with pytest.raises(DataError, match="make one with start"):
        model.step(torch.zeros(3), None)


def test_what_is_no_array_or_plan_is_said() -> None:
    for x in (None, "abc", np.array([object()])):
        with pytest.raises(DataError, match="no array of numbers"):
            load(NAME)(x)  # type: ignore[arg-type]
    backwards = np.zeros((2, 5), np.float32)[:, ::-1]
    assert load(NAME)(backwards).shape == (2, 10)
    for plan in ([("A", "int8")], 3, {3: "int8"}, {"head": 8}, {"head": None}):
        with pytest.raises(PlanError):
            load(NAME, plan)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="NaN or infinite"):
        load(NAME, {"layers.*.x": "int8"}, calibration=torch.full((2, 64), float("nan")))


def test_artefacts_of_other_calibrations_are_other_models(model: Model, tmp_path: Path) -> None:
    prints = set()
    for scale in (1, 3):
        x = scale * torch.ones(4, 8, 1)
        export(model, tmp_path / str(scale), x, x="int4")
        prints.add(open_model(tmp_path / str(scale)).fingerprint)
    assert len(prints) == 2
