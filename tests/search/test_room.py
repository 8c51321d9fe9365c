"""Plans asked for several at a time; with a room of one, the plans of before there was room.

`recorded.json` is of the version that evaluated one plan after the other: the plans of each method
in order, samples seen and name, and a digest of every number.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from search_problems import classifier

from sensprobe.search import Assignment, Budget, Sample, SearchResult, search

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())
PROBLEM, EVALUATE, BASELINE = classifier()
UNIFORM = {f"int{b}": (k,) * len(PROBLEM.decisions) for k, b in enumerate((3, 4, 6, 8))}
MIDDLE = (PROBLEM.smallest().total + PROBLEM.largest().total) // 2
BUDGETS = {
    "front": (),
    "bytes": (Budget(total=MIDDLE),),
    "loss": (Budget(max_loss=0.02),),
    "three": (Budget(total=MIDDLE), Budget(total=MIDDLE * 3 // 4), Budget(max_loss=0.05)),
}
METHODS = ("gains", "direct", "frontier", "exhaustive")


def run(
    method: str, budgets: Sequence[Budget], room: int, allowed: int = 20
) -> tuple[SearchResult, list[list[Assignment]], Counter[tuple[Assignment, int]]]:
    """The result, the plans of every call on the first piece, and how often each was asked for."""
    together: list[list[Assignment]] = []
    asked: Counter[tuple[Assignment, int]] = Counter()

    def evaluate(assignments: Sequence[Assignment], piece: int) -> Sequence[Sample]:
        if piece == 0:
            together.append(list(assignments))
        asked.update((assignment, piece) for assignment in assignments)
        return EVALUATE(assignments, piece)

    found = search(
        PROBLEM, budgets, evaluate, baseline=BASELINE, method=method,  # type: ignore[arg-type]
        evaluations=PROBLEM.count if method == "exhaustive" else allowed, seed=1,
        uniform=UNIFORM, chance=0.1, room=room,
    )  # fmt: skip
    return found, together, asked


@pytest.mark.parametrize("name", RECORDED)
def test_with_a_room_of_one_plans_are_those_of_before_to_the_bit(name: str) -> None:
    method, budgets = name.split()
    found, together, _ = run(method, BUDGETS[budgets], 1)
    plans = [
        ["".join(map(str, c.assignment)), c.name, c.n, c.score, c.extra_nats]
        for c in found.candidates
    ]
    want = RECORDED[name]
    short = [f"{p[0]} {p[2]} {p[1]}" for p in plans[: len(want["plans"])]]
    assert short == want["plans"]
    assert sha256(json.dumps(plans).encode()).hexdigest() == want["digest"]
    assert found.spent == want["spent"]
    assert [
        [c.candidate and c.candidate.name, c.uniform and c.uniform.name, c.hand and c.hand.name,
         c.hand_about] for c in found.choices
    ] == want["chosen"]  # fmt: skip
    assert all(len(plans) == 1 for plans in together)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budgets", BUDGETS)
def test_no_plan_is_asked_for_twice_and_none_beyond_what_is_allowed(
    method: str, budgets: str
) -> None:
    found, together, asked = run(method, BUDGETS[budgets], 3)
    assert set(asked.values()) == {1}
    assert max(map(len, together)) == 3
    assert {plan for plan, _ in asked} == {c.assignment for c in found.candidates}
    samples = sum(BASELINE[piece].n for _, piece in asked)
    assert found.spent == pytest.approx(samples / sum(piece.n for piece in BASELINE))
    if method != "exhaustive":
        assert found.spent <= 20 + sum(b.limits_bytes for b in BUDGETS[budgets]) + 1e-9
    names = [c.name for c in found.candidates]
    assert len(set(names)) == len(names)


@pytest.mark.thorough
def test_plans_of_one_proposal_have_the_name_of_their_method() -> None:
    """A study is told of one plan a trial; the others are no swaps, which differ from a plan of the
    front in one option."""
    found, _, _ = run("gains", BUDGETS["front"], 5, allowed=60)
    known: set[Assignment] = set()
    for c in found.candidates:
        near = min((sum(a != b for a, b in zip(c.assignment, k, strict=True)) for k in known),
                   default=0)  # fmt: skip
        assert not c.name.startswith("swap") or near == 1
        known.add(c.assignment)


def test_plans_that_wait_for_nothing_fill_the_room() -> None:
    _, together, _ = run("exhaustive", (), 7)
    first = -(-len(UNIFORM) // 7)
    assert {len(plans) for plans in together[first:-1]} == {7}
    _, together, _ = run("gains", BUDGETS["front"], 4, allowed=40)
    assert sum(len(plans) == 4 for plans in together) >= len(together) - 4


@pytest.mark.parametrize("method", ["exhaustive", "frontier"])
def test_methods_that_learn_nothing_find_the_same_in_any_room(method: str) -> None:
    """Where no race stops a plan: the plans alone say what is asked next."""
    one, _, _ = run(method, BUDGETS["bytes"], 1)
    many, _, _ = run(method, BUDGETS["bytes"], 5)
    assert [c.assignment for c in one.candidates] == [c.assignment for c in many.candidates]
    assert [c.score for c in one.candidates] == [c.score for c in many.candidates]
    assert one.choices == many.choices


@pytest.mark.thorough
def test_a_room_finds_a_front_as_good() -> None:
    """Told less before each plan, the search still reaches what it reaches one at a time."""
    scores = [
        max(c.score for c in run("gains", BUDGETS["bytes"], room, 40)[0].candidates)
        for room in (1, 4)
    ]
    assert scores[1] >= scores[0] - 0.01
