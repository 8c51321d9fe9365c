"""Schemes, sizes and plans from a stranger: an error of ours, or a value that prints back."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from random import Random

import pytest
from damage import edited, in_time, require_short, scrambled

from sensprobe.errors import SensprobeError
from sensprobe.plans.plan import from_json, read
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Kind, Part, Site
from sensprobe.units import byte_count

_HEADS = "int2 int8 int16 e4m3 e5m2 e2m1 log4 bf16 fp16 fp32 exact polar(m4,p8) logpolar(m4,p8)"
_WORDS = (
    "tensor channel head decoupled group32 group1 group0 sym asym absmax mse p99.9 p50 p100 "
    "range50 range-1:1 range1e-300:1e300 static dynamic nearest truncate feedback gptq stochastic "
    "stochastic7 parts clip50 clip1e39 every16 every0 s16 s32 pow2 hadamard"
)
HEADS, WORDS = _HEADS.split(), _WORDS.split()
SIGNS = "/:().,-+0123456789abceghlmprsy \0\n\x1b٣é"
SITES = [
    Site("encoder", Part.ENCODER, Kind.WEIGHT, (4, 2), (Axis.OUT, Axis.IN)),
    Site("layers.0.A", Part.A, Kind.WEIGHT, (4, 8), (Axis.HEAD, Axis.N), True),
    Site("layers.0.state", Part.STATE, Kind.STATE, (4, 8), (Axis.HEAD, Axis.N), True),
    Site("layers.0.x", Part.X, Kind.ACTIVATION, (4,), (Axis.HEAD,)),
]
PLAN = {
    "sensprobe_plan": 1,
    "name": "mine",
    "schemes": [
        ["layers.*.A", "int8/head/asym"],
        ["*", "int4"],
        ["layers.0.state", "int8/feedback"],
    ],
}


def counts(few: int, many: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)])


def scheme(random: Random) -> str:
    words = [random.choice(HEADS), *random.choices(WORDS, k=random.randrange(5))]
    text = "/".join(words)
    for _ in range(random.choice((0, 0, 1, 2))):
        at = random.randrange(len(text) + 1)
        put = random.choice((random.choice(SIGNS), "9" * random.choice((1, 9, 20, 400, 5000)), ""))
        text = text[:at] + put + text[at + random.randrange(2) :]
    return text


@counts(2_000, 200_000)
def test_schemes(count: int) -> None:
    random, known = Random(14), 0
    with in_time_of(count):
        for _ in range(count):
            text = scheme(random)
            try:
                found = parse(text)
            except SensprobeError as error:
                require_short(error)
                continue
            known += 1
            assert parse(str(found)) == found
            with suppress(SensprobeError):
                byte_count(text.partition("/")[2] or text)
    assert known > count / 50


def in_time_of(count: int) -> AbstractContextManager[None]:
    """A few thousand together take far less than the time that one may take."""
    return in_time() if count <= 2_000 else nullcontext()


@counts(200, 20_000)
def test_plans(count: int, tmp_path: Path) -> None:
    random, known, path = Random(15), 0, tmp_path / "plan.json"
    for _ in range(count):
        document = {**PLAN, "schemes": [[p, scheme(random)] for p, _ in PLAN["schemes"]]}
        whole = random.choice((PLAN, document))
        content = edited(whole, random)
        if random.random() < 0.4:
            content = scrambled(json.dumps(whole).encode(), random)
        path.write_bytes(content)
        with in_time():
            try:
                plan = read(path)
                resolved = plan.resolve(SITES)
            except SensprobeError as error:
                require_short(error)
                continue
        known += 1
        assert from_json(json.loads(json.dumps(plan.to_json()))) == plan
        assert set(resolved) <= {site.name for site in SITES}
    assert known > count / 50
