"""The guess of plans nobody has evaluated."""

from __future__ import annotations

import numpy as np
from search_problems import classifier

from sensprobe.search.exhaustive import every_assignment
from sensprobe.search.surrogate import Features, Surrogate

PROBLEM, EVALUATE, _ = classifier()
PLANS = list(every_assignment(PROBLEM))


def fitted() -> Surrogate:
    seen = PLANS[:: len(PLANS) // 9]
    scores = np.array([sample.score.mean() for sample in EVALUATE(seen, 0)])
    surrogate = Surrogate(Features(PROBLEM))
    surrogate.fit(seen, scores, ends=(0.1, 1.0))
    return surrogate


def test_a_plan_that_is_believed_moves_no_guess_and_leaves_less_in_doubt() -> None:
    surrogate = fitted()
    before, doubt = surrogate.predict(PLANS)
    most = int(doubt.argmax())
    score = surrogate.believe(PLANS[most])
    after, less = surrogate.predict(PLANS)
    assert score == surrogate.link.back(before[most])
    assert np.allclose(after, before, atol=1e-6)
    assert (less <= doubt + 1e-9).all()
    assert less[most] < 0.2 * doubt[most]


def test_what_was_believed_is_forgotten_by_the_next_fit() -> None:
    once, twice = fitted(), fitted()
    twice.believe(PLANS[1])
    for surrogate in (once, twice):
        seen = PLANS[:: len(PLANS) // 9]
        scores = np.array([sample.score.mean() for sample in EVALUATE(seen, 0)])
        surrogate.fit(seen, scores, ends=(0.1, 1.0))
    assert all(
        (a == b).all() for a, b in zip(once.predict(PLANS), twice.predict(PLANS), strict=True)
    )
