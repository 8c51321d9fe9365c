"""Sixteen codes at a time, as the layout has them, and nothing beyond."""

import numpy as np
import pytest
from numba import njit
from sensprobe_kernels.packing.layout import pack
from sensprobe_kernels.simd import octets
from sensprobe_kernels.simd.vector import store

GUARD = 0xA5


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("count", [16, 24, 40])
def test_codes_are_read_and_written_as_the_layout_has_them(bits, count):
    read, first, write = octets.reader(bits), octets.first_reader(bits), octets.writer(bits)

    @njit
    def copied(source, target, seen, count):
        for i in range(0, count - 15, 16):
            codes = read(source, i * bits // 8)
            store(seen, i, octets.whole_numbers(codes))
            write(target, i * bits // 8, 16, codes)
        if count % 16:
            i = count - count % 16
            codes = first(source, i * bits // 8, count % 16)
            store(seen, i, octets.whole_numbers(codes))
            write(target, i * bits // 8, count % 16, codes)

    codes = np.random.default_rng(bits).integers(0, 2**bits, count)
    packed = pack(codes, bits)
    target = np.full(packed.size + 8, GUARD, np.uint8)
    seen = np.full(count + 16, -1, np.float32)
    copied(packed, target, seen, count)
    assert seen[:count].tolist() == codes.tolist()
    assert target[: packed.size].tolist() == packed.tolist()
    assert set(target[packed.size :]) == {GUARD}
    if count % 16:
        assert not seen[count : count - count % 16 + 16].any(), "codes past the last are 0"


def test_numbers_of_sixteen_bits_keep_their_value():
    @njit
    def through(halves, bfloats, out):
        store(out, 0, octets.halves_at(halves, 1))
        store(out, 16, octets.bfloats_at(bfloats, 1))
        out[32] = octets.half_at(halves, 3)

    x = np.random.default_rng(0).standard_normal(16).astype(np.float16)
    x[:3] = np.inf, 6e-8, 65504  # the least subnormal and the largest too
    words = np.random.default_rng(1).standard_normal(16).astype(np.float32).view(np.uint32) >> 16
    halves = np.concatenate([[0], x.view(np.uint8)]).astype(np.uint8)
    bfloats = np.concatenate([[0], words.astype(np.uint16).view(np.uint8)]).astype(np.uint8)
    out = np.zeros(33, np.float32)
    through(halves, bfloats, out)
    np.testing.assert_array_equal(out[:16], x.astype(np.float32))
    np.testing.assert_array_equal(out[16:32].view(np.uint32), words << 16)
    assert out[32] == np.float32(x[1])
