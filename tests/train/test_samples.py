"""Training on small real data: it learns, it repeats, it goes on where it stopped."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import site
from safetensors.torch import load_file

from sensprobe.checkpoints import read_checkpoint
from sensprobe.checkpoints.files import read_safetensors
from sensprobe.errors import CheckpointError, DataError, RunError, SensprobeError
from sensprobe.plans.sites import Kind, Part
from sensprobe.train import SampleTask, Trained, recipe_from, record, train_task
from sensprobe.train.loop import initial
from sensprobe.train.recipe import Recipe, rate_at
from sensprobe.train.samples import Dropping, Samples, shift_images
from sensprobe.train.snapshot import SNAPSHOT, write_tensors


def fit(recipe: Recipe, out: Path, *, train: Samples, validation: Samples, **more) -> Trained:
    return train_task(SampleTask(recipe, train, validation), out, **more)


def weights(result):
    return load_file(result.weights)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_it_learns(digits, recipe, tmp_path):
    train, validation = digits
    recipe = replace(recipe, schedule=replace(recipe.schedule, epochs=40))
    result = fit(recipe, tmp_path, train=train, validation=validation)
    losses = [epoch["loss"] for epoch in result.history]
    assert losses[0] > 0.8  # chance is log 3 = 1.1
    assert losses[-1] < 0.4
    assert result.value > 0.9
    assert result.n == 120
    stderr = math.sqrt(result.value * (1 - result.value) / 120)
    assert result.stderr == pytest.approx(stderr, rel=1e-12)
    assert result.parameters == sum(t.numel() for t in weights(result).values())


def test_the_checkpoint_is_a_model_that_scores_the_same(digits, recipe, tmp_path):
    train, validation = digits
    result = fit(recipe, tmp_path, train=train, validation=validation)
    model, header = read_checkpoint(result.weights)
    right = (model(validation[0], mode="fft").argmax(1) == validation[1]).float().mean().item()
    assert abs(right - result.value) < 1e-6
    assert header["recorded"]["value"] == result.value
    assert header["recorded"]["split"] == "validation"
    assert model.spectral_radius() < 1


def test_it_repeats_to_the_bit(digits, recipe, tmp_path):
    train, validation = digits
    a = fit(recipe, tmp_path / "a", train=train, validation=validation)
    b = fit(recipe, tmp_path / "b", train=train, validation=validation)
    other = fit(replace(recipe, seed=4), tmp_path / "c", train=train, validation=validation)
    assert same(weights(a), weights(b))
    assert not same(weights(a), weights(other))


@pytest.mark.parametrize(("epoch", "step"), [(1, 1), (2, 3), (4, 1), (2, None)])
def test_stopped_and_resumed_equals_never_stopped(digits, recipe, tmp_path, epoch, step):
    train, validation = digits
    whole = fit(recipe, tmp_path / "whole", train=train, validation=validation)

    def stop(progress):
        there = progress.validation is not None if step is None else progress.step == step
        if progress.epoch == epoch and there:
            raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, out, train=train, validation=validation, progress=stop)
    seen = []
    resumed = fit(recipe, out, train=train, validation=validation, progress=seen.append)
    assert same(weights(resumed), weights(whole))
    assert resumed.history == whole.history
    assert seen[0].epoch == (epoch if step is not None else epoch + 1)
    assert not list(out.glob(".*"))  # no drafts left


def test_an_epoch_in_parts(digits, recipe, tmp_path):
    """Legs cover every step once, meet the epoch's batches, go on after each, and draw anew."""
    (x, y), validation = digits
    parts = replace(recipe, schedule=replace(recipe.schedule, epochs=2, every=3))
    task = SampleTask(parts, (x, y), validation)
    assert task.legs == [
        range(0, 3),
        range(3, 6),
        range(6, 7),
        *(range(7, 10), range(10, 13)),
        range(13, 14),
    ]
    still = replace(parts, data=replace(parts.data, shift=0))
    whole = SampleTask(replace(still, schedule=recipe.schedule), (x, y), validation)
    of_epoch = [b[0] for b in whole.batches(1)]
    of_parts = [b[0] for leg in (3, 4, 5) for b in replace(task, recipe=still).batches(leg)]
    assert len(of_epoch) == 7
    assert all(map(torch.equal, of_epoch, of_parts))
    drawn = [torch.rand(8, generator=next(task.batches(leg))[2]) for leg in range(6)]
    assert len(torch.stack(drawn).unique(dim=0)) == 6

    def stop(progress):
        if progress.epoch == 5:
            raise KeyboardInterrupt

    never = fit(parts, tmp_path / "whole", train=(x, y), validation=validation)
    with pytest.raises(KeyboardInterrupt):
        fit(parts, tmp_path / "out", train=(x, y), validation=validation, progress=stop)
    resumed = fit(parts, tmp_path / "out", train=(x, y), validation=validation)
    assert same(weights(resumed), weights(never))
    assert [entry["epoch"] for entry in resumed.history] == pytest.approx(
        [3 / 7, 6 / 7, 1, 10 / 7, 13 / 7, 2]
    )


def test_a_finished_run_is_not_repeated(digits, recipe, tmp_path):
    train, validation = digits
    first = fit(recipe, tmp_path, train=train, validation=validation)
    seen = []
    again = fit(recipe, tmp_path, train=train, validation=validation, progress=seen.append)
    assert again == first
    assert seen == []


def test_a_snapshot_of_an_earlier_version_goes_on(digits, recipe, tmp_path):
    """Its recipe says nothing of the head, nor of parts of an epoch."""
    train, validation = digits
    short = replace(recipe, schedule=replace(recipe.schedule, epochs=1))
    first = fit(short, tmp_path, train=train, validation=validation)
    tensors, header = read_safetensors(tmp_path / SNAPSHOT)
    del (
        header["identity"]["recipe"]["model"]["head"],
        header["identity"]["recipe"]["schedule"]["every"],
    )
    write_tensors(tmp_path / SNAPSHOT, tensors, header)
    seen = []
    again = fit(short, tmp_path, train=train, validation=validation, progress=seen.append)
    assert again == first
    assert seen == []


def test_a_run_of_another_recipe_or_data_is_refused(digits, recipe, tmp_path):
    train, validation = digits
    short = replace(recipe, schedule=replace(recipe.schedule, epochs=1))
    fit(short, tmp_path, train=train, validation=validation)
    with pytest.raises(RunError, match="differs in recipe"):
        fit(replace(short, seed=9), tmp_path, train=train, validation=validation)
    fewer = (train[0][:200], train[1][:200])
    with pytest.raises(RunError, match="differs in train"):
        fit(short, tmp_path, train=fewer, validation=validation)
    replaced = fit(
        replace(short, seed=9), tmp_path, train=train, validation=validation, resume=False
    )
    assert len(replaced.history) == 1


def test_a_damaged_snapshot_is_named(digits, recipe, tmp_path):
    train, validation = digits
    short = replace(recipe, schedule=replace(recipe.schedule, epochs=1))
    fit(short, tmp_path, train=train, validation=validation)
    path = tmp_path / "snapshot.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"snapshot\.safetensors"):
        fit(short, tmp_path, train=train, validation=validation)


def test_progress_counts_up_and_time_runs_out(digits, recipe, tmp_path):
    train, validation = digits
    seen = []
    fit(recipe, tmp_path, train=train, validation=validation, progress=seen.append)
    ends = [p for p in seen if p.validation is not None]
    assert [p.epoch for p in ends] == [1, 2, 3, 4]
    assert all(p.step == p.steps == 7 for p in ends)  # 240 // 32
    assert [(p.epoch, p.step) for p in seen] == sorted((p.epoch, p.step) for p in seen)
    assert ends[-1].seconds_left == 0
    assert all(p.seconds_left > 0 for p in seen[:-1])


def test_divergence_is_said(digits, recipe, tmp_path):
    train, validation = digits
    wild = replace(recipe, optimizer=replace(recipe.optimizer, lr=1e30, ssm_lr=1e30))
    with pytest.raises(SensprobeError, match="training diverged"):
        fit(wild, tmp_path, train=train, validation=validation)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[..., 0], y), "needed (n, length, 1)"),
        (lambda x, y: (x, y[:-1]), "240 sequences come with 239 labels"),
        (lambda x, y: (x[:0], y[:0]), "there are no samples"),
        (lambda x, y: (x, y.float()), "needed int64 classes"),
        (lambda x, y: (x, y + 1), "labels run from 1 to 3, the recipe's model has 3 classes"),
        (
            lambda x, y: (x[:, 1:], y),
            "sequences are 63 long, the recipe shifts images of 8 x 8",
        ),
    ],
)
def test_samples_that_do_not_fit_are_refused(digits, recipe, tmp_path, change, message):
    train, validation = digits
    with pytest.raises(DataError) as caught:
        fit(recipe, tmp_path, train=change(*train), validation=validation)
    assert message in str(caught.value)
    assert str(caught.value).startswith("train: ")


def test_record_changes_the_header_alone(digits, recipe, tmp_path):
    train, validation = digits
    short = replace(recipe, schedule=replace(recipe.schedule, epochs=1))
    result = fit(short, tmp_path, train=train, validation=validation)
    before = weights(result)
    recorded = {"metric": "accuracy", "value": 0.5, "n": 2, "split": "confirmation"}
    copy = record(result.weights, recorded, tmp_path / "copy.safetensors")
    assert same(load_file(copy), before)
    assert read_checkpoint(copy)[1]["recorded"] == recorded
    assert read_checkpoint(result.weights)[1]["recorded"]["split"] == "validation"


def test_held_out_scores_are_of_each_sample(digits, recipe):
    x, y = digits[0]
    params = initial(replace(recipe, seed=0))

    def scores(index, targets=y):
        return SampleTask(recipe, digits[0], (x[index], targets[index])).held_out(params)

    picked = torch.arange(0, 240, 40)
    assert scores(picked).tolist() == [scores(slice(i, i + 1)).item() for i in picked.tolist()]
    assert 0 < scores(slice(None)).mean() < 1


def test_held_out_scores_need_no_graph(digits, recipe):
    """Of parameters in training too."""
    task = SampleTask(recipe, *digits)
    leaves = {name: p.requires_grad_() for name, p in task.initial().items()}
    assert len(task.held_out(leaves)) == len(digits[1][1])


def test_schedule():
    rates = [rate_at(step, 100, 0.1) for step in range(100)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(0.5)
    assert max(rates) == rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.001
    assert rate_at(0, 100, 0.0) == 1


def test_shifted_images_are_the_image_moved():
    image = torch.arange(1.0, 13.0).view(1, 12, 1).expand(64, 12, 1)
    moved = shift_images(image, (3, 4), 1, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(image[0].view(3, 4), (1, 1, 1, 1))
    possible = {
        tuple(padded[i : i + 3, j : j + 4].flatten().tolist()) for i in range(3) for j in range(3)
    }
    assert {tuple(m.flatten().tolist()) for m in moved} == possible  # 64 draws meet all 9


def test_a_start_is_stable_and_named_by_its_seed(recipe):
    params = initial(replace(recipe, seed=0))
    assert same(params, initial(replace(recipe, seed=0)))
    assert not torch.equal(params["layers.0.C"], initial(replace(recipe, seed=1))["layers.0.C"])
    dt = params["layers.0.log_dt"].exp()
    assert ((dt >= 0.05) & (dt <= 0.5)).all()
    assert torch.equal(params["layers.0.A_imag"][0], math.pi * torch.arange(4))


@pytest.fixture
def numbers(digits):
    """Regression: how bright the two halves of an image are."""

    def of(samples):
        x, _ = samples
        halves = torch.stack([x[:, :32].mean((1, 2)), x[:, 32:].mean((1, 2))], dim=1)
        return x, (halves - 0.3) * 20

    return of(digits[0]), of(digits[1])


def test_numbers_are_learnt_too(numbers, document, tmp_path):
    """Targets (n, 2): mean squared error, a run that stops and goes on, a checkpoint that runs."""
    train, validation = numbers
    document["model"]["d_output"] = 2
    document["data"]["shift"] = 0
    document["schedule"]["epochs"] = 30
    recipe = recipe_from(document, "test")
    result = fit(recipe, tmp_path / "a", train=train, validation=validation)
    spread = validation[1].var(0, correction=0).sum().item() / 2
    assert result.metric == "mse"
    assert result.value < 0.5 * spread
    losses = [epoch["loss"] for epoch in result.history]
    assert losses == [epoch["mse"] for epoch in result.history]
    assert losses[-1] < 0.5 * losses[0]
    model, header = read_checkpoint(result.weights)
    error = (model(validation[0], mode="fft") - validation[1]).square().mean().item()
    assert header["recorded"]["value"] == result.value == pytest.approx(error, rel=1e-5)
    shorter = replace(recipe, schedule=replace(recipe.schedule, epochs=3))

    def stop(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    whole = fit(shorter, tmp_path / "b", train=train, validation=validation)
    with pytest.raises(KeyboardInterrupt):
        fit(shorter, tmp_path / "c", train=train, validation=validation, progress=stop)
    assert same(weights(fit(shorter, tmp_path / "c", train=train, validation=validation)),
                weights(whole))  # fmt: skip


@pytest.mark.parametrize("family", ["s5", "mamba"])
def test_other_families_learn_too(digits, document, tmp_path, family):
    """With dropout, and to the bit after a stop."""
    document |= {"family": family, "optimizer": {**document["optimizer"], "dropout": 0.1}}
    if family == "mamba":
        del document["model"]["residual"]
        document["model"]["dt_rank"] = 1
    document["schedule"]["epochs"] = 10
    document["optimizer"] |= {"lr": 0.05, "ssm_lr": 0.02}
    recipe, (train, validation) = recipe_from(document, "test"), digits
    both = {"train": train, "validation": validation}
    whole = fit(recipe, tmp_path / "a", **both)
    assert whole.history[-1]["loss"] < 0.9 * whole.history[0]["loss"]
    model, _ = read_checkpoint(whole.weights)
    assert model.family == family

    def stop(progress):
        if progress.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(recipe, tmp_path / "b", **both, progress=stop)
    assert same(weights(fit(recipe, tmp_path / "b", **both)), weights(whole))


def test_dropout_leaves_channels_out_for_all_steps():
    tap = Dropping(0.25, torch.Generator().manual_seed(0))
    x = torch.ones(40, 3, 50)
    found = tap(site(part=Part.OUT_PROJ_IN, kind=Kind.ACTIVATION, shape=(50,)), x)
    assert sorted(found.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert (found == found[:, :1]).all()
    assert 0.2 < (found == 0).float().mean() < 0.3
    assert tap(site(part=Part.Y, kind=Kind.ACTIVATION, shape=(50,)), x) is x


def test_losses_are_those_recorded(digits, document, tmp_path):
    """Of version 0.1.0, which gave these weights to the bit; elsewhere sums have another order."""
    document["model"] |= {"layers": 2, "norm": "post"}
    document["model"]["head"] = "linear 6, layer norm, relu, linear"
    document["schedule"]["epochs"] = 2
    train, validation = digits
    recipe = recipe_from(document, "test")
    found = fit(recipe, tmp_path, train=train, validation=validation).history
    assert [epoch["loss"] for epoch in found] == pytest.approx(
        [1.178253412246704, 1.1096043757029943], rel=1e-4
    )


@pytest.fixture
def tokens(document):
    """A recipe of a Mamba that reads tokens, and samples: the class is the largest token."""
    size = {"d_input": 5, "d_output": 5, "d_model": 8, "d_state": 2, "dt_rank": 1}
    model = {**size, "encoder": "embedding", "pooling": "mean"}
    document |= {"family": "mamba", "model": model, "data": {"source": "listops"}}
    document["schedule"]["epochs"] = 12
    x = torch.randint(0, 5, (500, 3), generator=torch.Generator().manual_seed(1)).int()
    y = x.amax(1).long()
    return recipe_from(document, "test"), (x[:400], y[:400]), (x[400:], y[400:])


def test_a_mamba_learns_classes_of_tokens(tokens, tmp_path):
    recipe, train, validation = tokens
    result = fit(recipe, tmp_path, train=train, validation=validation)
    assert result.value > 0.8  # the commonest class is 61 / 125
    model, _ = read_checkpoint(result.weights)
    assert model.config == recipe.model
    right = (model(validation[0]).argmax(1) == validation[1]).float().mean().item()
    assert right == pytest.approx(result.value)


@pytest.mark.parametrize(
    "wrong", [lambda x: x[..., None].float(), lambda x: x.long(), lambda x: x + 1], ids=range(3)
)
def test_tokens_a_model_cannot_read(tokens, wrong):
    recipe, (x, y), validation = tokens
    with pytest.raises(DataError, match=r"needed int32 tokens \(n, length\) below 5"):
        SampleTask(recipe, (wrong(x), y), validation)
