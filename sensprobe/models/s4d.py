"""S4D: diagonal state space layers (Gu et al. 2022, arXiv 2206.11893), as a deployment runs them.

    encoder -> [norm] -> SSM -> GELU -> out_proj -> GLU -> [+ residual] -> [norm] -> … -> head

Weights are kept as the hardware keeps them, under the names of their sites: A is the discretised
A_bar = exp(dt A), B is B_bar = (A_bar - 1) / A · B (zero-order hold), so dt is not a weight here.
The recurrence is the truth; the convolution (`mode="fft"`) is the same function while the state is
exact, and refuses any other.

A head whose kernel was pruned has D alone, y = D x: A, B, C and the state have no row for it.

Shapes: b batch, l length, h heads (d_model), n complex pairs a head (d_state), k heads of a layer
that have a kernel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

from sensprobe.errors import UsageError
from sensprobe.models import frame, output_head
from sensprobe.models.family import ADDED, Earlier, Family, Pruning, deferred
from sensprobe.models.frame import Products, Shapes
from sensprobe.models.layouts import Layout
from sensprobe.plans.sites import Axis, Kind, Part, Site

CHOICES = {
    "norm": ("none", "pre", "post"),
    "activation": ("gelu", "qgelu"),
    "pooling": ("mean", "last"),
    "discretization": ("zoh", "bilinear", "none"),
}
ALL = "all"
_BY_KERNEL = ("log_dt", "log_A_real", "A_imag", "A", "B", "C")
"""The parameters, and the weights, that have a row for every kernel."""
_HEADS = re.compile("[0-9]{1,9}( [0-9]{1,9})*")


@dataclass(frozen=True, slots=True)
class S4DConfig:
    """Sizes and choices of an S4D classifier. `d_state` counts complex pairs a head."""

    d_input: int
    d_output: int
    d_model: int
    d_state: int
    layers: int = 1
    norm: str = "none"  # none | pre | post (LayerNorm before the SSM, or after the residual)
    residual: bool = True
    activation: str = "gelu"  # gelu | qgelu (x · min(max(0, x + 2), 1), arXiv 2506.12480)
    pooling: str = "mean"  # mean | last
    discretization: str = "zoh"  # zoh | bilinear | none (parameters are A_bar and B_bar themselves)
    head: str = output_head.DEFAULT  # its layers, see `output_head`
    # The heads that have a kernel, by layer: "all", or as "0 2 5, all, 1 3" says.
    kernels: str = field(default=ALL, metadata={ADDED: True})

    # What other families choose of the frame, and this one does not.
    encoder: ClassVar[str] = "linear"
    norm_kind: ClassVar[str] = "layer"
    norm_eps: ClassVar[float] = 1e-5  # PyTorch's own
    final_norm: ClassVar[bool] = False
    head_bias: ClassVar[bool] = True
    tied_head: ClassVar[bool] = False

    def __post_init__(self) -> None:
        output_head.normalise(self)
        frame.check(self, CHOICES)
        output_head.layers(self)
        _check_kernels(self)


def kernels(config: S4DConfig, layer: int) -> tuple[int, ...] | None:
    """The heads of a layer that have a kernel, in rising order; None where all of them have."""
    return None if config.kernels == ALL else _kernels(config.kernels)[layer]


def kernel_count(config: S4DConfig, layer: int) -> int:
    """The number of kernels of a layer."""
    found = kernels(config, layer)
    return config.d_model if found is None else len(found)


def kernel_layer(name: str) -> int | None:
    """The layer of a parameter or a weight that has a row for every kernel; None of any other."""
    at, _, own = name.rpartition(".")
    return int(at.split(".")[1]) if own in _BY_KERNEL else None


@cache
def _kernels(text: str) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(
        None if heads == ALL else tuple(map(int, heads.split())) for heads in text.split(", ")
    )


def _check_kernels(config: S4DConfig) -> None:
    """UsageError for kernels that the config cannot have, or does not write in its one way."""
    if config.kernels == ALL:
        return
    texts, h = config.kernels.split(", "), config.d_model
    if len(texts) != config.layers:
        raise UsageError(
            f"kernels lists the heads of {len(texts)} layer(s), and the model has {config.layers}."
        )
    for i, text in enumerate(texts):
        heads = list(map(int, text.split())) if _HEADS.fullmatch(text) else []
        rising = heads == sorted(set(heads)) and text == " ".join(map(str, heads))
        if text != ALL and not (heads and rising and heads[-1] < h and len(heads) < h):
            raise UsageError(
                f'kernels of layer {i} must be "all", or fewer heads than that, of 0 to {h - 1} in '
                f'rising order, as "0 2 5"; it is {text[:40]!r}.'
            )
    if set(texts) == {ALL}:
        raise UsageError('kernels must be "all" where every layer has all of them.')


@cache
def sites(config: S4DConfig) -> dict[str, Site]:
    """Every site of the model, in the order the forward pass meets them."""
    return frame.frame_sites(config, lambda at: _mixer_sites(at, config))


def _mixer_sites(at: str, config: S4DConfig) -> list[Site]:
    h, n, W, ACT = config.d_model, config.d_state, Kind.WEIGHT, Kind.ACTIVATION
    ssm = ((kernel_count(config, int(at.split(".")[1])), n), (Axis.HEAD, Axis.N), True)
    return [
        Site(at + "x", Part.X, ACT, (h,), (Axis.HEAD,)),
        Site(at + "A", Part.A, W, *ssm),
        Site(at + "B", Part.B, W, *ssm),
        Site(at + "state", Part.STATE, Kind.STATE, *ssm),
        Site(at + "C", Part.C, W, *ssm),
        Site(at + "D", Part.D, W, (h,), (Axis.HEAD,)),
        Site(at + "y", Part.Y, ACT, (h,), (Axis.HEAD,)),
        frame.vector(at + "out_proj_in", Part.OUT_PROJ_IN, h, ACT),
        *frame.biased(frame.matrix(at + "out_proj", Part.OUT_PROJ, 2 * h, h), True),
        frame.vector(at + "out_proj_out", Part.OUT_PROJ_OUT, 2 * h, ACT),
    ]


def products(config: S4DConfig) -> Products:
    """(weight, what it multiplies, multiplications a time step)."""
    h, n = config.d_model, config.d_state
    mixer = [
        ("A", "state", 4 * h * n),
        ("B", "x", 2 * h * n),
        ("C", "state", 2 * h * n),
        ("D", "x", h),
        ("out_proj", "out_proj_in", 2 * h * h),
    ]
    return [
        (
            name,
            operand,
            count if (i := kernel_layer(name)) is None else count // h * kernel_count(config, i),
        )
        for name, operand, count in frame.frame_products(config, mixer)
    ]


def parameter_shapes(config: S4DConfig) -> Shapes:
    """Name and shape of every trained parameter; complex ones are pairs of real numbers. What is
    not discretised here has A and B as they are stored, and no dt."""
    h, n = config.d_model, config.d_state
    continuous: Shapes = {"log_dt": (h,), "log_A_real": (h, n), "A_imag": (h, n)}
    mixer: Shapes = {
        **({"A": (h, n, 2)} if config.discretization == "none" else continuous),
        "B": (h, n, 2),
        "C": (h, n, 2),
        "D": (h,),
        "out_proj.weight": (2 * h, h),
        "out_proj.bias": (2 * h,),
    }
    if config.norm != "none":
        mixer |= {"norm.weight": (h,), "norm.bias": (h,)}
    return {
        name: shape if (i := kernel_layer(name)) is None else (kernel_count(config, i), *shape[1:])
        for name, shape in frame.frame_parameters(config, mixer).items()
    }


_NAMES = {
    "encoder.weight": "encoder.weight",
    "encoder.bias": "encoder.bias",
    "s4_layers.{i}.D": "layers.{i}.D",
    "s4_layers.{i}.kernel.C": "layers.{i}.C",
    "s4_layers.{i}.kernel.log_dt": "layers.{i}.log_dt",
    "s4_layers.{i}.kernel.log_A_real": "layers.{i}.log_A_real",
    "s4_layers.{i}.kernel.A_imag": "layers.{i}.A_imag",
    "s4_layers.{i}.output_linear.0.weight": "layers.{i}.out_proj.weight",
    "s4_layers.{i}.output_linear.0.bias": "layers.{i}.out_proj.bias",
    "norms.{i}.weight": "layers.{i}.norm.weight",
    "norms.{i}.bias": "layers.{i}.norm.bias",
}


_LAYERS = "sensprobe.models.s4d_layers"
FAMILY = Family(
    name="s4d",
    config=S4DConfig,
    sites=sites,
    products=products,
    parameter_shapes=parameter_shapes,
    deploy=deferred(_LAYERS, "deploy"),
    initial=deferred(_LAYERS, "initial"),
    discretized=deferred(_LAYERS, "discretized"),
    model=deferred(_LAYERS, "S4D"),
    lower=deferred("sensprobe.models.lowering.s4d", "lower"),
    precision="float64",
    exact_mode="fft",
    layouts=(
        Layout(
            package="s4",
            kind="s4d",
            read=lambda around, given: S4DConfig(**around, residual=True),
            names=_NAMES,
        ),
    ),
    pruning=Pruning(
        *(deferred(_LAYERS, name) for name in ("shares", "kept", "kept_kernels", "unread"))
    ),
    earlier=Earlier(
        "d_input d_output d_model d_state layers norm residual activation pooling discretization",
        deferred(_LAYERS, "earlier_weights"),
    ),
)
