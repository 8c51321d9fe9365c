"""Training under a plan: the network in training is the one that is evaluated, to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from under_plans import inputs_of, plan_of, start_of

from sensprobe.checkpoints import parameters
from sensprobe.checkpoints.files import read_safetensors
from sensprobe.checkpoints.own import build
from sensprobe.data import load_data
from sensprobe.errors import SchemeError, SensprobeError, UsageError
from sensprobe.models.apply import Applier, observe, wanted_by
from sensprobe.models.noisy import noisy_tap
from sensprobe.plans.noise import Draw, parse_entry, resolve
from sensprobe.session.source import open_model
from sensprobe.train import train_task
from sensprobe.train.method import Method
from sensprobe.train.parametrization import parametrized, stability
from sensprobe.train.recipe import Data, Optimizer, Recipe, Schedule
from sensprobe.train.snapshot import SNAPSHOT, write_tensors
from sensprobe.train.tune import TuneTask, _of_labels
from sensprobe.train.under import TRAINING, UnderPlan

PLANS = {
    "one layer": [
        "*.A=logpolar(m2,p8) *.B=int2/channel *.C=int3 *.state=int6/head/dynamic *.out_proj=int2",
        "weights=int4/mse states=int8/head/asym activations=int6",
        "*.A=polar(m3,p7) *.state=int5/head/feedback head=e4m3 *.x=int4/stochastic",
    ],
    "mamba": ["*.in_proj.*=int3/channel/asym *.A=log5 *.state=int6/dynamic *.decay=int8"],
    "mamba2": ["weights=int4 *.state=int8/head/dynamic/every2 *.in_proj.*=int4/hadamard"],
}
CASES = [(name, words) for name, all_ in PLANS.items() for words in all_]


@pytest.mark.parametrize(("name", "words"), CASES)
def test_the_network_in_training_is_the_one_that_is_evaluated(name: str, words: str) -> None:
    params, config = start_of(name)
    model = build(params, config, Path("here"))
    plan, x = plan_of(words, model), inputs_of(config)
    applier = Applier(model, observe(model, x, wanted_by(plan, model)))
    leaves = {n: p.clone().requires_grad_() for n, p in params.items()}
    under = UnderPlan(plan, config, x)
    outputs = under.outputs(leaves, x)
    with torch.no_grad():
        assert torch.equal(outputs, model(x, applier.tap(plan)))
    outputs.square().sum().backward()
    for n, p in leaves.items():
        assert p.grad is not None, n
        assert p.grad.isfinite().all(), n
    assert sum(bool(p.grad.abs().sum()) for p in leaves.values()) > len(leaves) - 2


def test_a_single_target_may_be_without_an_axis() -> None:
    outputs, y = torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 4.0])
    found = _of_labels("regression", outputs, y)
    assert found == _of_labels("regression", outputs, y[:, None])
    assert found is not None
    assert (found.value.item(), found.scores) == (2.5, 5.0)


def test_gptq_is_refused_by_name() -> None:
    params, config = start_of("one layer")
    plan = plan_of("*.out_proj=int4/gptq", build(params, config, Path("here")))
    with pytest.raises(SchemeError, match=r"layers\.0\.out_proj in int4.*gptq"):
        UnderPlan(plan, config)


# -- a whole training ------------------------------------------------------------------------------

COARSE = "*.out_proj=int3 *.C=int3 *.state=int6/head/dynamic"


def digits(
    epochs: int = 2, words: str = COARSE, method: Method | None = None, **changes: Any
) -> TuneTask:
    source, data, method = open_model("s4d-digits"), load_data("digits"), method or Method()
    stored = parameters(source.path)
    start, config = parametrized(stored.tensors, stored.config, method.parametrization)
    under = UnderPlan(
        plan_of(words, source.model), config, data.splits["calibration"].x, method=method
    )
    recipe = Recipe(
        config, Data("digits"), Optimizer(1e-2, 2e-3, 0.0, 50, 0.8), Schedule(epochs, 0.1)
    )
    splits = data.splits["train"], data.splits["search"]
    return replace(TuneTask(recipe, data.task, *splits, under, start, 400), **changes)


def test_it_buys_back_what_rounding_costs(tmp_path: Path) -> None:
    task = digits(4)
    before = task.held_out(task.initial()).mean()
    found = train_task(task, tmp_path)
    assert before < 0.5
    assert found.value > before + 0.2
    model = open_model(found.weights).model
    plan = task.under.plan
    x, y = task.validation.x[:400], task.validation.y[:400]
    outputs = model(x, Applier(model).tap(plan))
    assert float((outputs.argmax(1) == y).double().mean()) == pytest.approx(found.value)


ALL = Method("discrete", stable=True, ranges="learned", progressive=True, clip=0.5)
"""Every choice at once."""


@pytest.mark.parametrize(
    ("words", "method"), [(COARSE, None), ("*.A=int5 *.x=int4 *.C=int3/asym *.out=int5", ALL)]
)
def test_a_training_that_was_stopped_ends_with_the_same_weights(
    words: str, method: Method | None, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(now: Any) -> None:
        if now.epoch == 2:
            raise StoppedError

    whole = train_task(digits(2, words, method), tmp_path / "whole")
    with pytest.raises(StoppedError):
        train_task(digits(2, words, method), tmp_path / "cut", progress=stop)
    again = train_task(digits(2, words, method), tmp_path / "cut")
    assert again.weights.read_bytes() == whole.weights.read_bytes()
    assert all(torch.equal(again.average[name], x) for name, x in whole.average.items())


def test_what_it_ends_with_is_what_it_was_scored_with(tmp_path: Path) -> None:
    """With every choice at once: the checkpoint and the tuned plan, read as any other."""
    task = digits(2, "*.A=int5 *.x=int4 *.C=int3/asym *.out=int5", ALL)
    found = train_task(task, tmp_path)
    model, plan = open_model(found.weights).model, task.under.tuned(found.average)
    assert {n for n, s in plan.items() if s.range == "given"} == set(plan)
    applier = Applier(model)  # nothing is left to watch
    assert stability(applier, plan).above == 0
    x, y = task.validation.x[:400], task.validation.y[:400]
    outputs = model(x, applier.tap(plan))
    assert float((outputs.argmax(1) == y).double().mean()) == pytest.approx(found.value)


def test_a_frozen_recurrence_stays_to_the_bit(tmp_path: Path) -> None:
    task = digits(1, method=Method("frozen"))
    before, after = task.initial(), parameters(train_task(task, tmp_path).weights).tensors
    stays = {n for n, p in before.items() if torch.equal(p, after[n])}
    assert stays == {"layers.0." + n for n in ("log_dt", "log_A_real", "A_imag")}


def test_bits_are_taken_away_between_legs() -> None:
    task, seen = digits(4, method=Method(progressive=True)), []
    for leg in range(4):
        next(iter(task.batches(leg)))
        seen.append(task.under.now(task.start)["layers.0.out_proj"].format.bits)
    assert seen == [8, 6, 3, 3]
    with pytest.raises(UsageError, match="this training is one leg: give more --epochs"):
        digits(1, method=Method(progressive=True))


def test_another_method_does_not_go_on_from_it(tmp_path: Path) -> None:
    train_task(digits(1), tmp_path)
    with pytest.raises(SensprobeError, match="differs in method"):
        train_task(digits(1, method=Method(clip=2.0)), tmp_path)


def test_a_restart_that_is_stopped_leaves_no_snapshot_beside_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    train_task(digits(1), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        train_task(digits(2), tmp_path, resume=False, progress=stop)  # within the first leg
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.setattr("sensprobe.train.loop.write_snapshot", stop)
    with pytest.raises(KeyboardInterrupt):
        train_task(digits(2), tmp_path, resume=False)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]
    assert (tmp_path / "weights.safetensors").read_bytes() != before["weights.safetensors"]


def test_a_snapshot_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Its recipe says nothing of what came later, and has a default."""
    train_task(digits(1), tmp_path)
    tensors, header = read_safetensors(tmp_path / SNAPSHOT)
    told = header["identity"]["recipe"]
    del told["model"]["kernels"], told["optimizer"]["dropout"], told["schedule"]["every"]
    write_tensors(tmp_path / SNAPSHOT, tensors, header)
    seen: list[Any] = []
    train_task(digits(1), tmp_path, progress=seen.append)
    assert seen == []


def test_another_plan_does_not_go_on_from_it(tmp_path: Path) -> None:
    train_task(digits(1), tmp_path)
    other = digits(1)
    under = replace(
        other.under, plan={**other.under.plan, "head": next(iter(other.under.plan.values()))}
    )
    with pytest.raises(SensprobeError, match="differs in plan"):
        train_task(replace(other, under=under), tmp_path)


def test_a_loss_that_diverges_says_the_step_and_keeps_the_last_leg(tmp_path: Path) -> None:
    task = digits(2)
    fast = replace(task.recipe, optimizer=replace(task.recipe.optimizer, lr=1e30, ssm_lr=1e30))
    with pytest.raises(SensprobeError, match=r"diverged.*step \d+"):
        train_task(replace(task, recipe=fast), tmp_path)


def test_without_labels_a_teacher_is_asked_for() -> None:
    with pytest.raises(UsageError, match="--teacher self"):
        digits(task="unlabelled")


def test_a_teacher_is_learnt_without_labels(tmp_path: Path) -> None:
    task = digits(3, task="unlabelled", teacher=open_model("s4d-digits").model)
    before = task.held_out(task.initial()).mean()
    assert train_task(task, tmp_path).value < before / 2  # divergence in nats


def vectors_alone() -> TuneTask:
    task = digits(1)
    return replace(task, under=replace(task.under, method=Method(train="vectors")))


def test_matrices_stay_to_the_bit_where_vectors_are_trained(tmp_path: Path) -> None:
    task = vectors_alone()
    before, found = task.initial(), train_task(task, tmp_path)
    after = parameters(found.weights).tensors
    vectors = {"encoder.bias", "head.bias", "layers.0.D", "layers.0.out_proj.bias"}
    assert vectors < set(before)
    assert {n for n in before if not torch.equal(before[n], after[n])} == vectors
    snapshot = load_file(tmp_path / "snapshot.safetensors")
    assert {name.partition("/")[2] for name in snapshot} == vectors
    assert found.parameters == sum(before[n].numel() for n in vectors)
    with pytest.raises(SensprobeError, match="differs in method"):
        train_task(digits(1), tmp_path)


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_what_a_state_matrix_is_made_of_is_no_vector(name: str) -> None:
    params, _ = start_of(name)
    task = replace(vectors_alone(), start=params)
    groups = task.optimizer(params).param_groups
    trained = {id(p) for group in groups for p in group["params"]}
    names = {n for n, p in params.items() if id(p) in trained}
    assert not {n for n in names if params[n].ndim > 1 or n.endswith("A_log")}
    assert "layers.0.D" in names


def test_it_ends_after_the_most_steps() -> None:
    task = digits(2)
    each = task.epoch_steps
    assert [r.stop for r in task.legs] == [each, 2 * each]
    assert [r.stop for r in digits(2, max_steps=each - 3).legs] == [each - 3]
    assert [r.stop for r in digits(2, max_steps=each + 1).legs] == [each, each + 1]
    assert digits(2, max_steps=2 * each + 1).legs == task.legs
    assert digits(2, max_steps=2 * each).rate(3) == task.rate(3)


# -- noise ----------------------------------------------------------------------------------------

NOISE = {
    "one layer": "weights=0.1 activations=0.05 *.state=0.05",
    "mamba": "*.A=0.05 *.decay=0.01 *.state=0.05 *.conv_state=0.05 *.in_proj.x=pcm(t=3600)",
    "mamba2": "weights=0.02 *.y=0.05 *.state=0.01",
}


@pytest.mark.parametrize("name", NOISE)
def test_noise_in_training_is_that_of_an_evaluation_and_anew_in_every_step(name: str) -> None:
    params, config = start_of(name)
    model, x = build(params, config, Path("here")), inputs_of(config)
    plan = plan_of("weights=int6 *.state=int8/dynamic", model)
    noise = Draw(resolve(map(parse_entry, NOISE[name].split()), model.sites.values()), seed=4)
    leaves = {n: p.clone().requires_grad_() for n, p in params.items()}
    under = UnderPlan(plan, config, x, noise)
    outputs = under.outputs(leaves, x, 64)
    applier = Applier(model, observe(model, x))
    tap = noisy_tap(applier, plan, replace(noise, index=TRAINING + 64)).at(64)
    with torch.no_grad():
        assert torch.equal(outputs, model(x, tap))
        assert torch.equal(outputs, under.outputs(leaves, x, 64))
        assert not torch.equal(outputs, under.outputs(leaves, x, 128))
    outputs.square().sum().backward()
    for n, p in leaves.items():
        assert p.grad is not None, n
        assert p.grad.isfinite().all(), n


def with_noise(task: TuneTask) -> TuneTask:
    model = open_model("s4d-digits").model
    entries = [
        parse_entry("weights=0.03"),
        parse_entry("layers.*.A=0.003"),
        parse_entry("*.y=0.01"),
    ]
    noise = Draw(resolve(entries, model.sites.values()), seed=2)
    return replace(task, under=replace(task.under, noise=noise), marks={"noise": noise.fingerprint})


def test_a_training_under_noise_that_was_stopped_ends_with_the_same_weights(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(now: Any) -> None:
        if now.epoch == 2:
            raise StoppedError

    whole = train_task(with_noise(digits()), tmp_path / "whole")
    with pytest.raises(StoppedError):
        train_task(with_noise(digits()), tmp_path / "cut", progress=stop)
    again = train_task(with_noise(digits()), tmp_path / "cut")
    assert again.weights.read_bytes() == whole.weights.read_bytes()
    assert whole.weights.read_bytes() != train_task(digits(), tmp_path / "q").weights.read_bytes()
    with pytest.raises(SensprobeError, match="another"):
        train_task(digits(), tmp_path / "cut")
