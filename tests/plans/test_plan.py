"""Plans: patterns resolved to schemes, their JSON form, and what each malformed one is told."""

from __future__ import annotations

import json

import pytest
from builders import ACTIVATION, BIAS, CONFIGS, MATRIX, PROJECTION, SITES, SKIP, STATE
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemes import schemes

from sensprobe.errors import PlanError, SchemeError
from sensprobe.models import s4d
from sensprobe.plans.fitting import why_not
from sensprobe.plans.plan import (
    EXACT_PLAN,
    Plan,
    adapted,
    diff,
    fingerprint,
    from_json,
    parse_setting,
    read,
    schema,
    uniform,
)
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Axis, Kind, Part, Site, group_pattern, matching, nearest

DEEP = list(s4d.sites(CONFIGS["deep"]).values())


def plan(*settings: str) -> Plan:
    return Plan(tuple(parse_setting(s) for s in settings))


# -- resolving ------------------------------------------------------------------------------------


def test_later_entries_override_earlier_ones():
    resolved = plan("*.out_proj=int4", "layers.1.*proj=int8/channel").resolve(DEEP)
    assert {k: str(v) for k, v in resolved.items()} == {
        "layers.0.out_proj": "int4",
        "layers.1.out_proj": "int8/channel",
    }


def test_an_exact_entry_takes_a_site_back_out():
    assert plan("layers.*.A=int8", "layers.1.A=exact").resolve(DEEP) == {
        "layers.0.A": parse("int8")
    }
    assert EXACT_PLAN.resolve(DEEP) == {}


def test_a_resolved_plan_is_in_the_order_of_the_sites():
    names = list(plan("head=int8", "*.state=int8/dynamic", "encoder=int8").resolve(DEEP))
    assert names == ["encoder", "layers.0.state", "layers.1.state", "head"]


def test_a_pattern_that_matches_nothing_is_answered_with_the_nearest():
    with pytest.raises(PlanError) as error:
        plan("layers.*.out_prj=int8").resolve(DEEP)
    message = str(error.value)
    assert "'layers.*.out_prj', which matches no site" in message
    assert "Nearest: layers.*.out_proj" in message
    assert "layers 0-1; list its sites with `sensprobe sites MODEL`" in message


def test_a_layer_beyond_the_model_is_an_error():
    with pytest.raises(PlanError, match=r"layers 0-1"):
        plan("layers.2.A=int8").resolve(DEEP)


def test_what_a_glob_names_and_its_scheme_does_not_fit_is_passed_over_and_said():
    made = plan("*=int8/head", "layers.*.A=int6")
    found = made.resolve(DEEP)
    assert str(found["layers.1.A"]) == "int6"
    fits = [s for s in DEEP if s.part is not Part.A and why_not(parse("int8/head"), s) is None]
    assert {n for n, s in found.items() if str(s) == "int8/head"} == {s.name for s in fits}
    assert "encoder" not in found
    (note,) = made.misfits(DEEP)
    assert note.startswith("*=int8/head passes over ")
    assert "encoder, encoder.bias, " in note
    assert "(input: it has no heads" in note
    assert plan("layers.*.A=int8/head").misfits(DEEP) == []


@pytest.mark.parametrize("text", ["encoder=int8/head", "*.bias=int8/head", "layers.0.D=int8/parts"])
def test_a_scheme_that_fits_nothing_or_not_a_site_named_in_full_is_an_error(text):
    with pytest.raises(SchemeError, match="makes no sense for"):
        plan("*=int8", text).resolve(DEEP)


def test_every_weight_state_and_activation_has_a_name():
    made = plan("weights=int8", "states=int4", "activations=fp16", "layers.0.state=int6")
    found = from_json(made.to_json()).resolve(DEEP)
    formats = {kind: set() for kind in Kind}
    for site in DEEP:
        formats[site.kind].add(str(found[site.name]))
    assert formats == {
        Kind.WEIGHT: {"int8"},
        Kind.STATE: {"int4", "int6"},
        Kind.ACTIVATION: {"fp16"},
    }
    with pytest.raises(PlanError, match="Nearest: weights"):
        plan("wieghts=int8").resolve(DEEP)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", [s.name for s in SITES]),
        ("*.bias", ["encoder.bias"]),
        ("layers.*.[AD]", ["layers.0.A", "layers.0.D"]),
        ("layers.0.s?ate", ["layers.0.state"]),
        ("LAYERS.0.A", []),
        ("layers", []),
    ],
)
def test_patterns_are_globs_over_whole_names(pattern, names):
    assert [s.name for s in matching(pattern, SITES)] == names


def test_nearest_always_offers_something():
    assert nearest("zzzzzz", DEEP)
    assert nearest("layers.0.stat", DEEP)[0] == "layers.0.state"
    assert nearest("layer.*.A", DEEP)[0] == "layers.*.A"


def test_group_patterns_name_the_site_in_every_layer():
    assert group_pattern(MATRIX) == "layers.*.A"
    assert group_pattern(BIAS) == "encoder.bias"
    for site in DEEP:
        assert site in matching(group_pattern(site), DEEP)


def test_sites_know_their_layer_and_size():
    assert (MATRIX.layer, BIAS.layer) == (0, None)
    assert (MATRIX.reals, MATRIX.full_bytes) == (24, 96)
    assert (ACTIVATION.reals, ACTIVATION.full_bytes) == (4, 0)


# -- making plans ---------------------------------------------------------------------------------


def test_a_uniform_plan_covers_weights_and_states_and_fits_each():
    resolved = uniform(parse("int8/head/asym/parts/dynamic"), SITES).resolve(SITES)
    assert {k: str(v) for k, v in resolved.items()} == {
        MATRIX.name: "int8/head/asym/parts",
        STATE.name: "int8/head/asym/parts/dynamic",
        PROJECTION.name: "int8/channel/asym",
        BIAS.name: "int8/asym",
        SKIP.name: "int8/asym",
    }


def test_an_adapted_plan_reaches_activations_and_complains_of_patterns():
    assert adapted([("*.x", parse("int8/parts"))], SITES).resolve(SITES) == {
        ACTIVATION.name: parse("int8")
    }
    with pytest.raises(PlanError, match="matches no site"):
        adapted([("nothing", parse("int8"))], SITES)


@pytest.mark.parametrize("text", ["layers.*.A", "=int8", "a=", ""])
def test_a_setting_is_a_pattern_and_a_scheme(text):
    with pytest.raises(PlanError, match="is not PATTERN=SCHEME"):
        parse_setting(text)


def test_differences_name_both_schemes():
    one = plan("*.A=int8", "head=int4").resolve(DEEP)
    other = plan("*.A=int8", "head=int8", "encoder=int8").resolve(DEEP)
    assert diff(one, other) == {"head": ("int4", "int8"), "encoder": ("fp32", "int8")}
    assert diff(one, one) == {}


# -- identity -------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_what_is_computed():
    same = fingerprint(plan("layers.*.A=int8/tensor", "head=exact").resolve(DEEP))
    assert same == fingerprint(plan("layers.1.A=int8", "layers.0.A=int8/sym").resolve(DEEP))
    assert same != fingerprint(plan("layers.0.A=int8").resolve(DEEP))
    assert same != fingerprint(plan("layers.*.A=int8/asym").resolve(DEEP))
    assert fingerprint({}) == fingerprint(EXACT_PLAN.resolve(DEEP))


@given(schemes(), schemes())
def test_fingerprints_tell_schemes_apart(one, other):
    """A clip at 1.0000001 is another computation than one at 1."""
    assert (fingerprint({"a": one}) == fingerprint({"a": other})) == (one == other)


def test_close_clips_have_different_fingerprints():
    close = {"a": parse("int8/clip50.00001")}
    assert fingerprint(close) != fingerprint({"a": parse("int8/clip50")})


# -- JSON -----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text(min_size=1), schemes()), max_size=5), st.text())
def test_plans_survive_json(entries, name):
    made = Plan(tuple(entries), name)
    assert from_json(json.loads(json.dumps(made.to_json()))) == made


def test_what_is_written_fits_the_schema_that_ships():
    Draft202012Validator.check_schema(schema())
    Draft202012Validator(schema()).validate(plan("*=int8").to_json())


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "is not a plan: the document: [] is not of type 'object'"),
        ({}, "'sensprobe_plan' is a required property"),
        ({"sensprobe_plan": 2, "schemes": []}, "version 2 is newer than this sensprobe reads (1)"),
        ({"sensprobe_plan": "1", "schemes": []}, "sensprobe_plan"),
        ({"sensprobe_plan": 1, "schemes": [], "code": "x"}, "'code' was unexpected"),
        ({"sensprobe_plan": 1, "schemes": {}}, "schemes"),
        ({"sensprobe_plan": 1, "schemes": [["a", "int8", "x"]]}, "schemes/0"),
        ({"sensprobe_plan": 1, "schemes": [["a"]]}, "schemes/0"),
        ({"sensprobe_plan": 1, "schemes": [["a", 8]]}, "schemes/0/1: 8 is not of type 'string'"),
        ({"sensprobe_plan": 1, "schemes": [["a", "int8/oops"]]}, "means nothing here: 'oops'"),
    ],
)
def test_malformed_documents_are_told_where(document, says):
    with pytest.raises((PlanError, SchemeError)) as error:
        from_json(document, "mine.json")
    assert says in str(error.value)
    assert "mine.json" in str(error.value)


def test_plans_are_read_from_files(tmp_path):
    path = tmp_path / "plan.json"
    made = Plan((("*.A", parse("int8")),), "mine")
    path.write_text(json.dumps(made.to_json()))
    assert read(path) == made


@pytest.mark.parametrize("content", [b"", b'{"sensprobe_plan": 1', b"\xff\xfe\x00"])
def test_damaged_files_are_one_message(tmp_path, content):
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(PlanError, match="cannot be read as a plan"):
        read(path)


def test_a_missing_file_and_a_folder_are_one_message(tmp_path):
    with pytest.raises(PlanError, match="no plan file at"):
        read(tmp_path / "none.json")
    with pytest.raises(PlanError, match="cannot be read as a plan"):
        read(tmp_path)


def test_uniform_names_itself_after_its_scheme():
    assert uniform(parse("int8"), SITES).name == "int8"
    assert all(
        s.kind is not Kind.ACTIVATION
        for s in SITES
        if s.name in dict(uniform(parse("int8"), SITES).entries)
    )


def test_every_layer_is_not_everything_inside_one():
    """`*` crosses dots, but in `layers.*.` it counts layers."""
    names = ["layers.0.B", "layers.12.B", "layers.0.in_proj.B", "B"]
    shared = [Site(name, Part.B, Kind.WEIGHT, (2,), (Axis.N,)) for name in names]
    found = {p: [s.name for s in matching(p, shared)] for p in ("layers.*.B", "*.B", "layers.*B")}
    assert found["layers.*.B"] == ["layers.0.B", "layers.12.B"]
    assert found["*.B"] == found["layers.*B"] == names[:3]
    assert [s.name for s in matching("layers.*.in_*", shared)] == ["layers.0.in_proj.B"]
