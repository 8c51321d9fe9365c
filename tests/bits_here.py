"""What this process computes that must not depend on the processor, as JSON on stdout.

Run by `test_same_on_every_machine` under settings that make the libraries choose other code.
"""

import hashlib
import json
import sys

import torch
from torch import Tensor

from sensprobe import ops, zoo
from sensprobe.checkpoints.identity import bytes_of
from sensprobe.data import load_data
from sensprobe.models import Model
from sensprobe.models.apply import Applier
from sensprobe.numerics.calibrate import SHRINKS, weight_range
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind
from sensprobe.session.source import open_model

SCHEMES = ("polar(m3,p5)", "logpolar(m2,p8)", "int4/mse", "int8/p99", "int3/head/asym", "e4m3",
           "log4/pow2", "bf16")  # fmt: skip
MATRICES = ("int4/hadamard", "int4/group8/mse", "int3/channel/p97/asym")
STATES = ("exact", "int8/head/dynamic", "int4/head/dynamic")
SAMPLES = 100


def mark(*tensors: Tensor | None) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
            digest.update(bytes_of(real.detach()))
    return digest.hexdigest()[:16]


def codes(model: Model) -> dict[str, str]:
    applier, out = Applier(model), {}
    for name, site in model.sites.items():
        if site.kind is not Kind.WEIGHT:
            continue
        fit = [s for s in SCHEMES if "polar" not in s or site.is_complex]
        fit = [s for s in fit if "head" not in s or len(site.shape) == 2]
        for text in [*fit, *(MATRICES if site.axes[-1].value == "in" else ())]:
            if "hadamard" in text and site.shape[-1] % 2:
                continue
            fields = applier.encoded(site, parse(text)).values()
            out[f"{name} {text}"] = mark(*(t for f in fields for t in (f.codes, f.scale, f.zero)))
    return out


def ranges(model: Model) -> dict[str, str]:
    """Ends of ranges, whose last bits codes seldom show."""
    out = {"shrinks": mark(SHRINKS)}
    for name, site in model.sites.items():
        if site.kind is Kind.WEIGHT and name.startswith("layers.0."):
            for text in ("int4/mse", "e4m3/mse", "int8/p99"):
                found = weight_range(model.weights[name], parse(text), site)
                out[f"{name} {text}"] = mark(*(found or ()))
    return out


def scanned(model: Model) -> str:
    """The state and outputs of a recurrence that is rounded at every step."""
    x = torch.rand(3, 40, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    applier, plan = Applier(model), {"layers.0.state": parse("int4/head/dynamic")}
    A, B, C = (applier.tap({}).weights[f"layers.0.{part}"] for part in "ABC")
    y, memory = ops.diagonal_scan(
        x, A, B, C, applier.tap(plan).storage(model.sites["layers.0.state"])
    )
    return mark(y, memory.state)


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    sources = {name: open_model(name) for name in zoo.shipped()}
    small, x = sources["s4d-digits"].model, load_data("digits").splits["search"].x[:SAMPLES]
    applier, outputs = Applier(small), {}
    for text in STATES:
        plan = {} if text == "exact" else {"layers.0.state": parse(text)}
        outputs[text] = small(x, applier.tap(plan)).tolist()
    models = {name: source.model for name, source in sources.items()}
    same = {
        "names": {name: source.fingerprint for name, source in sources.items()},
        "weights": {n: mark(*(w for _, w in sorted(m.weights.items()))) for n, m in models.items()},
        "codes": codes(models["s4d-smnist-16"]),
        "ranges": ranges(small),
        "scan": scanned(small),
        "radius": {n: m.spectral_radius() for n, m in models.items()},
    }
    print(json.dumps({"same": same, "outputs": outputs}))


if __name__ == "__main__":
    main()
