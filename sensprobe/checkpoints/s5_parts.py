"""From the tensors of an S5 checkpoint to its config, and what our parameters are made of.

Names are those of `checkpoints.s5`, without what stands before them: `layers.0.seq.B`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensprobe.checkpoints.headers import Tensors
from sensprobe.errors import CheckpointError
from sensprobe.models import layouts

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "lindermanlab/S5"
ASSUMED: dict[str, Any] = {
    "norm": "pre", "pooling": "mean", "gate": "half1", "conjugate": True, "clip_eigs": False,
    "discretization": "zoh",
}  # fmt: skip
"""Of run_train.py without arguments: prenorm, mode pool, half_glu1, conj_sym, zoh."""
OPTIONS = (*ASSUMED, "norm_kind", "norm_eps", "activation", "sigmoid", "blocks")
FLAX_LAYER_EPS, FLAX_BATCH_EPS, TORCH_EPS = 1e-6, 1e-5, 1e-5
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What a parameter is made of: tensors of the file, with the shapes they must have, and how."""

    reads: Mapping[str, Shape]
    make: Callable[..., Tensor]


def config_of(
    held: Tensors, options: Mapping[str, Any], whole: bool, path: Path
) -> tuple[Any, dict[str, Any]]:
    """The config, and those of its fields that were assumed because neither the file nor `options`
    say them. `whole` says that the file is a whole state of training, with its optimizer."""
    n, h = _axes(held, "layers.0.seq.B", "modes, features, 2", path)
    both_ways = "layers.0.seq.C2" in held
    if not both_ways:
        both_ways = _axes(held, "layers.0.seq.C", "features, modes, 2", path)[1] == 2 * n
    seen: dict[str, Any] = {
        "d_model": h,
        "d_state": n,
        "d_input": _dense(held, "encoder", path)[0],
        "d_output": _dense(held, "decoder", path)[1],
        "layers": len({m[1] for name in held if (m := re.match(r"layers\.(\d+)\.", name))}),
        "bidirectional": both_ways,
    }
    flax = "layers.0.norm.scale" in held
    batch = any(f"layers.0.norm.{name}" in held for name in ("mean", "running_mean"))
    assumed = dict(ASSUMED)
    if "layers.0.seq.Lambda" in held:  # of s5-pytorch, whose output is Re(C x) of all modes
        assumed["conjugate"] = False
    gates = tuple(f"layers.0.{name}.bias" in held for name in ("out1", "out2"))
    if gates != (False, True):
        seen["gate"] = "full" if any(gates) else "none"
        del assumed["gate"]
    kind = "affine" if batch else "layer"
    if flax and not batch and not whole:  # params alone: the statistics may have been left out
        assumed["norm_kind"] = kind
    assumed = {name: value for name, value in assumed.items() if name not in options}
    usual = {
        "norm_kind": kind,
        "norm_eps": FLAX_LAYER_EPS if flax else TORCH_EPS,
        "activation": "gelu-tanh" if flax else "gelu",  # jax.nn.gelu and torch's, as they default
    }
    layout = next(iter(layouts(PACKAGE).values()))
    return layout.read({**usual, **seen}, {**assumed, **options}), assumed


def _axes(held: Tensors, name: str, axes: str, path: Path) -> Shape:
    """Rows and columns of a complex matrix: a complex tensor, or one with pairs of numbers."""
    value = held.get(name)
    shape = tuple(value.shape) if value is not None else "missing"
    pairs = value is not None and not value.is_complex()
    if not isinstance(shape, tuple) or len(shape) != 2 + pairs or 0 in shape:
        raise CheckpointError(f"{path}: {name} must have shape ({axes}); it is {shape}.")
    return shape[:2]


def _dense(held: Tensors, name: str, path: Path) -> Shape:
    """Inputs and outputs of a linear map."""
    kernel = f"{name}.kernel" in held
    value = held.get(f"{name}.kernel" if kernel else f"{name}.weight")
    shape = tuple(value.shape) if value is not None else ()
    if len(shape) != 2 or 0 in shape:
        what = "is missing" if value is None else f"has shape {shape}"
        raise CheckpointError(
            f"{path}: {name}.kernel (inputs, outputs) or {name}.weight (outputs, inputs) {what}. "
            "An S5 model has one linear encoder before its layers and one linear decoder after."
        )
    return shape if kernel else shape[::-1]


def parts(config: Any, held: Tensors) -> dict[str, Part]:
    """The parts of every parameter of a model."""
    h = config.d_model
    out = _linear("encoder", ["encoder"], config.d_input, h, held)
    for i in range(config.layers):
        at = f"layers.{i}."
        if config.norm != "none":
            out |= _norm(at, config, held)
        out |= _mixer(at, config, held)
        if config.gated:
            maps = [at + "out1", at + "out2"] if config.gate == "full" else [at + "out2"]
            out |= _linear(at + "out_proj", maps, h, h, held)
    return out | _linear("head", ["decoder"], h, config.d_output, held)


def _linear(
    ours: str, theirs: list[str], inputs: int, outputs: int, held: Tensors
) -> dict[str, Part]:
    """Maps whose rows are joined: of flax's Dense, which are transposed, or of torch's Linear."""
    flax = f"{theirs[0]}.weight" not in held
    name, shape = ("kernel", (inputs, outputs)) if flax else ("weight", (outputs, inputs))
    return {
        f"{ours}.weight": Part(
            {f"{at}.{name}": shape for at in theirs},
            lambda *maps: _joined([m.T for m in maps] if flax else list(maps)),
        ),
        f"{ours}.bias": Part(
            {f"{at}.bias": (outputs,) for at in theirs}, lambda *each: _joined(list(each))
        ),
    }


def _joined(rows: list[Tensor], dim: int = 0) -> Tensor:
    import torch

    return torch.cat(rows, dim)


def _norm(at: str, config: Any, held: Tensors) -> dict[str, Part]:
    """A layer norm as it is; of a batch norm scale and shift with its statistics folded in."""
    h = (config.d_model,)
    flax = at + "norm.weight" not in held
    scale, bias = at + ("norm.scale" if flax else "norm.weight"), at + "norm.bias"
    if config.norm_kind != "affine":
        return {
            at + "norm.weight": Part({scale: h}, _same),
            at + "norm.bias": Part({bias: h}, _same),
        }
    mean, var = (at + f"norm.{'' if flax else 'running_'}{name}" for name in ("mean", "var"))
    eps = FLAX_BATCH_EPS if flax else TORCH_EPS

    def folded(g: Tensor, v: Tensor) -> Tensor:
        return g.double() / (v.double() + eps).sqrt()

    return {
        at + "norm.weight": Part({scale: h, var: h}, lambda g, v: folded(g, v).to(g.dtype)),
        at + "norm.bias": Part(
            {bias: h, scale: h, mean: h, var: h},
            lambda b, g, m, v: (b.double() - m.double() * folded(g, v)).to(b.dtype),
        ),
    }


def _mixer(at: str, config: Any, held: Tensors) -> dict[str, Part]:
    h, n, seq = config.d_model, config.d_state, at + "seq."
    width = n * len(config.directions)
    column = getattr(held.get(seq + "log_step"), "ndim", 2) == 2
    step: Shape = (n, 1) if column else (n,)
    if seq + "Lambda" in held:
        A = (Part({seq + "Lambda": (n,)}, lambda a: a.real),
             Part({seq + "Lambda": (n,)}, lambda a: a.imag))  # fmt: skip
    else:
        A = Part({seq + "Lambda_re": (n,)}, _same), Part({seq + "Lambda_im": (n,)}, _same)
    if seq + "C2" in held:
        C = Part(
            {seq + "C1": (h, n, 2), seq + "C2": (h, n, 2)}, lambda *each: _joined(list(each), 1)
        )
    else:
        C = _pairs(seq + "C", (h, width), held)
    return {
        at + "log_dt": Part({seq + "log_step": step}, lambda s: s.reshape(-1)),
        at + "A_real": A[0],
        at + "A_imag": A[1],
        at + "B": _pairs(seq + "B", (n, h), held),
        at + "C": C,
        at + "D": Part({seq + "D": (h,)}, _same),
    }


def _pairs(name: str, shape: Shape, held: Tensors) -> Part:
    """A complex matrix as pairs of real numbers, whichever of the two the file has."""
    if name not in held or not held[name].is_complex():
        return Part({name: (*shape, 2)}, _same)

    def view(matrix: Tensor) -> Tensor:
        import torch

        return torch.view_as_real(matrix.resolve_conj())

    return Part({name: shape}, view)


def _same(value: Tensor) -> Tensor:
    return value
