"""Presets: published methods as plans, with their source and where ours differ.

A preset is data: for each family an ordered list of (pattern, scheme), later ones overriding
earlier ones. Patterns that name nothing in a model (its head is tied, its norm has no bias) are
passed over, and a scheme is fitted to each tensor as `--scheme` is (`fitting.adapt`), with one
exception: a tensor that cannot be rotated is an error, for rotation is what the preset is about.

    sensprobe presets                                       what there is, from where
    sensprobe eval MODEL --data DATA --plan quamba
    sensprobe eval MODEL --data DATA --plan quamba --set 'layers.*.x=int8/p99.95'

What "W8A8" leaves open is settled the same way in all of them: norms and biases are float16, the
residual stream and the decay exp(dt A) are exact, dt is rounded after its softplus and A after its
exponential (published code rounds both before), numbers given to an encoder are exact, and every
block of in_proj and of x_proj has scales of its own (published code often has one for the whole
matrix). None of these simulations uses integer arithmetic in the recurrence. Calibration is on the
data set's own calibration split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches

from sensprobe.errors import PlanError, SchemeError
from sensprobe.plans.fitting import adapt, check
from sensprobe.plans.plan import Plan
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.plans.sites import Axis, Part, Site, matching

Entries = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Preset:
    """One preset. `schemes`: family -> (pattern, scheme) in order."""

    name: str
    about: str  # what it does, in a line
    source: str  # paper and code
    differs: str  # how ours departs from what was published
    schemes: Mapping[str, Entries]

    def plan(self, family: str, sites: Iterable[Site]) -> Plan:
        """The plan for a model: an entry a site. PlanError for a family it is not for."""
        if family not in self.schemes:
            raise PlanError(
                f"preset {self.name} is for {' and '.join(self.schemes)} models, and this one is "
                f"{family}. Say yourself which tensors to round, as in --set '*.A=int8/head/asym'."
            )
        sites = list(sites)
        chosen: dict[str, Scheme] = {}
        for pattern, text in self.schemes[family]:
            chosen |= {s.name: _fitted(parse(text), s) for s in matching(pattern, sites)}
        return Plan(tuple(chosen.items()), self.name)


def _fitted(scheme: Scheme, site: Site) -> Scheme:
    fitted = adapt(scheme, site)
    if scheme.hadamard and not fitted.hadamard:
        check(scheme, site)
    return fitted


def _all(patterns: str, scheme: str) -> Entries:
    """Each of some patterns, named without what every layer's begin with, in one scheme."""
    outside = ("encoder", "embedding", "*.bias", "*.norm_in", "*.norm_factor")
    named = ((p,) if p in outside else _HEAD.get(p, (f"layers.*.{p}",)) for p in patterns.split())
    return tuple((pattern, scheme) for found in named for pattern in found)


_HEAD = {
    "head": ("head", "head.*[0-9]"),
    "head_in": ("head*_in",),
    "final.norm": ("final.norm", "head.*.norm"),
}
"""Patterns that name a head's sites too where it has several layers."""


_MIXER = "in_proj.* x_proj.* dt_proj out_proj"
_TABLES = "encoder embedding head"
_SMALL = "conv A D"
_ACTIVATIONS = "in_proj_in z conv_in x dt_proj_in dt B C out_proj_in"
_HALF = _all("norm gated_norm final.norm *.bias", "fp16")
_BOTH = ("mamba", "mamba2")


_W8A8: Entries = (
    *_all(f"{_TABLES} {_MIXER} {_SMALL}", "int8"),
    *_all(f"{_ACTIVATIONS} head_in conv_state", "int8"),
    *_all("state", "fp16"),
    *_HALF,
)
_W4A8: Entries = (*_W8A8, *_all(f"{_TABLES} {_MIXER}", "int4/group128"), *_HALF)
_W4A16: Entries = (
    *_all(f"{_TABLES} {_MIXER}", "int4/group128"),
    *_all(f"{_SMALL} {_ACTIVATIONS} head_in conv_state state", "fp16"),
    *_HALF,
)
_QUAMBA: Entries = (
    *_all(f"{_MIXER} {_SMALL} {_ACTIVATIONS} conv_state", "int8"),
    *_all("x", "int8/p99.999"),
    *_all("out_proj out_proj_in", "int8/hadamard"),
    *_all(f"{_TABLES} state", "fp16"),
    *_HALF,
)
_QUAMBA2: Entries = (  # but for x and the state, and B and C of Mamba-2
    *_all(f"{_SMALL} {_ACTIVATIONS} head_in conv_state", "int8"),
    *_all("embedding", "int4/channel/hadamard"),
    *_all("head", "int4/group128/gptq"),
    *_all("encoder", "fp16"),
    *_all("x_proj.* dt_proj", "int4/group128/gptq"),
    *_all("in_proj.* out_proj", "int4/group128/hadamard/gptq"),
    *_all("in_proj_in out_proj_in", "int8/hadamard"),
    *_HALF,
)
_QMAMBA: Entries = (
    *_all(f"{_TABLES} {_MIXER} {_SMALL}", "int8/channel"),
    *_all(f"{_ACTIVATIONS} head_in conv_state", "int8/dynamic"),
    *_all("state", "int4/decoupled"),
    *_HALF,
)


def _qs5(name: str, matrices: int, ssm: int, A: int, about: str) -> Preset:
    """One configuration of Q-S5: bits of the maps around the SSM, of B, C and D, and of A."""
    entries = (
        *_all("encoder embedding out_proj head", f"int{matrices}"),
        *_all("B C D", f"int{ssm}"),
        *_all("A", f"int{A}"),
        *_all("*.norm_in *.norm_factor x y out_proj_in out_proj_out head_in", "int8"),
        *_all("state", "int8/dynamic"),
        *_HALF,
    )
    return Preset(
        name,
        about,
        "Q-S5, arXiv 2406.09477, table of post-training quantization; github.com/kmheckel/Q-S5",
        "The original scans associatively and rounds products inside the tree, so that the state's "
        "error is not fed back; here the state is rounded at every step, by a range of its own "
        "then. Its activations have dynamic ranges, of a step in the SSM and of a sequence around "
        "it, ours the range of the calibration split. A and B are rounded discretised, as a device "
        "holds them. Its quantized LayerNorm and its qGELU are a model's norm_kind layer-product "
        "and activation qgelu4; of another norm the scale is float16. What qGELU and the gate "
        "multiply is not rounded beforehand.",
        {"s5": entries},
    )


_UNIFORM = "what papers compare with; the bit widths are those of Quamba2, arXiv 2503.22879"

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "w8a8",
            "weights and what they multiply int8, one static scale a tensor; the state float16",
            _UNIFORM,
            "Static scales a tensor throughout, as in Quamba's own baseline: what its two remedies "
            "are measured against.",
            dict.fromkeys(_BOTH, _W8A8),
        ),
        Preset(
            "w4a16",
            "matrices int4 in groups of 128 along their inputs; all else float16",
            _UNIFORM,
            "Rounds to nearest; say gptq with --set for Quamba2's. Its embedding and head are "
            "4-bit too.",
            dict.fromkeys(_BOTH, _W4A16),
        ),
        Preset(
            "w4a8",
            "matrices int4 in groups of 128, A, D, convolution and activations int8; the state "
            "float16",
            _UNIFORM,
            "Rounds to nearest, and neither clips nor rotates. Its embedding and head are 4-bit "
            "too.",
            dict.fromkeys(_BOTH, _W4A8),
        ),
        Preset(
            "quamba",
            "static int8 a tensor; SSM input x clipped at a percentile; what out_proj reads "
            "rotated by a Hadamard transform folded into it",
            "Quamba, arXiv 2410.13229, its method section; github.com/enyac-group/Quamba, "
            "quamba/modelutils_mamba.py",
            "x is clipped at 99.999 %, which the authors' code advises for models of 130M and "
            "smaller; it takes 99.95 % for larger ones (--set 'layers.*.x=int8/p99.95'). The "
            "percentile is over the calibration set as a whole. A rotation of 2^k, 12·2^k or "
            "20·2^k is whole, others are in blocks. The state is float16, as published; the code "
            "now has an 8-bit one too. Mamba-2 is in the code, not in the paper.",
            dict.fromkeys(_BOTH, _QUAMBA),
        ),
        Preset(
            "quamba2",
            "W4A8: int4 in groups of 128 by GPTQ; on Mamba-2 a scale for B and C a state group and "
            "for x a channel; 8-bit state; in_proj and out_proj rotated",
            "Quamba2, arXiv 2503.22879, sort-and-cluster and per-state-group quantization; "
            "github.com/enyac-group/Quamba, quamba/modelutils_mamba.py, quamba/reorder_utils.py",
            "x and the state have a scale a channel of a head where Quamba2 sorts heads and "
            "channels and shares a scale a cluster: finer, and it stores more scales. On Mamba "
            "x and the state are clipped at a percentile and B and C have one scale, as the "
            "authors' code does there. The norm's scale is not folded into in_proj before it is "
            "rotated, and out_proj is rotated on the side it reads alone. GPTQ sees the inputs of "
            "the full-precision model, the authors' those of one whose earlier layers are rounded. "
            "The embedding, which a tied head shares, is rounded to nearest.",
            {
                "mamba": (*_QUAMBA2, *_all("x state", "int8/p99.999")),
                "mamba2": (*_QUAMBA2, *_all("x B C state", "int8/channel")),
            },
        ),
        Preset(
            "qmamba",
            "W8A8H4: weights and activations int8, the state int4 with decoupled scales",
            "Q-Mamba, Findings of ACL 2025, aclanthology.org/2025.findings-acl.551, abstract",
            "Only the abstract was at hand: a state element's scale is one of its channel times "
            "one of its state dimension, as it says; that both come from extremes on the "
            "calibration data is ours. Its block-wise reconstruction, which trains, is left out. "
            "Weights have a scale a row, activations one a time step.",
            dict.fromkeys(_BOTH, _QMAMBA),
        ),
        _qs5("qs5-w8a8", 8, 8, 8, "weights, activations and the state int8, a scale a tensor"),
        _qs5("qs5-w4a8-wssm8", 4, 8, 8, "A, B, C and D int8, other weights int4, all else int8"),
        _qs5("qs5-w4a8-wa8", 4, 4, 8, "A int8, other weights int4, activations and the state int8"),
        _qs5("qs5-w4a8", 4, 4, 4, "weights int4, activations and the state int8"),
        _qs5("qs5-w2a8-wssm8", 2, 8, 8, "A, B, C and D int8, other weights int2, all else int8"),
    )
}
"""Every preset by name."""


def family_by_sites(sites: Iterable[Site]) -> str:
    """The family of the models with such sites, which is what a run keeps of one; "" of others."""
    sites = list(sites)
    parts, axes = {s.part for s in sites}, {s.axes for s in sites if s.part is Part.B}
    if Part.X_PROJ_B in parts:
        return "mamba"
    if Part.IN_PROJ_B in parts:
        return "mamba2"
    return "s5" if (Axis.OUT, Axis.IN) in axes else "s4d" if (Axis.HEAD, Axis.N) in axes else ""


def selective(sites: Iterable[Site]) -> bool:
    """Whether models with such sites are those that the runtimes of `export --for` serve."""
    return family_by_sites(sites) in ("mamba", "mamba2")


def presets_for(sites: Sequence[Site]) -> dict[str, Plan]:
    """Name -> plan of every preset for the family of models with such sites; one that does not fit
    the model is left out."""
    family, out = family_by_sites(sites), dict[str, Plan]()
    for name, preset in PRESETS.items():
        with suppress(PlanError, SchemeError):
            out[name] = preset.plan(family, sites)
    return out


def unknown(name: str) -> str:
    """The error's text for a name that is neither a preset nor a file."""
    near = get_close_matches(name, PRESETS, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return (
        f"no plan {name!r}: no preset has that name and there is no such file.{hint} Presets: "
        f"{', '.join(PRESETS)} (`sensprobe presets` says what they are). A plan file is JSON; "
        "`sensprobe search` writes each plan it chooses to RUN/plans."
    )
