"""The model card says what it was told, in the right words, and no figure nobody gave."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from tiny_models import NAMES, applier, tiny

from sensprobe.evaluate import Score
from sensprobe.export import CardFacts, UniformFacts, export_model
from sensprobe.export.card import card_text
from sensprobe.export.markdown import code, fenced, plain
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import Resolved
from sensprobe.plans.scheme import parse
from sensprobe.scores.metrics import INFO, MetricInfo

MODEL = tiny(NAMES[1])
PLAN = {
    "layers.0.A": parse("int6/head"),
    "layers.1.A": parse("int4/head"),
    "layers.0.state": parse("int8/dynamic"),
}
FACTS = CardFacts(
    data="digits",
    data_fingerprint="0123456789abcdef",
    confirmed=Score(0.97222, 0.00866, 360, 360),
    baseline=Score(0.98056, 0.00728, 360, 360),
    difference=Score(-0.00833, 0.00551, 360, 360),
    uniform=UniformFacts("int6/head/asym", 4321, Score(0.6333, 0.0254, 360, 360)),
    source="s4d-digits",
    batch=4,
)


def card(tmp_path: Path, facts: CardFacts | None = None, plan: Resolved = PLAN) -> str:
    out = tmp_path / "mine"
    export_model(MODEL, plan, applier(NAMES[1]), out, name="my | plan", card=facts)
    return (out / "README.md").read_text()


def test_scores_come_with_error_count_and_data(tmp_path: Path) -> None:
    text = card(tmp_path, FACTS)
    total = cost(MODEL.sites.values(), PLAN, batch=4).total_bytes
    full = cost(MODEL.sites.values(), {}, batch=4).total_bytes
    assert f"| this plan | {total:,} | 97.22 ± 0.87 % | 360 |" in text
    assert f"| full precision | {full:,} | 98.06 ± 0.73 % | 360 |" in text
    assert "| `int6/head/asym` for every weight and state | 4,321 | 63.33 ± 2.54 % | 360 |" in text
    assert "Against full precision, sample by sample: -0.83 ± 0.55 points." in text
    assert "Measured on `digits`, on samples that calibration and search had not seen" in text
    assert "made from s4d-digits" in text
    assert "data `0123456789abcdef`" in text


def test_it_says_what_the_weights_took_as_the_user_had_them(tmp_path: Path) -> None:
    size = 2 * cost(MODEL.sites.values(), PLAN).weight_bytes
    text = card(tmp_path, replace(FACTS, stored_weight_bytes=size, stored_dtype="bfloat16"))
    assert f"{size:,} bytes as the model was stored (bfloat16), 2.00 times as many." in text


def test_without_scores_it_says_so(tmp_path: Path) -> None:
    text = card(tmp_path)
    assert "No score was given when this was exported." in text
    assert "±" not in text
    assert "%" not in text


def test_a_uniform_plan_nobody_measured_has_no_figure(tmp_path: Path) -> None:
    text = card(tmp_path, CardFacts(uniform=UniformFacts("int6", 99)))
    assert "| `int6` for every weight and state | 99 | not measured |" in text
    assert "The plan itself was not scored." in text


def test_other_metrics_are_not_percentages_and_groups_are_told(tmp_path: Path) -> None:
    score = Score(0.0123, 0.00067, 100, 9)
    text = card(
        tmp_path, CardFacts(task="regression", metric=INFO["squared_error"], confirmed=score)
    )
    assert "0.0123 ± 0.00067 | 100 |" in text
    assert "9 groups" in text
    alone = Score(0.5, float("inf"), 7, 1)
    export_model(
        MODEL, {}, applier(NAMES[1]), tmp_path / "b", name="", card=CardFacts(confirmed=alone)
    )
    assert "50.00 ± unknown %" in (tmp_path / "b" / "README.md").read_text()


def test_sizes_and_schemes_are_the_costs(tmp_path: Path) -> None:
    text = card(tmp_path, FACTS)
    ours, full = (cost(MODEL.sites.values(), plan, batch=4) for plan in (PLAN, {}))
    assert f"| weights and scales | {ours.weight_bytes:,} | {full.weight_bytes:,} |" in text
    assert f"| state of 4 sequences | {ours.state_bytes:,} | {full.state_bytes:,} |" in text
    # 4 heads of 3 complex numbers: 24 reals of 6 bits and 4 float16 scales; 4 bits; 8 and one scale
    assert "| `A` | `int6/head` | 1 | 24 | 26 | 96 |" in text
    assert "| `A` | `int4/head` | 1 | 24 | 20 | 96 |" in text
    assert "| `state` | `int8/dynamic` | 1 | 24 | 26 | 96 |" in text
    assert "| `state` | `fp32` | 1 | 24 | 96 | 96 |" in text


def test_it_says_how_to_load_and_stays_in_its_lines(tmp_path: Path) -> None:
    text = card(tmp_path, FACTS)
    assert text.startswith("# my \\| plan\n")
    assert 'sensprobe.load("mine")' in text
    assert "sensprobe eval mine --data digits" in text


def test_an_unstable_plan_is_called_so(tmp_path: Path) -> None:
    radius = MODEL.spectral_radius()
    assert f"Largest |A| as stored: {radius:.8f} (stable)." in card(tmp_path / "exact", plan={})
    plan = {"layers.0.A": parse("int3/tensor/range3")}
    assert "**unstable: the state can grow without bound**" in card(tmp_path, plan=plan)


def test_names_are_shown_as_names() -> None:
    hostile = "<script>x</script> [a](javascript:b) `c` **d** | ![e](f)\n# g"
    assert plain(hostile) == (
        r"&lt;script&gt;x&lt;/script&gt; \[a\]\(javascript:b\) \`c\` \*\*d\*\* \| \!\[e\]\(f\) \# g"
    )
    assert code("a `b` | c\nd") == "`` a `b` \\| c d ``"
    assert fenced(["x", "```", "y"]).count("```") == 2


def test_a_card_of_hostile_names() -> None:
    hostile = '<img src=x onerror=alert(1)>"); evil() #\n# heading'
    facts = CardFacts(
        data=hostile, source=hostile, metric=MetricInfo(hostile), searched=FACTS.confirmed
    )
    text = card_text(hostile, tiny(NAMES[0]), {}, facts, 0.5, {"model": hostile}, hostile)
    title, *rest = text.splitlines()
    assert title.startswith("# &lt;img src=x onerror=alert")
    assert not [line for line in rest if line.startswith("# ")]
    assert "<img" not in re.sub("```.*?```|`.*?`", "", text, flags=re.DOTALL)
    assert r'sensprobe.load("<img src=x onerror=alert(1)>\"); evil() # # heading")' in text
