"""The type in which a file stores the parameters that each weight is made from.

A weight is counted in the type of the parameters behind its site: `layers.0.in_proj.x` in that of
`layers.0.in_proj.weight`, S4D's `layers.0.A`, which is discretised, in the widest of log_A_real and
A_imag. That is what a user has before any plan, where float32 is what a model computes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sensprobe.checkpoints.headers import Tensors, bytes_a_value
from sensprobe.plans.sites import Kind, Site

_COMPUTED = {"A": ("A_log", "log_A_real", "A_imag", "A"), "B": ("C",), "dt.bias": ("dt_bias",)}
"""The parameters behind weights with other names; S4D's B, which is 1 in many files and in some not
there, counts as C does."""


def stored_dtypes(params: Tensors, sites: Iterable[Site]) -> dict[str, str]:
    """Weight site -> "bfloat16", "float16", "float32", "float64" or another type of torch's."""
    out = {}
    for site in sites:
        if site.kind is Kind.WEIGHT:
            found = (params[name] for name in _parameters(site.name) if name in params)
            types = {str(tensor.dtype).removeprefix("torch.") for tensor in found}
            out[site.name] = max(types, key=lambda t: (bytes_a_value(t), t), default="float32")
    return out


def _parameters(site: str) -> Iterator[str]:
    """Possible names of the parameters behind a site; a family has some of them."""
    inner = site.split(".", 2)[2] if site.startswith("layers.") else site
    if inner in _COMPUTED:
        yield from (site.removesuffix(inner) + name for name in _COMPUTED[inner])
        return
    stem, end = (site[:-5], ".bias") if site.endswith(".bias") else (site, ".weight")
    yield site  # `layers.0.D`, `encoder.bias`
    yield stem + end
    yield stem.rpartition(".")[0] + end  # rows of `in_proj` and `x_proj`
