"""Windows of text: the worked example, and what no example may break."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensprobe.data.windows import IGNORED, Windowing, cut, scored_bytes
from sensprobe.errors import UsageError


def windows(text: bytes, windowing: Windowing) -> list[tuple[bytes, bytes, bytes]]:
    """What each window reads, predicts without its context, and scores, as text."""
    tokens = np.frombuffer(text, np.uint8)
    x, y = cut(tokens, windowing.starts(len(tokens)), windowing)
    read = [bytes(row.astype(np.uint8)) for row in x]
    scored = [bytes(row[row != IGNORED].astype(np.uint8)) for row in y]
    return list(zip(read, scored, strict=True))


def test_the_worked_example() -> None:
    assert windows(b"abcdefghijkl", Windowing(length=4, context=1)) == [
        (b"abcd", b"cde"),
        (b"defg", b"fgh"),
        (b"ghij", b"ijk"),
    ]


def test_one_token_more_is_one_more_window_only_where_it_fills_it() -> None:
    windowing = Windowing(length=4, context=1)
    counts = [len(windowing.starts(n)) for n in range(4, 16)]
    assert counts == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4]


def test_a_wider_stride_leaves_text_out() -> None:
    assert windows(b"abcdefghijkl", Windowing(length=3, context=1, stride=5)) == [
        (b"abc", b"cd"),
        (b"fgh", b"hi"),
    ]


@given(
    count=st.integers(0, 60),
    length=st.integers(1, 20),
    context=st.integers(0, 19),
    wider=st.integers(0, 9),
)
def test_every_token_is_scored_at_most_once_and_follows_what_is_read(
    count: int, length: int, context: int, wider: int
) -> None:
    context = min(context, length - 1)
    windowing = Windowing(length, context, length - context + wider)
    tokens, starts = np.arange(count), windowing.starts(count)
    x, y = cut(tokens, starts, windowing)
    assert x.shape == y.shape == (len(starts), length)
    seen = y[y != IGNORED]
    assert len(set(seen.tolist())) == len(seen)
    assert ((y == x + 1) | (y == IGNORED)).all()
    assert (y[:, :context] == IGNORED).all()
    assert (y[:, context:] != IGNORED).all()
    if wider == 0:
        assert seen.tolist() == list(range(context + 1, context + 1 + len(seen)))
        assert count - context - 1 - len(seen) < max(length - context, 1) or not len(seen)


def test_bytes_are_those_between_the_ends_of_tokens() -> None:
    ends = np.array([1, 2, 4, 4, 7, 8, 9])  # tokens of 1, 1, 2, 0, 3, 1 and 1 bytes
    windowing = Windowing(length=3, context=1)
    starts = windowing.starts(7)
    assert starts.tolist() == [0, 2]
    assert scored_bytes(ends, starts, windowing).tolist() == [2, 4]  # tokens 2, 3 and 4, 5


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"length": 0, "context": 0}, "at least one token"),
        ({"length": 8, "context": 8}, "from 0 to 7"),
        ({"length": 8, "context": -1}, "from 0 to 7"),
        ({"length": 8, "context": 2, "stride": 5}, "score 6 tokens each would score some twice"),
    ],
)
def test_what_no_window_can_be(asked: dict[str, int], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Windowing(**asked)
