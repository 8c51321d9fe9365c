"""The forward pass of S5, and its weights as a deployment keeps them (see `s5`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe import ops
from sensprobe.errors import UnsupportedError
from sensprobe.models import forward, frame, s5
from sensprobe.models.discretize import discretize
from sensprobe.models.forward import At, Carries
from sensprobe.models.framed import Framed, Replay
from sensprobe.models.initial import drawn, log_steps
from sensprobe.models.s5 import S5Config
from sensprobe.numerics.arithmetic import exp, joined, magnitude
from sensprobe.numerics.storage import Carry
from sensprobe.numerics.taps import EXACT, Tap, single
from sensprobe.ops.modal_scan import associative

MODES = ("recurrent", "associative")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu-tanh": lambda y: F.gelu(y, approximate="tanh"),
    "qgelu": lambda y: y * (y + 2).clamp(0, 1),  # x · min(max(0, x + 2), 1), arXiv 2506.12480
    "qgelu4": lambda y: y * (y + 2).clamp(0, 4) / 4,  # as Q-S5's code has it, arXiv 2406.09477
}
_BY_MODE = ("log_dt", "A_real", "A_imag", "A", "B", "C")
"""The parameters that have numbers for every mode."""
LARGEST_REAL = -1e-4
"""The largest real part of A under `clip_eigs`."""


def deploy(params: Mapping[str, Tensor], config: S5Config) -> dict[str, Tensor]:
    """Trained parameters (own checkpoint names) -> weights by site name, in params' precision.

    Differentiable, so that training runs the deployed forward.
    """
    weights = frame.frame_weights(params, config)
    for i in range(config.layers):
        at = f"layers.{i}."
        A_bar, B_bar = _discrete(params, at, config)
        C = params[at + "C"]
        of_pair = C.new_tensor([1.0, -1.0]) * (2 if config.conjugate else 1)
        weights |= {
            at + "A": A_bar.reshape(config.modes),
            at + "B": torch.view_as_real(B_bar).transpose(1, 2).flatten(0, 1),  # (2n, h)
            at + "C": (C * of_pair).flatten(1),  # (h, 2n), or (h, 4n)
            at + "D": params[at + "D"],
        }
        if config.gated:
            weights |= {
                at + "out_proj": params[at + "out_proj.weight"],
                at + "out_proj.bias": params[at + "out_proj.bias"],
            }
    return weights


def _discrete(params: Mapping[str, Tensor], at: str, config: S5Config) -> tuple[Tensor, Tensor]:
    """A_bar (n, 1) and B_bar (n, h) of one layer."""
    B = torch.view_as_complex(params[at + "B"])
    if config.discretization == "none":
        return torch.view_as_complex(params[at + "A"])[:, None], B
    real = params[at + "A_real"]
    real = real.clamp(max=LARGEST_REAL) if config.clip_eigs else real
    A = joined((real, params[at + "A_imag"]))[:, None]
    return discretize(A, B, exp(params[at + "log_dt"]), config.discretization)


def discretized(
    params: Mapping[str, Tensor], config: S5Config
) -> tuple[dict[str, Tensor], S5Config]:
    """The parameters and the config of the same model with A_bar and B_bar as parameters, to
    float32's rounding."""
    found = replace(config, discretization="none")
    out = {name: params[name] for name in s5.parameter_shapes(found) if name in params}
    for i in range(config.layers):
        at = f"layers.{i}."
        A_bar, B_bar = _discrete({k: p.double() for k, p in params.items()}, at, config)
        out[at + "A"] = torch.view_as_real(A_bar[:, 0]).float()
        out[at + "B"] = torch.view_as_real(B_bar).float()
    return {name: out[name] for name in s5.parameter_shapes(found)}, found


def shares(product: Tensor, config: S5Config) -> Tensor:
    """Numbers of the shape of C (h, 2n), or (h, 4n), added up to one for each mode: A's shape."""
    return product.view(len(product), -1, *config.modes, 2).sum((0, 1, 4))


def kept(
    params: Mapping[str, Tensor], config: S5Config, chosen: Sequence[Tensor]
) -> tuple[dict[str, Tensor], S5Config]:
    """The parameters and the config of the model with the modes of every block that are chosen."""
    found = replace(config, d_state=chosen[0].numel())
    first = torch.arange(config.blocks)[:, None] * config.modes[1]

    def one(name: str, p: Tensor) -> Tensor:
        own = name.rpartition(".")[2]
        if not name.startswith("layers.") or own not in _BY_MODE:
            return p
        modes = (chosen[int(name.split(".")[1])] + first).flatten()
        if own != "C":
            return p[modes]
        ways = range(len(config.directions))
        return torch.cat([p[:, modes + k * config.d_state] for k in ways], 1)

    return {name: one(name, p) for name, p in params.items()}, found


# -- initial values -------------------------------------------------------------------------------


def hippo(size: int, kept: int) -> tuple[Tensor, Tensor]:
    """The first `kept` eigenvalues and eigenvectors of the normal part of HiPPO-LegS, imaginary
    parts downward from the largest: (kept,) and (size, kept), complex128.

    A = -½ I + the skew part of -√(2n + 1) √(2k + 1) (Gu et al. 2022, arXiv 2206.11893, section 4).
    Each eigenvector's first number is real and positive, so that machines agree but for the last
    bits of float64.
    """
    root = torch.sqrt(1 + 2 * torch.arange(size, dtype=torch.float64))
    below = torch.tril(root[:, None] * root, -1) / 2
    found, vectors = torch.linalg.eigh(-1j * (below.mT - below))
    found, vectors = found.flip(0)[:kept], vectors.flip(1)[:, :kept]
    vectors = vectors * (vectors[0].abs() / vectors[0])
    return torch.complex(torch.full_like(found, -0.5), found), vectors


def initial(config: S5Config, dt: tuple[float, float], seed: int) -> dict[str, Tensor]:
    """The parameters that training starts from, as lindermanlab/S5 has them by default: A
    block-diagonal of HiPPO-N matrices, B and both parts of C normal of variance 1 / P and in the
    eigenvectors' basis, where P counts all modes and their conjugates, D normal, and log dt uniform
    between dt's ends."""
    if config.discretization == "none":
        continuous = replace(config, discretization="zoh")
        return discretized(initial(continuous, dt, seed), continuous)[0]
    blocks, each = config.modes
    size = each * (2 if config.conjugate else 1)
    (A, V), deviation = hippo(size, each), (blocks * size) ** -0.5

    def normal(*shape: int, generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator).double()

    def own(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor | None:
        match name.rpartition(".")[2]:
            case "log_dt":
                return log_steps(shape, dt, generator)
            case "A_real":
                return A.real.repeat(blocks).float()
            case "A_imag":
                return A.imag.repeat(blocks).float()
            case "B":
                B = normal(blocks, size, shape[1], generator=generator) * deviation
                return torch.view_as_real(V.mH @ B.to(V.dtype)).flatten(0, 1).float()
            case "C":
                count = len(config.directions) * blocks
                C = torch.complex(
                    *(normal(shape[0], count, size, generator=generator) for _ in range(2))
                )
                return torch.view_as_real(C @ V * deviation).flatten(1, 2).float()
            case "D":
                return torch.randn(shape, generator=generator)
        return None

    return drawn(s5.parameter_shapes(config), own, seed)


# -- the model ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class S5(Framed):
    """An S5 model: config, and weights by site name (float64 / complex128 as loaded).

    `mode` says how the recurrence is computed (see `__call__`).
    """

    config: S5Config
    weights: Mapping[str, Tensor]
    mode: str = "recurrent"

    described = s5.FAMILY
    radius_name = "max|A|"
    radius_reads = ("A",)

    def __call__(self, x: Tensor, tap: Tap = EXACT, mode: str = "recurrent") -> Tensor:
        """x (b, l, d_input) float32, or tokens (b, l) -> outputs (b, d_output).

        Outputs are (b, l, d_output) where nothing is pooled. mode "recurrent" is the truth;
        "associative" is a parallel scan, and raises UnsupportedError when the plan rounds a state.
        """
        if mode != "associative":
            forward.require_recurrent(mode, ", ".join(MODES))
        return forward.outputs(replace(self, mode=mode), x, tap)

    def mix(self, i: int, u: Tensor, tap: Tap, carries: Carries) -> tuple[Tensor, Carries]:
        at, gate = At(self, tap, f"layers.{i}."), self.config.gate
        x = at.passes("x", u)  # (b, l, h)
        y, found = self.recur(at, x, carries)
        y = at.passes("y", y + at("D") * x)
        g = at.passes("out_proj_in", ACTIVATIONS[self.config.activation](y))
        if gate == "none":
            return g, found
        b = at.passes("out_proj_out", at.linear("out_proj", g))
        if gate == "full":
            a, b = b.chunk(2, dim=-1)
        else:
            a = g if gate == "half1" else y
        return a * (torch.sigmoid(b) if self.config.sigmoid == "exact" else F.hardsigmoid(b)), found

    def recur(
        self, at: At, x: Tensor, carries: Carries = (None, None)
    ) -> tuple[Tensor, tuple[Carry | None, ...]]:
        """The recurrence over x (b, l, h): 2 Re(C x), and the states after it."""
        if self.config.bidirectional and any(carries):
            raise UnsupportedError(
                "a bidirectional model reads a sequence from both ends, so there is no streaming "
                "step of it. Give it whole sequences."
            )
        v, A = at.linear("B", x), at("A")  # (b, l, 2n)
        read, after = [], []
        for name, carry in zip(self.config.directions, carries, strict=False):
            back = name != "state"
            drive = v.flip(1) if back else v.clone() if self.config.bidirectional else v
            states, left = self.scan(at, name, drive, A, carry)
            read.append(states.flip(1) if back else states)
            after.append(left)
        return at.linear("C", torch.cat(read, dim=-1) if len(read) > 1 else read[0]), tuple(after)

    def scan(
        self, at: At, name: str, v: Tensor, A: Tensor, carry: Carry | None
    ) -> tuple[Tensor, Carry | None]:
        """The states (b, l, 2n) of one direction; those of an associative scan have no carry."""
        storage = at.storage(name)
        if self.mode == "recurrent":
            return ops.modal_scan(v, A, storage, carry)
        if storage is not None:
            raise UnsupportedError(
                f"an associative scan keeps no state, and this plan rounds {at.prefix}{name}. "
                "Use mode='recurrent'."
            )
        return associative(v, A), None

    @property
    def replays(self) -> list[Replay]:
        """The recurrence of every layer."""

        def replay(prefix: str) -> Replay:
            def run(values: Mapping[str, Tensor], tap: Tap) -> tuple[Tensor, ...]:
                return (self.recur(At(self, tap, prefix), values[prefix + "x"])[0],)

            names = frozenset(prefix + name for name in ("A", *self.config.directions))
            return Replay(names, (prefix + "y",), run)

        return [replay(f"layers.{i}.") for i in range(self.config.layers)]

    def layer_radius(self, i: int, tap: Tap = EXACT) -> float:
        """max |A_bar| of a layer as the tap leaves it. Above 1 the recurrence is unstable."""
        A = At(self, tap, f"layers.{i}.")("A")
        return magnitude(single(A).to(torch.complex128)).max().item()
