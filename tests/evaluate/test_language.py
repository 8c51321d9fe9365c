"""Bits a byte, divergence and positions of text, against sums by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from sensprobe.evaluate import language as rooms
from sensprobe.evaluate.language import bucket_of, language
from sensprobe.evaluate.outcomes import CAP

WINDOWS, LENGTH, VOCABULARY, CONTEXT = 3, 9, 5, 2


@pytest.fixture
def outputs() -> tuple[Tensor, Tensor, Tensor]:
    """Logits, other logits, and targets whose first two are context."""
    draw = torch.Generator().manual_seed(1)
    logits, other = 3 * torch.randn(2, WINDOWS, LENGTH, VOCABULARY, generator=draw)
    y = torch.randint(0, VOCABULARY, (WINDOWS, LENGTH), generator=draw, dtype=torch.int32)
    y[:, :CONTEXT] = -1
    return logits, other, y


def by_hand(logits: Tensor, other: Tensor, y: Tensor) -> list[list[dict[str, float]]]:
    """nats, right and divergence of every scored position, one number at a time."""
    rows = []
    for i in range(WINDOWS):
        row = []
        for t in range(CONTEXT, LENGTH):
            p = np.exp(logits[i, t].double().numpy())
            q = np.exp(other[i, t].double().numpy())
            p, q = p / p.sum(), q / q.sum()
            row.append(
                {
                    "nats": -log(p[y[i, t]]),
                    "right": float(p.argmax() == int(y[i, t])),
                    "kl": float(sum(b * log(b / a) for a, b in zip(p, q, strict=True))),
                    "read": t + 1,
                }
            )
        rows.append(row)
    return rows


@pytest.mark.parametrize("room", [2**22, 7, 1])
def test_every_array_is_what_its_definition_says(outputs, room, monkeypatch) -> None:
    logits, other, y = outputs
    monkeypatch.setattr(rooms, "ROOM", room)
    found = language(logits, y, bytes_a_window=11.5, baseline=other)
    rows = by_hand(logits, other, y)
    want = {
        "cross_entropy": [np.mean([t["nats"] for t in row]) for row in rows],
        "correct": [np.mean([t["right"] for t in row]) for row in rows],
        "kl": [np.mean([t["kl"] for t in row]) for row in rows],
        "bits_per_byte": [sum(t["nats"] for t in row) / log(2) / 11.5 for row in rows],
    }
    for name, values in want.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, rtol=1e-6)
    assert found["correct"].max() > 0


def test_positions_are_by_tokens_read(outputs) -> None:
    logits, other, y = outputs
    found = language(logits, y, 11.5, other)
    rows = by_hand(logits, other, y)
    edges = {4: (3, 4), 8: (5, 8), 16: (9, 9)}  # 1 and 2 are context
    assert {n for n in found if "@" in n} == {
        f"{a}@{e}" for a in ("bits_per_byte", "kl") for e in edges
    }
    scored = LENGTH - CONTEXT
    for last, (low, high) in edges.items():
        here = [[t for t in row if low <= t["read"] <= high] for row in rows]
        kl = [np.mean([t["kl"] for t in row]) for row in here]
        np.testing.assert_allclose(found[f"kl@{last}"], kl, rtol=1e-6)
        bits = [np.mean([t["nats"] for t in row]) / log(2) * scored / 11.5 for row in here]
        np.testing.assert_allclose(found[f"bits_per_byte@{last}"], bits, rtol=1e-6)


def test_positions_weighed_by_their_tokens_are_the_whole(outputs) -> None:
    logits, other, y = outputs
    found = language(logits, y, 11.5, other)
    counts = {4: 2, 8: 4, 16: 1}
    for name in ("bits_per_byte", "kl"):
        joined = sum(n * found[f"{name}@{e}"].astype(float) for e, n in counts.items()) / 7
        np.testing.assert_allclose(joined, found[name], rtol=1e-6)


def test_context_does_not_count(outputs) -> None:
    logits, other, y = outputs
    changed = logits.clone()
    changed[:, :CONTEXT] = torch.randn(WINDOWS, CONTEXT, VOCABULARY)
    before, after = language(logits, y, 5, other), language(changed, y, 5, other)
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])
    changed[:, CONTEXT] += torch.arange(VOCABULARY)
    assert (language(changed, y, 5, other)["kl"] != before["kl"]).all()


def test_outputs_that_are_not_finite_cost_the_cap_where_they_stand(outputs) -> None:
    logits, other, y = outputs
    before = language(logits, y, 5, other)
    broken = logits.clone()
    broken[0, -1, 2] = float("nan")
    broken[1, -1, 2] = float("inf")
    found = language(broken, y, 5, other)
    assert (found["kl@16"][:2] == CAP).all()
    np.testing.assert_allclose(found["bits_per_byte@16"][:2], CAP / log(2) * 7 / 5)
    assert found["correct"][0] <= before["correct"][0]
    for name in before:
        np.testing.assert_array_equal(found[name][2], before[name][2])
        if name.endswith(("@4", "@8")):
            np.testing.assert_array_equal(found[name], before[name])


def test_nothing_is_compared_where_there_is_no_baseline(outputs) -> None:
    logits, other, y = outputs
    found = language(logits, y, 5, None)
    assert not [name for name in found if name.startswith("kl")]
    np.testing.assert_array_equal(
        found["cross_entropy"], language(logits, y, 5, other)["cross_entropy"]
    )


def test_names_of_positions() -> None:
    assert bucket_of("kl@64") == ("kl", 64)
    assert bucket_of("kl") is None
    assert bucket_of("custom@64") is None
