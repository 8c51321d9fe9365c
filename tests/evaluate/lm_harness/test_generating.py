"""Continuations: greedy decoding by full forwards, whatever runs together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from language import byte_level

import sensprobe.evaluate.lm_harness.generating as generating
from sensprobe.data import BYTES, FileTokenizer
from sensprobe.evaluate.lm_harness.generating import Prompt, Writer
from sensprobe.numerics.taps import EXACT
from sensprobe.plans.scheme import parse

PLAN = {"layers.0.state": parse("int6/head/dynamic"), "embedding": parse("int6/channel")}
PROMPTS = ["The state ", "The models", "A", "of decay, ", "Z", "the state of a model decays"]


def tokens_of(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32)


def prompts(most: int = 12, until: tuple[str, ...] = ()) -> list[Prompt]:
    return [Prompt(tokens_of(text), until, most) for text in PROMPTS]


def by_hand(model, tap, text: str, most: int) -> list[int]:
    """Greedy decoding that reads everything again for each token."""
    tokens = tokens_of(text)
    for _ in range(most):
        best = model(torch.from_numpy(tokens[None].astype(np.int64)), tap)[0, -1].argmax()
        tokens = np.append(tokens, np.int32(best))
    return tokens[len(text.encode()) :].tolist()


def test_a_continuation_is_greedy_decoding(model, tap):
    want = [bytes(by_hand(model, tap, text, 12)).decode("utf-8", "replace") for text in PROMPTS]
    assert Writer(model, tap, BYTES).continued(prompts()) == want
    assert len(set(want)) > 1


@pytest.mark.parametrize("batch", [1, 2])
def test_batches_and_order_say_nothing(model, tap, batch):
    want = Writer(model, tap, BYTES).continued(prompts())
    assert Writer(model, tap, BYTES, batch).continued(prompts()[::-1]) == want[::-1]


def test_it_stops_where_a_stop_string_begins(model, tap):
    plain = Writer(model, tap, BYTES).continued(prompts(20))
    stops = {text[9:11] for text in plain}
    found = Writer(model, tap, BYTES).continued(prompts(20, tuple(stops)))
    for text, whole in zip(found, plain, strict=True):
        first = min(whole.find(stop) for stop in stops if stop in whole)
        assert text == whole[:first]
        assert len(text) <= 9


def test_each_prompt_has_its_own_length(model):
    asked = [Prompt(tokens_of("ab"), (), most) for most in (0, 1, 5)]
    found = [len(one.made) for one in asked if Writer(model, EXACT, BYTES).continued([one]) != [""]]
    assert found == [1, 5]
    asked = [Prompt(tokens_of("ab"), (), most) for most in (5, 0, 1)]
    texts = Writer(model, EXACT, BYTES).continued(asked)
    assert [len(one.made) for one in asked] == [5, 0, 1]
    assert texts[0].startswith(texts[2])


def test_a_prompt_longer_than_a_piece(model, tap, monkeypatch):
    want = Writer(model, tap, BYTES).continued(prompts())
    monkeypatch.setattr(generating, "MOST", 4)
    assert Writer(model, tap, BYTES).continued(prompts()) == want


def test_every_prompt_is_ticked_once(model):
    ticks: list[int] = []
    Writer(model, EXACT, BYTES, 2, ticks.append).continued(prompts())
    assert sum(ticks) == len(PROMPTS)


def test_the_end_of_a_text_ends_it(model, tmp_path):
    class Ends(FileTokenizer):
        @property
        def ends(self) -> tuple[int, ...]:
            return 299, int(by_hand(model, EXACT, "The state ", 5)[-1])

    reader = Ends(byte_level(tmp_path / "tokenizer.json"))
    one = Prompt(tokens_of("The state "), (), 9)
    text = Writer(model, EXACT, reader).continued([one])[0]
    made = by_hand(model, EXACT, "The state ", 5)
    assert one.made == made[: made.index(made[-1])]
    assert text == reader.decode(one.made)
