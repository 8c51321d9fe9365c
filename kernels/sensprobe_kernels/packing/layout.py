"""Packed codes: one after the other, no padding between them, lowest bit first.

Bit j of code i is bit `i * bits + j` of the stream, and bit k of the stream is bit `k % 8` of byte
`k // 8` (bit 0 the least significant). The last byte is filled with zeros, so n codes take
ceil(n * bits / 8) bytes. Signed codes are two's complement in `bits` bits.

    codes  1, 2, 7, 4  in 3 bits, each written lowest bit first:   100 010 111 001
    stream                                                         10001011 1001(0000)
    bytes, least significant bit on the right                      11010001 00001001  = D1 09
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = range(1, 17)

_AT_ONCE = 1 << 20  # codes; a multiple of 8, so that every block but the last ends with a byte


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` codes take."""
    return -(-count * bits // 8)


def pack(codes: NDArray[Any], bits: int, signed: bool = False) -> NDArray[np.uint8]:
    """Codes of any shape, taken in C order, as bytes.

    Raises ValueError for a code that does not fit, and for codes that are not whole numbers.
    """
    flat = np.ascontiguousarray(codes).reshape(-1)
    _check_bits(bits)
    if not np.issubdtype(flat.dtype, np.integer):
        raise ValueError(f"codes are whole numbers, not {flat.dtype}")
    kind = "signed" if signed else "unsigned"
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if flat.size and (flat.min() < low or flat.max() > high):
        raise ValueError(
            f"codes from {flat.min()} to {flat.max()} do not fit {bits} {kind} bits: "
            f"{low} to {high}"
        )
    places = np.arange(bits, dtype=np.uint16)
    out = np.empty(packed_bytes(flat.size, bits), np.uint8)
    for start in range(0, flat.size, _AT_ONCE):
        block = flat[start : start + _AT_ONCE].astype(np.uint16)  # keeps the low bits
        digits = (block[:, None] >> places) & np.uint16(1)
        at = start * bits // 8
        filled = np.packbits(digits.astype(np.uint8), bitorder="little")
        out[at : at + filled.size] = filled
    return out


def unpack(
    packed: NDArray[np.uint8], bits: int, count: int, signed: bool = False
) -> NDArray[np.int32]:
    """The first `count` codes of packed bytes, flat; the inverse of `pack`.

    Raises ValueError if the bytes are not as many as `count` codes take.
    """
    _check_bits(bits)
    data = np.ascontiguousarray(packed, np.uint8).reshape(-1)
    if data.size != packed_bytes(count, bits):
        raise ValueError(
            f"{count} codes of {bits} bits take {packed_bytes(count, bits)} bytes, not {data.size}"
        )
    weights = np.int32(1) << np.arange(bits, dtype=np.int32)
    if signed:
        weights[-1] = -weights[-1]
    out = np.empty(count, np.int32)
    for start in range(0, count, _AT_ONCE):
        size = min(_AT_ONCE, count - start)
        at = start * bits // 8
        block = data[at : at + packed_bytes(size, bits)]
        digits = np.unpackbits(block, count=size * bits, bitorder="little").reshape(size, bits)
        out[start : start + size] = digits @ weights
    return out


def _check_bits(bits: int) -> None:
    if bits not in BITS:
        raise ValueError(f"codes take 1 to 16 bits, not {bits}")
