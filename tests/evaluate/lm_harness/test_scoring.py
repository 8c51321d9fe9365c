"""Likelihoods: what a full forward says of each sequence, however they are batched."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sensprobe.evaluate.lm_harness.scoring as scoring
from sensprobe.evaluate.lm_harness.scoring import Asked, Scorer, blocks, width_of
from sensprobe.evaluate.lm_harness.sharing import apart, arranged, stretches
from sensprobe.evaluate.outcomes import CAP
from sensprobe.models import OUTPUT_BYTES
from sensprobe.models.apply import Applier
from sensprobe.numerics.taps import EXACT
from sensprobe.plans.scheme import parse

PLAN = {
    "layers.0.state": parse("int5/head/dynamic"),
    "layers.0.y": parse("int6/dynamic"),
    "embedding": parse("int4/channel"),
}
STEMS = ["", "The cat", "The cat that", "The cats", "A", "Question: why is the sky blue?\nAnswer:"]
TAILS = ["s", " sleeps.", " sleep.", " sleeps on the mat, and nobody knows why.", "", " is"]


def tokens_of(text: str) -> np.ndarray:
    return np.frombuffer(b"\n" + text.encode(), np.uint8).astype(np.int32)


def sentences() -> list[Asked]:
    """Sequences of many lengths, most of which begin as others do, some the same."""
    made = [Asked(tokens_of(f"{s}{t} "), 1) for s in STEMS for t in TAILS]
    return made + [Asked(one.tokens, max(1, len(one.tokens) - 5)) for one in made[::3]]


def by_hand(model, tap, one: Asked) -> tuple[float, bool]:
    """One sequence alone, in one forward."""
    x = torch.from_numpy(one.tokens[None].astype(np.int64))
    logits = model(x[:, :-1], tap)[0].double()
    targets = x[0, 1:]
    log_p = torch.log_softmax(logits, -1).gather(1, targets[:, None]).squeeze(1)
    right = logits.argmax(-1) == targets
    return float(log_p[one.first - 1 :].sum()), bool(right[one.first - 1 :].all())


def test_a_likelihood_is_the_sum_of_log_softmax(model, tap):
    asked = sentences()
    for one, found in zip(asked, Scorer(model, tap).likelihoods(asked), strict=True):
        value, greedy = by_hand(model, tap, one)
        assert found.value == pytest.approx(value, abs=2e-4)
        assert found.greedy == greedy


def test_what_greedy_decoding_gives_is_greedy(model):
    """And nothing else: the sentences above never are."""
    tokens = tokens_of("The")
    for _ in range(6):
        best = model(torch.from_numpy(tokens[None]))[0, -1].argmax()
        tokens = np.append(tokens, np.int32(best))
    worse = tokens.copy()
    worse[-3] ^= 1
    asked = [Asked(tokens, 4), Asked(worse, 4), Asked(worse, len(worse) - 1)]
    found = Scorer(model, EXACT).likelihoods(asked)
    assert [one.greedy for one in found[:2]] == [True, False]
    assert found[2].greedy == by_hand(model, EXACT, asked[2])[1]


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_the_batch_size_says_nothing(model, tap, batch):
    asked = sentences()
    want = Scorer(model, tap).likelihoods(asked)
    found = Scorer(model, tap, batch).likelihoods(asked)
    for a, b in zip(found, want, strict=True):
        assert a.value == pytest.approx(b.value, abs=2e-4)
        assert a.greedy == b.greedy


def test_the_order_says_nothing_to_the_bit(model, tap):
    asked = sentences()
    want = Scorer(model, tap, 16).likelihoods(asked)
    order = random.Random(0).sample(range(len(asked)), len(asked))
    found = Scorer(model, tap, 16).likelihoods([asked[i] for i in order])
    assert found == [want[i] for i in order]


def test_chance_draws_alike_in_any_order(model):
    tap = Applier(model).tap({"layers.0.state": parse("int5/head/dynamic/stochastic")})
    asked = sentences()
    want = Scorer(model, tap).likelihoods(asked)
    assert Scorer(model, tap).likelihoods(asked[::-1]) == want[::-1]
    assert want != Scorer(model, EXACT).likelihoods(asked)


def test_texts_longer_than_a_piece_go_on_from_their_state(model, tap, monkeypatch):
    asked = [Asked(tokens_of("the state decays " * 20), 1), Asked(tokens_of("short"), 2)]
    want = [by_hand(model, tap, one) for one in asked]
    monkeypatch.setattr(scoring, "MOST", 8)
    found = Scorer(model, tap).likelihoods(asked)
    for one, (value, greedy) in zip(found, want, strict=True):
        assert one.value == pytest.approx(value, abs=1e-3)
        assert one.greedy == greedy


def test_outputs_that_are_not_finite_cost_the_most(model):
    weights = dict(model.weights)
    weights["layers.0.D"] = torch.full_like(weights["layers.0.D"], float("inf"))
    broken = type(model)(model.config, weights)
    found = Scorer(broken, EXACT).likelihoods([Asked(tokens_of("abcd"), 2)])[0]
    assert (found.value, found.greedy) == (-3 * CAP, False)


def test_every_sequence_is_ticked_once(model):
    ticks: list[int] = []
    Scorer(model, EXACT, 10, ticks.append).likelihoods(sentences())
    assert sum(ticks) == len(sentences())
    assert Scorer(model, EXACT).likelihoods([]) == []


def test_what_is_shared_is_run_once(model, monkeypatch):
    """The two sentences of a pair, whose first 40 bytes are the same."""
    same = "x" * 39
    asked = [Asked(tokens_of(f"{same}{tail}"), 1) for tail in ("abcdefgh", "ijklmnop")]
    run, read = scoring.run, []
    monkeypatch.setattr(
        scoring, "run", lambda model, x, *more: read.append(x.numel()) or run(model, x, *more)
    )
    Scorer(model, EXACT).likelihoods(asked)
    apart = sum(len(one.tokens) - 1 for one in asked)
    assert sum(read) <= apart - 36


def test_blocks_hold_no_more_than_fits(model):
    lengths = [100] * 50
    assert [len(b) for b in blocks(range(50), lengths, model, 20)] == [20, 20, 10]
    long = OUTPUT_BYTES // (4 * 256 * 1024) * 2  # half of 20 times this many outputs fit
    found = [len(b) for b in blocks(range(50), [10**6] * 50, model, 2 * long)]
    assert found[0] <= long // 2 * 2
    assert max(found) * 4 * 256 * width_of(10**6) <= OUTPUT_BYTES
    assert sum(found) == 50


def test_what_is_apart_is_counted_once():
    same = [tokens_of(text) for text in ("abcdefgh", "abcdefxy", "q", "abcdefgh")]
    assert apart(same) == (9 + 2) + (2 - 1)  # of nine tokens, two more; a newline is shared
    assert apart([]) == 0


texts = st.lists(st.text("ab", min_size=1, max_size=9), min_size=1, max_size=8)


@given(texts=texts, width=st.integers(1, 5))
def test_stretches_are_the_sequences_cut_up(texts, width):
    sequences = [tokens_of(text) for text in texts]
    found = stretches(sequences, width)
    for k, tokens in enumerate(sequences):
        read, target, row = [], [], None
        for stretch in found:
            before, row = row, int(stretch.rows[k])
            if row < 0:
                break
            own = min(width, len(tokens) - 1 - stretch.at)
            read += stretch.tokens[row, :own].tolist()
            target += stretch.tokens[row, 1 : own + 1].tolist()
            assert before is None or stretch.parents[row] == before
        assert (read, target) == (tokens[:-1].tolist(), tokens[1:].tolist())
    for stretch in found:
        assert len({row.tobytes() for row in np.c_[stretch.parents, stretch.tokens]}) == len(
            stretch.tokens
        )


@given(texts=texts, seed=st.integers(0, 99))
def test_an_arrangement_holds_everything_and_no_order(texts, seed):
    sequences = [tokens_of(text) for text in texts]
    order = arranged(sequences)
    assert sorted(order) == list(range(len(sequences)))
    shuffled = random.Random(seed).sample(sequences, len(sequences))
    again = [shuffled[i].tolist() for i in arranged(shuffled)]
    assert again == [sequences[i].tolist() for i in order]
