"""What lm-eval gets from a model: its own interface, against definitions."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import pytest
import torch
from language import MAMBA, MAMBA2, SAMPLE, byte_level
from lm_requests import harness, requests
from selective import tiny

from sensprobe.data import BYTES, FileTokenizer, Split
from sensprobe.data.windows import IGNORED
from sensprobe.errors import DataError, UsageError
from sensprobe.evaluate import TextEvaluator
from sensprobe.models.apply import Applier
from sensprobe.numerics.taps import EXACT
from sensprobe.plans.scheme import parse

pytestmark = pytest.mark.lm
PLAN = {"layers.0.state": parse("int5/head/dynamic"), "embedding": parse("int4/channel")}


@pytest.fixture(params=[MAMBA, MAMBA2], ids=["mamba", "mamba2"])
def model(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


def log_p(model: Any, tap: Any, tokens: list[int], first: int) -> float:
    x = torch.tensor([tokens])
    rows = torch.log_softmax(model(x[:, :-1], tap)[0].double(), -1)
    return float(rows.gather(1, x[0, 1:, None])[first - 1 :].sum())


@pytest.mark.parametrize("plan", [{}, PLAN], ids=["exact", "rounded"])
def test_a_continuation_is_scored_after_its_context(model: Any, plan: Any) -> None:
    tap = Applier(model).tap(plan) if plan else EXACT
    pairs = [
        ("The state", " decays"),
        ("The state", " decay"),
        ("", "Alone."),
        ("", " Alone."),
        ("A ", "b"),
        ("x", ""),
    ]
    found = harness(model, tap).loglikelihood(requests("loglikelihood", *pairs))
    want = [
        log_p(model, tap, list(b"The state decays"), 9),
        log_p(model, tap, list(b"The state decay"), 9),
        log_p(model, tap, list(b". Alone."), 2),
        log_p(model, tap, list(b". Alone."), 1),  # as lm-eval has it, the space is the text's
        log_p(model, tap, list(b"A b"), 1),  # a space at the end counts to what follows
        0.0,
    ]
    assert [value for value, _ in found] == pytest.approx(want, abs=1e-4)
    assert found[-1] == (0.0, True)
    assert not any(greedy for _, greedy in found[:3])


def test_rolling_is_the_bits_per_byte_of_a_window(model: Any) -> None:
    text = "the state decays while steps go on"
    whole = torch.tensor([list(f". {text}".encode())], dtype=torch.int32)
    x, y, size = whole[:, :-1], whole[:, 1:].clone(), torch.tensor([len(text)])
    y[:, 0] = IGNORED  # a text starts after a full stop and this space
    split = Split("search", x, y, None, torch.arange(1), "", "", size)
    for plan in ({}, PLAN):
        applier = Applier(model)
        bits = TextEvaluator(model, applier, split).evaluate(plan, 0, 1)["bits_per_byte"][0]
        tap = applier.tap(plan) if plan else EXACT
        asked = requests("loglikelihood_rolling", (text,), ("",))
        [value, empty] = harness(model, tap).loglikelihood_rolling(asked)
        assert -value / log(2) / len(text) == pytest.approx(bits, rel=1e-5)
        assert empty == 0.0


def test_it_writes_until_a_stop_string(model: Any) -> None:
    plain = {"until": [], "max_gen_toks": 16}
    [whole] = harness(model).generate_until(requests("generate_until", ("The ", plain)))
    tokens = list(b"The ")
    for _ in range(16):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    assert whole == BYTES.decode(tokens[4:])
    stop = whole[5:7]
    asked = [("The ", plain | {"until": until}) for until in (stop, [stop, ""], ["\0\0never"])]
    found = harness(model).generate_until(requests("generate_until", *asked))
    assert found == [whole[: whole.find(stop)]] * 2 + [whole]
    assert harness(model).generate_until(requests("generate_until", ("", plain))) == harness(
        model
    ).generate_until(requests("generate_until", (". ", plain)))


def test_sampling_is_refused(model: Any) -> None:
    with pytest.raises(UsageError, match="sensprobe decodes greedily"):
        harness(model).generate_until(requests("generate_until", ("The ", {"do_sample": True})))
    cold = {"do_sample": True, "temperature": 0.0, "max_gen_toks": 2}
    assert len(harness(model).generate_until(requests("generate_until", ("The ", cold)))) == 1


def test_tokens_of_a_file_are_scored_as_its_library_makes_them(tmp_path: Any) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    file = byte_level(tmp_path / "tokenizer.json")
    own = tokenizers.Tokenizer.from_file(str(file))
    size = FileTokenizer(file).size
    from dataclasses import replace

    model = tiny(replace(MAMBA, d_input=size, d_output=size))
    lm = harness(model, EXACT, FileTokenizer(file))
    context, continuation = SAMPLE[:30], SAMPLE[30:60]
    before = len(own.encode(context.rstrip()).ids)
    start = own.token_to_id("<|endoftext|>")
    found = lm.loglikelihood(requests("loglikelihood", (context, continuation), ("", continuation)))
    assert found[0][0] == pytest.approx(
        log_p(model, EXACT, own.encode(context + continuation).ids, before), abs=1e-4
    )
    assert found[1][0] == pytest.approx(
        log_p(model, EXACT, [start, *own.encode(continuation).ids], 1), abs=1e-4
    )
    small = tiny(replace(MAMBA, d_input=270, d_output=270))
    with pytest.raises(DataError, match="the model knows 0 to 269"):
        harness(small, EXACT, FileTokenizer(file)).loglikelihood(
            requests("loglikelihood", (context, continuation))
        )


def test_it_tells_how_far_it_is(model: Any) -> None:
    class Told:
        def __init__(self) -> None:
            self.totals: list[float] = []
            self.done = 0.0

        def begin(self, title: str, total: float, seconds: float | None = None) -> None:
            self.totals.append(total)
            self.seconds = seconds

        def advance(self, units: float = 1) -> None:
            self.done += units

        def end(self) -> None: ...

        def note(self, text: str) -> None: ...

    from sensprobe.evaluate.lm_harness.model import HarnessModel

    told = Told()
    lm = HarnessModel(model, EXACT, BYTES, "tiny", 8, told)
    few = [("", "ab"), ("", ""), ("x", "yz")]
    lm.loglikelihood(requests("loglikelihood", *few))
    assert (told.totals, told.done, told.seconds) == ([2], 2, None)
    lm.loglikelihood(requests("loglikelihood", *[("", f"{k}" * 1000) for k in range(100)]))
    assert told.seconds is not None
    assert 0 < told.seconds < 1000
    assert np.isfinite(told.done)


def test_it_keeps_what_leaves_its_range(model: Any) -> None:
    tap = Applier(model).tap({"layers.0.state": parse("e4m3/range0.001")})
    lm = harness(model, tap)
    asked = requests("loglikelihood", *[("The state", f" decays {k}") for k in range(6)])
    lm.loglikelihood(asked)
    [found] = lm.saturated
    assert (found.site.name, found.beyond > 0) == ("layers.0.state", True)
    lm.loglikelihood(asked)
    assert lm.saturated == [found]
