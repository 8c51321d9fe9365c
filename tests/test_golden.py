"""Numbers that must not change while `SEMANTICS` stays: evaluations are reused across versions.

Everything here is IEEE arithmetic on inputs made of integers, so that every machine has the same
bits. Where a change is meant: raise `SEMANTICS`, and record what `python tests/test_golden.py`
prints.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from builders import MATRIX, PROJECTION, STATE
from torch import Tensor

from sensprobe.models.apply import static_scale
from sensprobe.numerics import SEMANTICS
from sensprobe.numerics.calibrate import weight_range
from sensprobe.numerics.philox import philox
from sensprobe.numerics.rounding import encode
from sensprobe.numerics.storage import Rounded
from sensprobe.ops import diagonal_scan
from sensprobe.ops.diagonal_scan import reference
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Site

RECORDED = json.loads(Path(__file__).with_suffix(".json").read_text())
WEIGHTS = [
    "int8/head/asym", "int4/head/asym/parts", "int3/tensor/sym/s32", "int6/head/p99",
    "int5/head/mse", "e4m3/head", "e2m1/group2", "log4/head/pow2", "bf16", "polar(m4,p6)/head",
    "logpolar(m1,p11)/head",
]  # fmt: skip
MATRICES = ["int8/channel/asym", "int4/group2", "int2/tensor", "e5m2/channel", "log8/tensor"]
STATES = [
    "int8/head/asym/parts/dynamic", "int6/head/dynamic/stochastic", "int4/tensor/dynamic/feedback",
    "int8/head/range2/clip1", "int5/group2/dynamic/every3", "e5m2/head/dynamic", "bf16",
    "log5/head/dynamic/s32",
]  # fmt: skip


def uniform(*shape: int, stream: int) -> Tensor:
    """Numbers in [-1, 1) with 16 bits each, from the counters 0, 1, 2, …"""
    counters = torch.arange(torch.Size(shape).numel()).view(shape)
    zero = torch.zeros((), dtype=torch.int64)
    words = philox((counters, zero, zero, zero), (stream, 0))
    return ((words[0] >> 16).double() / 2**15 - 1).float()


def pairs(*shape: int, stream: int) -> Tensor:
    return torch.complex(uniform(*shape, stream=stream), uniform(*shape, stream=stream + 1))


def digest(*tensors: Tensor | None) -> str:
    """Of the bits of tensors; a zero has no sign, as a code of zero has none."""
    marks = sha256()
    for x in tensors:
        if x is not None:
            marks.update(str((x.dtype, tuple(x.shape))).encode())
            marks.update((x + 0).contiguous().view(torch.uint8).numpy().tobytes())
    return marks.hexdigest()[:16]


def weight(text: str, site: Site = MATRIX) -> str:
    """Codes, scales and zero points of one weight."""
    x = pairs(*site.shape, stream=1) / 2 if site.is_complex else uniform(*site.shape, stream=1)
    x = x.to(torch.complex128 if site.is_complex else torch.float64)
    scheme = parse(text)
    fields = encode(x, scheme, site, weight_range(x, scheme, site)).values()
    stored = [getattr(f, part.name) for f in fields for part in dataclasses.fields(f)]
    return digest(*(x for x in stored if isinstance(x, Tensor)))


def state(text: str, scan: Callable[..., tuple] = reference) -> str:
    """Outputs and the last state of a recurrence of 12 steps, 3 sequences."""
    heads, n = STATE.shape
    A, B, C = (pairs(heads, n, stream=s) / 2 for s in (10, 20, 30))
    scheme = parse(text)
    given = static_scale(STATE, scheme, {}) or (None, None)
    y, memory = scan(uniform(3, 12, heads, stream=40), A, B, C, Rounded(scheme, STATE, *given))
    return digest(y, memory.state, memory.residual)


def everything() -> dict[str, str]:
    return (
        {f"weight {t}": weight(t) for t in WEIGHTS}
        | {f"matrix {t}": weight(t, PROJECTION) for t in MATRICES}
        | {f"state {t}": state(t) for t in STATES}
    )


def test_the_numbers_are_those_recorded() -> None:
    assert {"semantics": SEMANTICS, **everything()} == RECORDED


@pytest.mark.parametrize("text", STATES)
def test_the_kernel_has_the_same_numbers(text: str) -> None:
    assert state(text, diagonal_scan) == RECORDED[f"state {text}"]


def test_one_bit_is_noticed() -> None:
    x = uniform(5, stream=1)
    other = x.clone()
    other.view(torch.int32)[3] ^= 1
    assert digest(x) != digest(other)


if __name__ == "__main__":
    print(json.dumps({"semantics": SEMANTICS, **everything()}, indent=1))
