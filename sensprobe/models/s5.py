"""S5: one diagonal state space with many inputs and outputs (Smith et al. 2023, arXiv 2208.04933).

    encoder -> { [norm] -> SSM -> GELU -> gate -> [+ residual] -> [norm] } … -> pool -> head

    x_k = A_bar x_{k-1} + B_bar u_k,   y_k = 2 Re(C x_k) + D u_k

Where S4D has a small recurrence for every channel, S5 has one that all channels drive and read.
Weights are kept as the hardware keeps them, under the names of their sites: A is A_bar = exp(dt A),
B is B_bar = (A_bar - 1) / A · B (zero-order hold), so dt is not a weight here. B and C are matrices
of real numbers, as a device multiplies by them: a mode has two rows of B, of its real and its
imaginary part, and two columns of C, which hold 2 Re C and -2 Im C.

Shapes: b batch, l length, h channels (d_model), n complex modes (d_state). A real system keeps one
mode of each conjugate pair, so n is half of the paper's P. Modes come in `blocks`, as the paper
initialises them, which are the heads of A and the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from sensprobe.errors import UsageError
from sensprobe.models import frame
from sensprobe.models.family import Family, Pruning, deferred
from sensprobe.models.frame import FrameConfig, Products, Shapes
from sensprobe.models.layouts import Layout
from sensprobe.plans.sites import Axis, Kind, Part, Site

CHOICES = {
    "gate": ("full", "half1", "half2", "none"),
    "activation": ("gelu", "gelu-tanh", "qgelu", "qgelu4"),
    "sigmoid": ("exact", "hard"),
    "discretization": ("zoh", "bilinear", "none"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class S5Config(FrameConfig):
    """Sizes and choices of an S5 model. `d_state` counts the complex modes that are kept."""

    d_state: int
    blocks: int = 1  # of modes, each initialised by a HiPPO matrix of its own
    conjugate: bool = True  # a mode stands for itself and its conjugate
    bidirectional: bool = False  # a second state runs from the end; no streaming
    activation: str = "gelu"  # gelu | gelu-tanh (JAX's) | qgelu, qgelu4: see `s5_layers`
    gate: str = "full"  # full: a sigmoid(b); half1: g sigmoid(W g); half2: y sigmoid(W g); none: g
    sigmoid: str = "exact"  # of the gate: exact | hard (min(max(0, x + 3), 6) / 6)
    discretization: str = "zoh"  # zoh | bilinear | none (parameters are A_bar and B_bar themselves)
    clip_eigs: bool = False  # the real part of A is at most -1e-4
    norm_kind: str = "layer"
    norm_eps: float = 1e-6  # flax's own
    final_norm: bool = False

    def __post_init__(self) -> None:
        FrameConfig.__post_init__(self)
        frame.check(self, {**frame.CHOICES, **CHOICES})
        if self.bidirectional and self.pooling == "none":
            raise UsageError(
                "a bidirectional model reads what follows, so its output at a step would know what "
                "it is to tell: pooling must be mean or last."
            )
        if self.d_state % self.blocks:
            raise UsageError(
                f"d_state {self.d_state} cannot be cut into {self.blocks} blocks of equal size."
            )

    @property
    def modes(self) -> tuple[int, int]:
        """The shape of A and of a state: blocks, and the modes of each."""
        return self.blocks, self.d_state // self.blocks

    @property
    def directions(self) -> tuple[str, ...]:
        """The names of a layer's states."""
        return ("state", "state_back") if self.bidirectional else ("state",)

    @property
    def gated(self) -> int:
        """Rows of the gate's linear map; 0 where there is none."""
        return {"full": 2 * self.d_model, "none": 0}.get(self.gate, self.d_model)


@cache
def sites(config: S5Config) -> dict[str, Site]:
    """Every site of the model, in the order the forward pass meets them."""
    return frame.frame_sites(config, lambda at: _mixer_sites(at, config))


def _mixer_sites(at: str, config: S5Config) -> list[Site]:
    h, n, W, ACT = config.d_model, config.d_state, Kind.WEIGHT, Kind.ACTIVATION
    modes = (config.modes, (Axis.HEAD, Axis.N), True)
    read = 2 * n * len(config.directions)
    found = [
        frame.vector(at + "x", Part.X, h, ACT),
        frame.matrix(at + "B", Part.B, 2 * n, h),
        Site(at + "A", Part.A, W, *modes),
        *(Site(at + name, Part.STATE, Kind.STATE, *modes) for name in config.directions),
        Site(at + "C", Part.C, W, (h, read), (Axis.OUT, Axis.N)),
        frame.vector(at + "D", Part.D, h),
        frame.vector(at + "y", Part.Y, h, ACT),
        frame.vector(at + "out_proj_in", Part.OUT_PROJ_IN, h, ACT),
    ]
    if rows := config.gated:
        found += frame.biased(frame.matrix(at + "out_proj", Part.OUT_PROJ, rows, h), True)
        found.append(frame.vector(at + "out_proj_out", Part.OUT_PROJ_OUT, rows, ACT))
    return found


def products(config: S5Config) -> Products:
    """(weight, what it multiplies, multiplications a time step)."""
    h, n = config.d_model, config.d_state
    mixer = [("B", "x", 2 * n * h), ("D", "x", h)]
    for name in config.directions:
        mixer += [("A", name, 4 * n), ("C", name, 2 * n * h)]
    if config.gated:
        mixer.append(("out_proj", "out_proj_in", config.gated * h))
    return frame.frame_products(config, mixer)


def parameter_shapes(config: S5Config) -> Shapes:
    """Name and shape of every trained parameter; complex ones are pairs of real numbers. What is
    not discretised here has A and B as they are stored, and no dt."""
    h, n = config.d_model, config.d_state
    continuous: Shapes = {"log_dt": (n,), "A_real": (n,), "A_imag": (n,)}
    mixer: Shapes = {
        **({"A": (n, 2)} if config.discretization == "none" else continuous),
        "B": (n, h, 2),
        "C": (h, n * len(config.directions), 2),
        "D": (h,),
    }
    if rows := config.gated:
        mixer |= {"out_proj.weight": (rows, h), "out_proj.bias": (rows,)}
    return frame.frame_parameters(config, mixer)


_LAYERS = "sensprobe.models.s5_layers"
FAMILY = Family(
    name="s5",
    config=S5Config,
    sites=sites,
    products=products,
    parameter_shapes=parameter_shapes,
    deploy=deferred(_LAYERS, "deploy"),
    initial=deferred(_LAYERS, "initial"),
    discretized=deferred(_LAYERS, "discretized"),
    model=deferred(_LAYERS, "S5"),
    lower=deferred("sensprobe.models.lowering.s5", "lower"),
    layouts=(
        Layout(
            package="lindermanlab/S5",
            kind="classification",
            read=lambda around, given: S5Config(**{**around, **given}),
        ),
    ),
    pruning=Pruning(deferred(_LAYERS, "shares"), deferred(_LAYERS, "kept")),
    precision="float64",
)
