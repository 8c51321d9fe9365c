"""What a refusal says: the site, what kernels take, and a search that keeps to it."""

from __future__ import annotations

import re
import shlex

import builders
import pytest
import selective
from packed_memory import packed

from sensprobe.cli.parser import build_parser
from sensprobe.errors import SchemeError, UnsupportedError
from sensprobe.models.mamba import MambaConfig
from sensprobe.models.mamba2 import Mamba2Config
from sensprobe.models.s4d import S4DConfig
from sensprobe.packed.advice import taken
from sensprobe.plans.plan import adapted, parse_setting
from sensprobe.plans.sites import Kind

ONE = {"d_input": 3, "d_output": 4, "d_model": 16, "pooling": "none"}
MODELS = {
    "mamba": lambda: selective.tiny(MambaConfig(**ONE, dt_rank=3, d_state=16)),
    "mamba2": lambda: selective.tiny(Mamba2Config(**ONE, d_state=16, d_head=16, groups=1)),
    "s4d": lambda: builders.tiny(S4DConfig(d_input=1, d_output=3, d_model=16, d_state=8)),
}
FEW_BITS = ("int2", "int5", "int8", "e4m3", "e5m2", "e2m1", "log3", "log8")
PLAIN = ("fp16", "bf16", "fp32")
SPREAD = {
    Kind.WEIGHT: ("", "/channel", "/head", "/group16", "/channel/asym"),
    Kind.ACTIVATION: ("/dynamic", "/range2", "/channel/dynamic", "/dynamic/truncate"),
    Kind.STATE: ("/dynamic", "/head/dynamic", "/channel/dynamic", "/head/asym/dynamic", "/range2",
                 "/head/dynamic/feedback", "/range2/stochastic", "/head/asym/dynamic/clip2"),
}  # fmt: skip
REFUSED = [
    ("mamba", "layers.*.state", "int12/head/dynamic", "states in int2 to int8"),
    ("mamba", "layers.*.conv_state", "int9/dynamic", "states in int2 to int8"),
    ("mamba2", "layers.*.state", "int8/group5/dynamic", "group that divides n"),
    ("mamba2", "layers.*.state", "int8/head/dynamic/every4", "rounded at every step"),
    ("mamba", "layers.*.y", "int8/dynamic/stochastic", "to nearest or toward zero"),
    ("s4d", "layers.*.state", "int12/head/dynamic/feedback", "complex states in int2 to int8"),
    ("s4d", "layers.*.state", "int8/group3/dynamic", "group that divides n"),
]


@pytest.mark.parametrize(("name", "pattern", "scheme", "what"), REFUSED)
def test_a_refusal_names_a_search_that_keeps_to_what_runs(name, pattern, scheme, what):
    """The command in it is one the parser knows, and what it freezes is something kernels run."""
    model = MODELS[name]()
    with pytest.raises(UnsupportedError) as told:
        packed(model, {pattern: scheme}).stream.program(1)
    said = str(told.value)
    first = pattern.replace("*", "0")
    assert said.startswith(f"{first} in {scheme}: no streaming kernel ")
    assert what in said
    found = re.search(r"`(sensprobe search .*?)`", said)
    assert found is not None
    words = shlex.split(found[1])
    arguments = build_parser().parse_args(words[1:])
    kept = [parse_setting(text) for text in arguments.freeze]
    assert [at for at, _ in kept] == [pattern]
    plan = adapted(kept, model.sites.values())
    packed(model, {site: str(fitted) for site, fitted in plan.entries}).stream.program(1)


@pytest.mark.parametrize("name", MODELS)
def test_kernels_run_what_a_refusal_says_they_take(name):
    """Of one layer's sites, every format with the spreads that make sense there."""
    model, ran = MODELS[name](), 0
    for site in model.sites.values():
        if site.layer not in (0, None):
            continue
        formats = (*FEW_BITS, *(() if site.kind is Kind.STATE else ("int16",)))
        assert "log3 to log8, fp16, bf16 and fp32" in taken(site)
        schemes = [f + spread for f in formats for spread in SPREAD[site.kind]]
        for scheme in (*schemes, *PLAIN):
            try:
                case = packed(model, {site.name: scheme})
            except SchemeError:
                continue  # makes no sense on this site: no plan can have it
            case.stream.program(1)
            ran += 1
    assert ran > 300


def test_a_shape_that_no_scheme_helps_is_told_without_a_search():
    model = selective.tiny(MambaConfig(**ONE | {"d_model": 12}, dt_rank=3, d_state=4))
    with pytest.raises(UnsupportedError, match="rows, and streaming kernels take sixteen") as told:
        packed(model, {}).stream.program(1)
    assert "sensprobe search" not in str(told.value)
