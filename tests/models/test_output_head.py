"""Heads of several layers, and the model's input: read as PyTorch has them, and addressed by plans.

That every family runs them, and that each site is reached and matters, the contract of models shows
(`builders.CONFIGS`, `selective.MAMBAS`, `selective.MAMBA2S` have some).
"""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from builders import PLAIN, inputs, tiny, vector
from packed_memory import CONFIGS as PACKED
from selective import MAMBA2S, MAMBAS
from selective import tiny as selective
from sequential import modules
from torch import Tensor, nn

from sensprobe import load
from sensprobe.checkpoints import read_checkpoint
from sensprobe.checkpoints.identity import fingerprint
from sensprobe.errors import SensprobeError, UsageError
from sensprobe.export import export_model, load_artefact
from sensprobe.models import family_of, output_head
from sensprobe.models.apply import Applier, observe
from sensprobe.numerics.taps import rounded
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import adapted
from sensprobe.plans.presets import PRESETS
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind

HEAD = ["linear 5", "layer norm", "ReLU", "dropout 0.1", "linear"]
DOCUMENT = """
file = "w.pt"
family = "mamba"
keys = { "linear_in.*" = "encoder.*", "mamba.conv1d.*" = "layers.0.conv.*", "mamba.*" = "layers.0.*", "classifier.*" = "head.*" }
[config]
d_input = 2
d_output = 3
d_model = 8
d_state = 3
dt_rank = 2
norm = "none"
residual = false
final_norm = false
"""  # noqa: E501


class Mixer(nn.Module):
    """Mamba's block in plain PyTorch, by the names of mamba_ssm."""

    def __init__(self, h: int, n: int, r: int) -> None:
        super().__init__()
        d = 2 * h
        self.in_proj = nn.Linear(h, 2 * d, bias=False)
        self.conv1d = nn.Conv1d(d, d, 4, groups=d, padding=3)
        self.x_proj = nn.Linear(d, r + 2 * n, bias=False)
        self.dt_proj = nn.Linear(r, d)
        self.A_log = nn.Parameter(torch.arange(1.0, n + 1).log().repeat(d, 1))
        self.D = nn.Parameter(torch.ones(d))
        self.out_proj = nn.Linear(d, h, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        x, z = self.in_proj(u).chunk(2, -1)
        x = F.silu(self.conv1d(x.mT)[..., : u.shape[1]].mT)
        n = self.A_log.shape[1]
        low, B, C = self.x_proj(x).split([self.x_proj.out_features - 2 * n, n, n], -1)
        dt, A = F.softplus(self.dt_proj(low)), -self.A_log.exp()
        state, y = torch.zeros(len(u), *A.shape), []
        for t in range(u.shape[1]):
            drive = (dt[:, t] * x[:, t])[..., None] * B[:, t, None]
            state = (dt[:, t, :, None] * A).exp() * state + drive
            y.append((state * C[:, t, None]).sum(-1) + self.D * x[:, t])
        return self.out_proj(torch.stack(y, 1) * F.silu(z))


class Classifier(nn.Module):
    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.linear_in, self.mamba = nn.Linear(2, 8), Mixer(8, 3, 2)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.mamba(self.linear_in(x)).mean(1))


@pytest.mark.parametrize(
    ("head", "classifier"),
    [
        (
            '["linear 16", "relu", "dropout", "linear"]',
            lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)),
        ),
        (
            '["layer norm", "linear 5", "gelu", "linear 3"]',
            lambda: nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 5), nn.GELU(), nn.Linear(5, 3)),
        ),
        (
            '"dropout, rms norm 1e-3, linear 6 without bias, silu, linear"',
            lambda: nn.Sequential(
                nn.Dropout(0.5), nn.RMSNorm(8, 1e-3), nn.Linear(8, 6, bias=False), nn.SiLU(),
                nn.Linear(6, 3),
            ),
        ),
    ],
)  # fmt: skip
def test_a_classifier_of_pytorch_gives_its_own_outputs(head, classifier, tmp_path):
    torch.manual_seed(3)
    theirs = Classifier(classifier())
    with torch.no_grad():
        for p in theirs.parameters():  # norms start from ones: a misplaced one would not show
            p.add_(0.1 * torch.randn_like(p))
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    path = tmp_path / "model.toml"
    path.write_text(f"{DOCUMENT}head = {head}\n")
    model, _ = read_checkpoint(path)
    x = vector(4, 9, 2, dtype=torch.float32)
    with torch.no_grad():
        want = theirs.eval()(x)
    assert (model(x) - want).abs().max() <= 64 * 2.0**-24 * want.abs().max().clamp(min=1)


# -- what a config says ---------------------------------------------------------------------------


def test_a_list_and_a_text_are_one_head():
    listed = replace(PLAIN, head=HEAD)
    assert listed == replace(PLAIN, head="Linear 5,  layer NORM,relu, dropout, linear 3")
    assert listed.head == "linear 5, layer norm, relu, dropout, linear"
    assert PLAIN.head == "linear" == replace(PLAIN, head=["linear 3"]).head
    assert asdict(listed)["head"] == listed.head


def test_a_head_is_part_of_what_a_model_is():
    """With the same weights: functions have none."""
    relu, silu = (replace(PLAIN, head=["linear 5", name, "linear"]) for name in ("relu", "silu"))
    weights = tiny(relu).weights
    assert fingerprint("s4d", relu, weights) != fingerprint("s4d", silu, weights)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (["linear 5", "tanh", "linear"], '"tanh" is no layer of a head; known are "linear 64"'),
        (["linear", "relu", "linear"], '"linear" must say to how many values it maps'),
        (["linear 0", "linear"], '"linear 0" must say to how many values'),
        (["linear 5"], 'head ends in "linear 5", and d_output is 3'),
        (["linear", "relu"], 'must end in "linear"'),
        (["dropout"], 'must end in "linear"'),
        ([], "is no layer of a head"),
        (["layer norm .", "linear"], '"layer norm ." is no layer'),
        (["linear 5"] * 65, "has 65 layers; at most 64"),
        (["linear 99999999999", "linear"], "is no layer"),
        (3, "head is 3, not str"),
        ([3], "head is [3], not str"),
    ],
)
def test_a_head_that_means_nothing_is_refused(head, says):
    for config in (PLAIN, MAMBAS["bare"]):
        with pytest.raises(SensprobeError) as error:
            replace(config, head=head)
        assert says in str(error.value)


def test_a_tied_head_is_one_linear_map():
    with pytest.raises(UsageError, match="a tied head is one linear map"):
        replace(MAMBA2S["tied"], head=HEAD)


def test_training_starts_a_head_of_several_layers():
    config = replace(PLAIN, head=HEAD)
    started = family_of(config).initial(config, (0.001, 0.1), 0)
    assert {n: tuple(p.shape) for n, p in started.items() if n.startswith("head.")} == {
        "head.0.weight": (5, 4),
        "head.0.bias": (5,),
        "head.1.weight": (5,),
        "head.1.bias": (5,),
        "head.4.weight": (3, 5),
        "head.4.bias": (3,),
    }
    want = modules(config).state_dict()
    assert all(tuple(started[f"head.{n}"].shape) == tuple(p.shape) for n, p in want.items())


# -- in plans -------------------------------------------------------------------------------------


def test_sites_of_a_head_are_numbered_as_its_layers():
    found = {
        s.name: (str(s.part), s.full_bytes) for s in output_head.sites(replace(PLAIN, head=HEAD))
    }
    assert found == {
        "head_in": ("head_in", 0),
        "head.0": ("head", 80),
        "head.0.bias": ("bias", 20),
        "head.1.norm": ("norm", 20),
        "head.1.norm.bias": ("bias", 20),
        "head.4_in": ("head_in", 0),
        "head.4": ("head", 60),
        "head.4.bias": ("bias", 12),
    }


def test_bit_operations_count_every_map_and_the_input():
    model = tiny(replace(PLAIN, head=HEAD))
    sites, exact = model.sites.values(), cost(model.sites.values(), {}, model.products)
    one = cost(tiny().sites.values(), {}, tiny().products)
    assert exact.bit_operations - one.bit_operations == 32 * 32 * (4 * 5 + 5 * 3 - 4 * 3)
    fewer = {"head.4": parse("int8"), "head.4_in": parse("int4/dynamic")}
    fewer |= {"input": parse("int8/dynamic")}
    saved = (32 * 32 - 8 * 4) * 15 + 32 * (32 - 8) * 4
    assert exact.bit_operations - cost(sites, fewer, model.products).bit_operations == saved


@pytest.mark.parametrize("config", [PLAIN, MAMBAS["bare"]], ids=["s4d", "mamba"])
@pytest.mark.parametrize("scheme", ["int4/dynamic", "int5/asym", "e4m3/range2"])
def test_a_rounded_input_is_what_was_given_rounded(config, scheme):
    model = tiny(config) if config is PLAIN else selective(config)
    x, site = inputs(config), model.sites["input"]
    assert next(iter(model.sites)) == "input"
    applier, plan = Applier(model, observe(model, x)), {"input": parse(scheme)}
    tap = applier.tap(plan)
    given = rounded(x, plan["input"], site, tap.scales.get("input"), None)
    assert not torch.equal(given, x)
    assert torch.equal(model(x, tap), model(given))


def test_tokens_are_no_input_to_round():
    assert "input" not in selective(MAMBAS["tokens"]).sites


def test_presets_round_heads_of_several_layers():
    model = selective(replace(MAMBAS["bare"], head=HEAD))
    plan = PRESETS["w8a8"].plan("mamba", model.sites.values()).resolve(model.sites.values())
    sites = model.sites.items()
    assert {n for n, s in sites if s.kind is Kind.WEIGHT} <= plan.keys()
    assert {str(plan[n]) for n in ("head.0", "head.4", "head_in", "head.4_in")} == {"int8"}
    assert str(plan["head.1.norm"]) == "fp16"
    assert "input" not in plan


@pytest.mark.parametrize("family", ["s4d", "mamba", "mamba2"])
def test_an_export_streams_what_was_simulated(family, tmp_path):
    """Every site of head and input rounded: bytes as the cost says, outputs to the bit, and steps
    from packed memory as simulated."""
    model = {
        "s4d": lambda: tiny(replace(PLAIN, head=HEAD)),
        "mamba": lambda: selective(PACKED["bare"]),
        "mamba2": lambda: selective(PACKED["groups"]),
    }[family]()
    x = inputs(model.config)
    chosen = [s for s in model.sites.values() if s.name.startswith(("head", "input", "encoder"))]
    rules = [
        (s.name, parse("int8/dynamic/channel" if s.kind is Kind.WEIGHT else "int8")) for s in chosen
    ]
    plan = adapted(rules, chosen).resolve(model.sites.values())
    applier = Applier(model, observe(model, x))
    written = export_model(model, plan, applier, tmp_path, name="mine")
    assert written.weight_bytes == cost(model.sites.values(), plan).weight_bytes
    again = load_artefact(tmp_path)
    assert again.model.config == model.config
    assert torch.equal(again.model(x, again.tap), model(x, applier.tap(plan)))
    streamed, tap = load(tmp_path), applier.tap(plan)
    assert streamed.packed
    assert streamed.weight_bytes == written.weight_bytes
    state, simulated = streamed.start(len(x)), model.start(len(x), tap)
    for step in x.unbind(1):
        got, state = streamed.step(step, state)
        want, simulated = model.step(step, simulated, tap)
        # A sum in another order may round to the other code of an activation.
        assert (got - want).abs().max() <= 0.05 * want.abs().max()
