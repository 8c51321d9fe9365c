"""llama.cpp: which ggml type each tensor of a GGUF file gets, for `llama-quantize`.

    convert_hf_to_gguf.py FOLDER --outtype f32 --outfile model-f32.gguf
    llama-quantize --tensor-type-file FOLDER/tensor-types.txt model-f32.gguf model.gguf q8_0

A line of the file is `REGEX=TYPE`, searched for in the GGUF name, so every line is anchored. The
whole file is words: a comment would be an error. Overrides are heeded only under a quantized base
type, so every matrix has a line, unquantized ones too.

llama.cpp rounds by itself. Q8_0 of weights that are rounded to int8 in groups of 32 already finds
the same codes and scales. Q4_0 and Q4_1 have grids of their own (d = the largest value / -8; a
float minimum), so such matrices are written unrounded for it to round.
"""

from __future__ import annotations

import shlex

from sensprobe.checkpoints.to_hf import HfTensor
from sensprobe.export.document import TYPES
from sensprobe.export.runtimes.codes import float_of
from sensprobe.export.runtimes.emit import Emitted
from sensprobe.export.runtimes.fit import Fit
from sensprobe.export.runtimes.profile import LINEARS, Layout, Runtime
from sensprobe.models.apply import Applier
from sensprobe.plans.scheme import EXACT, Scales
from sensprobe.plans.sites import Kind, Part

BLOCK = frozenset({32})
GROUP, HALF = frozenset({"group"}), frozenset({Scales.S16})
FLOAT_TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
MATRICES = frozenset({"in_proj", "x_proj", "dt_proj", "out_proj", "embedding", "head"})
VECTORS = (Part.NORM, Part.CONV, Part.A, Part.D, Part.GATED_NORM, Part.BIAS)

_OUTSIDE = {
    "backbone.embeddings.weight": "token_embd.weight",
    "backbone.norm_f.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_INSIDE = {
    "norm": "attn_norm",
    "mixer.in_proj": "ssm_in",
    "mixer.conv1d": "ssm_conv1d",
    "mixer.x_proj": "ssm_x",
    "mixer.dt_proj": "ssm_dt",
    "mixer.dt_bias": "ssm_dt.bias",
    "mixer.A_log": "ssm_a",
    "mixer.D": "ssm_d",
    "mixer.norm": "ssm_norm",
    "mixer.out_proj": "ssm_out",
}


def gguf_name(name: str) -> str:
    """The GGUF name of a tensor of transformers."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    number, _, inner = name.removeprefix("backbone.layers.").partition(".")
    for ending in ("", ".weight", ".bias"):
        if (theirs := _INSIDE.get(inner.removesuffix(ending))) is not None:
            return f"blk.{number}.{theirs}" + (ending if inner.endswith(ending) else "")
    raise KeyError(name)


def tensor_types(fit: Fit) -> dict[str, str]:
    """Regex of every matrix's GGUF name -> its ggml type."""
    return {
        f"^{gguf_name(t.name)}$".replace(".", r"\."): _type(fit, t) for t in fit.tensors if t.matrix
    }


def _type(fit: Fit, tensor: HfTensor) -> str:
    layout = fit.layouts.get(tensor.name)
    return FLOAT_TYPES[str(fit.scheme(tensor).format)] if layout is None else layout.name


def types_file(fit: Fit) -> bytes:
    """The file that `llama-quantize --tensor-type-file` reads."""
    return "".join(f"{name}={type}\n" for name, type in tensor_types(fit).items()).encode()


def emit(fit: Fit, applier: Applier) -> Emitted:
    """Float weights; those that llama.cpp rounds to grids of its own are left unrounded."""
    anew = set(fit.rounded_anew())
    exact = {site for t in fit.tensors if t.name in anew for site in t.sites}
    weights = {
        name: EXACT if name in exact else scheme
        for name, scheme in fit.plan.items()
        if fit.model.sites[name].kind is Kind.WEIGHT
    }
    tap = applier.tap(weights)
    tensors = {}
    for tensor in fit.tensors:
        scheme = EXACT if tensor.name in fit.layouts else fit.scheme(tensor)
        tensors[tensor.name] = float_of(tensor, scheme, tap)
    return Emitted(tensors, "float32", files={TYPES: types_file(fit)}, converted=True)


def use(fit: Fit, folder: str) -> list[str]:
    """The commands that make a GGUF file of the folder and quantize it."""
    types = shlex.quote(f"{folder}/{TYPES}")
    return [
        f"convert_hf_to_gguf.py {shlex.quote(folder)} --outtype f32 --outfile model-f32.gguf",
        f"llama-quantize --tensor-type-file {types} model-f32.gguf model.gguf q8_0",
    ]


RUNTIME = Runtime(
    name="llama.cpp",
    about="a folder for llama.cpp's convert_hf_to_gguf.py and llama-quantize",
    matrices=dict.fromkeys(LINEARS, MATRICES),
    layouts=(
        Layout("q8_0", frozenset({"int8"}), GROUP, BLOCK, scales=HALF),
        Layout("q4_1", frozenset({"int4"}), GROUP, BLOCK, "codes", False, scales=HALF, same=False),
        Layout("q4_0", frozenset({"int4"}), GROUP, BLOCK, scales=HALF, same=False),
    ),
    rest=("fp32", "fp16", "bf16"),
    parts=dict.fromkeys(VECTORS, ("fp32",)),
    states={Part.STATE: ("fp32",), Part.CONV_STATE: ("fp32",)},
    examples=("fp16", "int8/group32", "int4/group32"),
    emit=emit,
    use=use,
)
