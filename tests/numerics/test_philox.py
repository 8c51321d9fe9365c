"""Philox against its authors' known answers, and noise that depends only on where it is used."""

from __future__ import annotations

import pytest
import torch

from sensprobe.numerics.philox import key_of, noise_like, philox, unit

ONES = 0xFFFFFFFF
KNOWN = [  # counter, key, words: kat_vectors of Random123 (Salmon et al. 2011)
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def words(counter, key):
    return [w.item() for w in philox(tuple(torch.tensor(c) for c in counter), key)]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer):
    assert words(counter, key) == list(answer)


def test_counters_broadcast():
    grid = philox(
        (torch.arange(3), torch.tensor(5), torch.arange(2)[:, None], torch.tensor(0)), (1, 2)
    )
    for j in range(2):
        for i in range(3):
            assert [w.expand(2, 3)[j, i].item() for w in grid] == words((i, 5, j, 0), (1, 2))


def test_units_are_the_upper_24_bits():
    got = unit(torch.tensor([0, 0xFF, 0x100, ONES]))
    assert got.tolist() == [0, 0, 2**-24, 1 - 2**-24]
    assert got.dtype == torch.float32


def test_the_mean_and_spread_of_noise_are_those_of_a_uniform_number():
    """100,000 draws: the mean's standard error is 0.00091, four of them are allowed."""
    noise = noise_like(torch.zeros(100_000), key_of(0, "layers.0.A")).double()
    assert abs(noise.mean() - 1 / 2) < 4 * (1 / 12 / 1e5) ** 0.5
    assert abs(noise.var() - 1 / 12) < 4 * (1 / 180 / 1e5) ** 0.5
    assert noise.min() >= 0
    assert noise.max() < 1


def test_noise_does_not_depend_on_the_batch():
    x, key = torch.zeros(6, 5, 4), key_of(3, "layers.0.x")
    whole = noise_like(x, key)
    assert torch.equal(noise_like(x[2:4], key, first=2), whole[2:4])
    assert torch.equal(noise_like(x[5:], key, first=5), whole[5:])
    assert not torch.equal(noise_like(x[2:4], key), whole[2:4])


def test_noise_of_the_beginning_of_a_sequence_does_not_depend_on_its_length():
    key = key_of(0, "layers.0.x")
    long = noise_like(torch.zeros(2, 9, 3), key)
    assert torch.equal(noise_like(torch.zeros(2, 4, 3), key), long[:, :4])


def test_every_position_has_its_own_noise():
    noise = noise_like(torch.zeros(3, 4, 5, 2), key_of(0, "a"))
    assert len(noise.unique()) == noise.numel()


def test_seeds_and_sites_have_their_own_noise():
    x = torch.zeros(50)
    drawn = [noise_like(x, key_of(*k)) for k in [(0, "a"), (1, "a"), (0, "b")]]
    for i, one in enumerate(drawn):
        for other in drawn[i + 1 :]:
            assert (one != other).all()
    assert torch.equal(drawn[0], noise_like(x, key_of(0, "a")))


def test_more_axes_than_counters_are_refused():
    with pytest.raises(ValueError, match="at most four axes, not 5"):
        noise_like(torch.zeros(1, 1, 1, 1, 1), (0, 0))
