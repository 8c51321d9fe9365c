"""ListOps against its grammar: a parser, written from the paper, reads every expression."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch

from sensprobe.data import load_data
from sensprobe.data.listops import SIZES, VOCABULARY, expressions
from sensprobe.errors import UsageError

WORDS = [" ", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]"]
RESULTS = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}


def words(row: np.ndarray) -> list[str]:
    return [WORDS[token] for token in row if WORDS[token] != " "]


def parse(text: list[str], depth: int = 1) -> tuple[int, int]:
    """The value of the expression that words begin with, and its depth; takes them away."""
    word = text.pop(0)
    if word in WORDS[1:11]:
        return int(word), depth
    found = []
    while text[0] != "]":
        found.append(parse(text, depth + 1))
    text.pop(0)
    assert 2 <= len(found) <= 10
    values, depths = zip(*found, strict=True)
    return RESULTS[word](values), max(depths)


@pytest.mark.parametrize("length", [2000, 64, 17])
def test_every_expression_is_of_the_grammar_and_its_class_is_its_result(length: int) -> None:
    x, y = expressions(length, 60)
    for row, label in zip(x, y, strict=True):
        text = words(row)
        assert length // 4 < len(text) < length
        assert not row[: length - len(text)].any()  # what fills up stands before it
        value, depth = parse(text)
        assert (value, text) == (label, [])
        assert 2 <= depth <= 10


def test_digits_operations_and_arguments_are_uniform() -> None:
    x, _ = expressions(200, 2000)
    counts = np.bincount(x.flatten(), minlength=VOCABULARY)
    for some in (counts[1:11], counts[11:15]):
        assert abs(some / some.mean() - 1).max() < 0.05  # 10,000 or more of each, nested in 1,000
    assert counts[15] == counts[11:15].sum()


def test_the_beginning_does_not_depend_on_how_many_are_drawn() -> None:
    (few, a), (many, b) = expressions(32, 100), expressions(32, 3000)
    assert np.array_equal(few, many[:100])
    assert np.array_equal(a, b[:100])


def test_the_same_expressions_on_every_machine() -> None:
    x, y = expressions(16, 4)
    assert [" ".join(words(row)) for row in x] == [
        "[MAX 6 4 4 9 7 5 6 0 ]",
        "[MAX 5 2 5 ]",
        "[MIN 8 3 4 9 6 7 2 0 2 ]",
        "[MAX [MED 7 2 [MED 8 3 8 4 5 ] ] 6 8 ]",
    ]
    assert y.tolist() == [9, 5, 0, 8]


def test_splits_are_disjoint_even_where_expressions_are_few() -> None:
    x, _ = expressions(16, 6000)
    assert len(np.unique(x, axis=0)) == 6000
    data = load_data("listops,length=16")
    assert data.sizes() == {name: SIZES[name] for name in data.splits}
    place = data.splits["search"].index
    assert torch.equal(data.splits["search"].x, torch.from_numpy(x[place].astype(np.int32)))
    held_out = [data.splits[name].index for name in ("confirmation", "search", "calibration")]
    ends = [(int(index[0]), int(index[-1])) for index in held_out]
    assert ends == [(0, 1999), (2000, 3999), (4000, 4499)]
    assert data.splits.fingerprint("train") != data.splits.fingerprint("search")


def test_it_is_a_task_of_tokens() -> None:
    data = load_data("listops,length=20")
    assert (data.task, data.classes, data.outputs) == ("classification", 10, 10)
    assert (data.length, data.d_input, data.tokens, data.per_step) == (20, 16, True, False)
    split = data.splits["calibration"]
    assert (split.x.dtype, split.y.dtype) == (torch.int32, torch.int64)
    assert split.x.shape == (500, 20)
    assert data.fingerprint != load_data("listops,length=21").fingerprint


def test_options_there_are_not() -> None:
    with pytest.raises(UsageError, match="length=15: give at least 16"):
        load_data("listops,length=15")
    with pytest.raises(UsageError, match="length=10001: give at least 16 and at most 10,000"):
        load_data("listops,length=10001")
    with pytest.raises(UsageError, match="give a whole number of at most 9 digits"):
        load_data("listops,length=" + "9" * 5000)
    with pytest.raises(UsageError, match="no option 'lenth=20'; did you mean length"):
        load_data("listops,lenth=20")
    with pytest.raises(UsageError, match="did you mean listops"):
        load_data("listop,length=20")
