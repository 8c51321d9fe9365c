"""A part of a split: seeded, stratified, of whole groups, and one within the other."""

import numpy as np
import pytest
import torch

from sensprobe.data import Split, beginning, check_limit, is_ordered, missing_classes, reordered
from sensprobe.data.dataset import build_split
from sensprobe.errors import UsageError


def by_class(counts: list[int], group: np.ndarray | None = None) -> Split:
    """Samples that lie class after class; x is where each lies."""
    y = np.repeat(np.arange(len(counts)), counts)
    x = np.arange(len(y), dtype=np.float32)[:, None, None]
    return build_split("search", x, y, np.arange(len(y)), "made", group)


@pytest.mark.parametrize("limit", [17, 60, 170])
def test_every_beginning_holds_each_class_in_its_share(limit: int) -> None:
    split = reordered(by_class([100] * 17), 0).split
    counts = np.bincount(split.y[:limit].numpy(), minlength=17)
    assert counts.max() - counts.min() <= 1
    assert beginning(split, limit) == limit
    assert missing_classes(split, limit) == []


def test_classes_of_other_sizes_keep_their_share() -> None:
    sizes = [1000, 300, 20, 3]
    split = reordered(by_class(sizes), 0).split
    for n in (50, 200, 700):
        counts = np.bincount(split.y[:n].numpy(), minlength=4)
        assert np.abs(counts - np.array(sizes) * n / sum(sizes)).max() < 2
    assert missing_classes(split, 50) == [3]
    assert missing_classes(split, len(split)) == []


def test_the_order_is_one_of_all_samples_and_of_the_seed() -> None:
    split = by_class([40, 40])
    one, again, other = reordered(split, 5), reordered(split, 5), reordered(split, 6)
    assert np.array_equal(np.sort(one.order), np.arange(80))
    assert np.array_equal(one.order, again.order)
    assert not np.array_equal(one.order, other.order)
    assert one.split.fingerprint == again.split.fingerprint
    assert len({split.fingerprint, one.split.fingerprint, other.split.fingerprint}) == 3
    assert torch.equal(one.split.x, split.x[one.order])
    assert torch.equal(one.split.index, split.index[one.order])


def test_groups_stay_whole_and_are_not_taken_in_their_order() -> None:
    group = np.arange(400) // 10 * 7
    split = reordered(by_class([100] * 4, group), 0).split
    assert split.group is not None
    stop = beginning(split, 45)
    assert stop == 40
    taken, counts = np.unique(split.group[:stop].numpy(), return_counts=True)
    assert set(counts) == {10}
    assert sorted(set(split.y[:stop].tolist())) == [0, 1, 2, 3]
    assert taken.tolist() != [0, 7, 14, 21]
    starts = split.x[:stop:10, 0, 0].numpy()
    assert np.array_equal(split.x[:stop, 0, 0].numpy(), (starts[:, None] + np.arange(10)).ravel())


def test_a_group_is_cut_where_little_would_be_left() -> None:
    split = reordered(by_class([500, 500], np.arange(1000) // 500), 0).split
    assert beginning(split, 100) == 100
    assert beginning(split, 5000) == 1000


def test_a_group_is_cut_rather_than_left_alone() -> None:
    split = reordered(by_class([5, 5, 5], np.arange(15) // 5), 0).split
    assert beginning(split, 9) == 9  # of the first group alone no error could be told
    assert beginning(split, 14) == 10
    assert beginning(split, 5) == 5


def test_what_lies_in_an_order_is_told_from_what_is_shuffled() -> None:
    split = by_class([100] * 5)
    assert is_ordered(split, 128)
    assert not is_ordered(reordered(split, 0).split, 128)
    targets = np.linspace(0, 1, 500, dtype=np.float32)
    rising = build_split("search", split.x.numpy(), targets, np.arange(500), "made")
    assert is_ordered(rising, 128)
    assert not is_ordered(reordered(rising, 0).split, 128)
    assert not is_ordered(split, 500)


@pytest.mark.parametrize("limit", [0, -1])
def test_taking_nothing_is_refused(limit: int) -> None:
    with pytest.raises(UsageError, match=f"--limit {limit} leaves no samples of search; give 1"):
        check_limit("search", 5, limit)
