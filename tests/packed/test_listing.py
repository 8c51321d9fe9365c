"""The text of a program: every weight, every byte, and the same text each time."""

from __future__ import annotations

import builders
import pytest
import torch
from packed_memory import CONFIGS, packed
from selective import tiny

from sensprobe.cli import main
from sensprobe.packed.compile import compiled
from sensprobe.packed.holding import shapes_only
from sensprobe.packed.listing import listing
from sensprobe.plans.cost import cost
from sensprobe.plans.sites import Kind

PLANS = {
    "exact": {},
    "packed": {
        "*.state": "int8/head/dynamic", "*.out_proj": "int4/channel",
        "*.out_proj_in": "int8/dynamic", "*.y": "int8",
    },
}  # fmt: skip
CASES = [(name, plan) for name in ("s4d", "mamba", "mamba2", "tokens", "groups") for plan in PLANS]


def model_of(name):
    return builders.tiny() if name == "s4d" else tiny(CONFIGS[name])


def text_of(name, plan):
    model = model_of(name)
    width = model.config.d_input
    x = torch.randn(2, 5, width, generator=torch.Generator().manual_seed(0))
    x = x.abs().long().clamp(max=width - 1)[..., 0] if model.reads_tokens else x
    case = packed(model, PLANS[plan], x)
    return case, listing(case.stream.program(2), model, case.stream.weights)


def table(text, title):
    """The rows of a table: {column: cell}."""
    _, found, rest = text.partition(f"\n{title}\n")
    if not found:
        return []
    head, *lines = rest.split("\n\n")[0].splitlines()
    names = head.split()
    starts = [head.index(f" {name}") + 1 for name in names]
    ends = [*starts[1:], None]
    return [
        {name: line[a:b].strip() for name, a, b in zip(names, starts, ends, strict=True)}
        for line in lines
    ]


def test_magnitudes_and_phases_have_a_line_each():
    case = packed(builders.tiny(), {"*.A": "logpolar(m2,p8)/head", "*.B": "polar(m3,p7)"})
    rows = table(listing(case.stream.program(1), case.model, case.stream.weights), "tensors")
    told, places = {row["site"]: row for row in rows}, case.stream.weights.places
    for site in ("layers.0.A", "layers.0.B"):
        for field in ("magnitude", "phase"):
            row, name = told[f"{site}.{field}"], f"{site}.{field}"
            assert int(row["offset"]) == places[f"{name}.codes"]
            assert int(row["scales"]) == places[f"{name}.scale"]
            assert row["zeros"] == str(places.get(f"{name}.low", "-"))
    assert "layers.0.A" not in told


@pytest.mark.parametrize(("name", "plan"), CASES)
def test_every_weight_and_state_is_there_and_bytes_add_up_to_the_cost(name, plan):
    case, text = text_of(name, plan)
    told = cost(case.model.sites.values(), case.plan)
    tensors, states = table(text, "tensors"), table(text, "states")
    by_kind = {k: {s.name for s in case.model.sites.values() if s.kind is k} for k in Kind}
    assert {row["site"] for row in tensors} == by_kind[Kind.WEIGHT]
    assert {row["site"] for row in states} == by_kind[Kind.STATE]
    weights = tensors + table(text, "static scales")
    assert sum(int(row["bytes"]) for row in weights) == told.weight_bytes
    assert sum(int(row["bytes"]) for row in states) == told.state_bytes
    for rows in (sorted(weights, key=lambda row: int(row["offset"])), states):
        ends = [int(row["offset"]) + int(row["bytes"]) for row in rows]
        assert [int(row["offset"]) for row in rows] == [0, *ends[:-1]], "no byte is left out"
    for row in tensors + states:
        assert row["scheme"] == str(case.plan.get(row["site"], "fp32"))


@pytest.mark.parametrize(("name", "plan"), CASES)
def test_an_operation_a_line_that_names_registers_and_sites(name, plan):
    case, text = text_of(name, plan)
    lines = text.partition("\noperations\n")[2].splitlines()
    assert len(lines) == len(case.stream.program(2).program.ops)
    registers = {row["name"] for row in table(text, "registers")}
    used = text.partition("\noperations\n")[2]
    for site in case.model.sites.values():
        if site.kind in (Kind.WEIGHT, Kind.STATE):
            assert f"={site.name}," in used or f"={site.name})" in used, site.name
    for line in lines:
        assert line.split()[1].split("[")[0] in registers


@pytest.mark.parametrize("name", ["s4d", "mamba2"])
def test_the_same_text_each_time(name):
    assert text_of(name, "packed")[1] == text_of(name, "packed")[1]


def test_of_shapes_alone_the_same_program():
    case, text = text_of("mamba", "packed")
    weights, scales = shapes_only(case.model, case.plan)
    made = compiled(case.model, weights, scales, 2)
    assert (
        listing(made, case.model, weights).split("\nconstants")[0] == text.split("\nconstants")[0]
    )


def test_the_command_prints_it_and_refuses_what_no_kernel_runs(capsys):
    assert main(["program", "s4d-digits"]) == 0
    assert "diagonal(x=v, A=layers.0.A, B=layers.0.B" in capsys.readouterr().out
    assert main(["program", "s4d-digits", "--set", "layers.*.state=int12/head/dynamic"]) != 0
    assert "no streaming kernel packs states in more than 8 bits" in capsys.readouterr().err
