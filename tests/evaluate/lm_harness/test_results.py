"""Rows of lm-eval's results, and differences against their definitions."""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Any

import numpy as np
import pytest

from sensprobe.evaluate.lm_harness.results import rows
from sensprobe.scores.score import paired

RIGHT = {"new": [1, 0, 1, 1, 0, 1], "old": [1, 1, 1, 1, 0, 0]}


def results(tasks: dict[str, dict[str, list[Any]]], groups: dict[str, list[str]] = {}) -> Any:  # noqa: B006
    """What lm-eval returns of tasks that have per-sample values of metrics, means aggregated."""
    found: dict[str, Any] = {}
    for task, metrics in tasks.items():
        found[task] = {"alias": task, "sample_len": 0}
        for metric, values in metrics.items():
            plain = [v if np.ndim(v) == 0 else v[0] for v in values]
            found[task] |= {f"{metric},none": float(np.mean(plain)), f"{metric}_stderr,none": "N/A"}
            if metric == "acc":
                error = np.std(plain, ddof=1) / sqrt(len(plain))
                found[task] |= {f"{metric}_stderr,none": float(error)}
    samples = {
        task: [
            {"doc_id": i, "filter": "none"} | {m: values[i] for m, values in metrics.items()}
            for i in range(len(next(iter(metrics.values()))))
        ]
        for task, metrics in tasks.items()
    }
    counts = {t: {"original": 99, "effective": len(s)} for t, s in samples.items()}
    better = {task: dict.fromkeys(metrics, True) for task, metrics in tasks.items()}
    return {
        "results": found,
        "group_subtasks": {**{task: [] for task in tasks}, **groups},
        "n-samples": counts,
        "higher_is_better": better,
        "samples": samples,
    }


def only(found: Any, base: Any) -> dict[str, Any]:
    [row] = rows(found, base)
    return row


def test_a_row_says_what_lm_eval_says() -> None:
    found = results({"words": {"acc": RIGHT["new"]}})
    [row] = rows(found)
    assert row == {
        "task": "words",
        "members": [],
        "metric": "acc",
        "filter": "none",
        "value": pytest.approx(4 / 6),
        "stderr": pytest.approx(np.std(RIGHT["new"], ddof=1) / sqrt(6)),
        "n": 6,
        "higher_is_better": True,
    }


def test_an_error_that_lm_eval_does_not_give_is_none() -> None:
    assert rows(results({"t": {"f1": [1.0, 0.5]}}))[0]["stderr"] is None


def test_means_are_paired_by_document() -> None:
    base = results({"words": {"acc": RIGHT["old"]}})
    found = results({"words": {"acc": RIGHT["new"]}})
    found["samples"]["words"].reverse()  # documents are told by their number
    row = only(found, base)
    want = paired(np.array(RIGHT["new"]), np.array(RIGHT["old"]))
    assert row["baseline"]["value"] == pytest.approx(4 / 6)
    gap = row["difference"]
    assert (gap["value"], gap["stderr"], gap["n"]) == (want.value, want.stderr, 6)
    assert gap["unit"] == "acc"
    apart = sqrt(2) * np.std(RIGHT["new"], ddof=1) / sqrt(6)
    assert gap["stderr"] < apart


def test_perplexity_is_compared_by_its_logarithm() -> None:
    new, old = np.array([-3.0, -2.0, -4.5]), np.array([-2.5, -2.25, -4.0])
    found, base = (results({"t": {"perplexity": v.tolist()}}) for v in (new, old))
    for one, values in ((found, new), (base, old)):
        one["results"]["t"]["perplexity,none"] = exp(-values.mean())
    gap = only(found, base)["difference"]
    ratio = found["results"]["t"]["perplexity,none"] / base["results"]["t"]["perplexity,none"]
    assert gap["value"] == pytest.approx(log(ratio))
    assert gap["stderr"] == pytest.approx(np.std(old - new, ddof=1) / sqrt(3))


def test_a_ratio_of_sums_is_compared_as_one() -> None:
    """bits_per_byte: all bits over all bytes; documents have their own lengths."""
    draw = np.random.default_rng(0)
    weights = draw.integers(20, 900, 400)
    old = -weights * draw.normal(1.4, 0.1, 400)
    new = old - weights * draw.normal(0.05, 0.2, 400)

    def bits(values: np.ndarray, picked: np.ndarray) -> float:
        return -values[picked].sum() / weights[picked].sum() / log(2)

    found, base = (
        results({"t": {"bits_per_byte": list(zip(v.tolist(), weights.tolist(), strict=True))}})
        for v in (new, old)
    )
    gap = only(found, base)["difference"]
    everything = np.arange(400)
    assert gap["value"] == pytest.approx(bits(new, everything) - bits(old, everything))
    picks = [draw.integers(0, 400, 400) for _ in range(2000)]
    spread = np.std([bits(new, p) - bits(old, p) for p in picks])
    assert gap["stderr"] == pytest.approx(spread, rel=0.06)
    assert gap["unit"] == "bits a byte"


@pytest.mark.parametrize("by_size", [False, True])
def test_a_group_weighs_its_tasks_as_its_score_does(by_size: bool) -> None:
    tasks = {"a": RIGHT["new"], "b": [1, 1, 1]}, {"a": RIGHT["old"], "b": [1, 0, 1]}
    found, base = (
        results({t: {"acc": v} for t, v in side.items()}, {"both": ["a", "b"]}) for side in tasks
    )
    weights = np.array([6, 3]) / 9 if by_size else np.array([0.5, 0.5])
    for one in (found, base):
        values = [one["results"][t]["acc,none"] for t in ("a", "b")]
        one["results"]["both"] = {"acc,none": float(weights @ values), "acc_stderr,none": 0.1}
    group, a, b = rows(found, base)
    assert (group["task"], group["members"], group["n"]) == ("both", ["a", "b"], 9)
    gaps = [a["difference"], b["difference"]]
    assert group["difference"]["value"] == pytest.approx(weights @ [g["value"] for g in gaps])
    assert group["difference"]["value"] == pytest.approx(
        group["value"] - group["baseline"]["value"]
    )
    assert group["difference"]["stderr"] == pytest.approx(
        sqrt(sum((w * g["stderr"]) ** 2 for w, g in zip(weights, gaps, strict=True)))
    )


@pytest.mark.parametrize("values", [[["a", 1], ["b", 2]], ["x", "y"], [[1, 2, 3], [4, 5, 6]]])
def test_values_of_another_kind_are_not_paired(values: list[Any]) -> None:
    found = results({"t": {"acc": [1, 0]}})
    for sample, value in zip(found["samples"]["t"], values, strict=True):
        sample["acc"] = value
    row = only(found, found)
    assert "baseline" in row
    assert "difference" not in row
