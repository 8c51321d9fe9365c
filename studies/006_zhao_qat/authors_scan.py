"""The recurrence of `authors`, compiled: exact, and with a state that is rounded.

Shapes: u and y (h, l, b) float32; A, B, C (h, n) complex64. Images are taken `LANES` at a time,
side by side, so that a processor does many in one operation; each is computed in the stated order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

TINIEST_RANGE = 2.0**-24
"""Ranges up to this have the scale 1."""
ZERO_LOW, ZERO_HIGH = -(2**15), 2**15 - 1
ROUNDER = np.float32(1.5 * 2**23)
"""Added to a float32 below 2^22 and taken away, it leaves the nearest integer, half to even."""
LANES = 64


@njit(inline="always")
def _rounded(v, scale, zero, least, most):
    code = v / scale + zero
    code = least if code < least else code
    code = most if code > most else code
    return ((code + ROUNDER) - ROUNDER - zero) * scale


@njit(inline="always")
def _less(a, b):
    return a if a < b else b


@njit(inline="always")
def _clamped(v, peak):
    v = -peak if v < -peak else v
    return peak if v > peak else v


@njit(error_model="numpy")
def scan_exact(u, A, B, C, y, low, high):
    """Fill y (h, l, b); widen low and high (h, n, lanes) by every A·x, B·u and sum."""
    heads, length, count = u.shape
    pairs = A.shape[1]
    for h in range(heads):
        for first in range(0, count, LANES):
            lanes = min(LANES, count - first)
            re = np.zeros((pairs, LANES), np.float32)
            im = np.zeros((pairs, LANES), np.float32)
            for t in range(length):
                for n in range(pairs):
                    a, b, c = A[h, n], B[h, n], C[h, n]
                    least, most = low[h, n], high[h, n]
                    for k in range(lanes):
                        x = u[h, t, first + k]
                        pr = a.real * re[n, k] - a.imag * im[n, k]
                        pi = a.real * im[n, k] + a.imag * re[n, k]
                        br, bi = b.real * x, b.imag * x
                        sr, si = pr + br, pi + bi
                        least[k] = _less(_less(least[k], _less(pr, pi)), _less(br, bi))
                        least[k] = _less(least[k], _less(sr, si))
                        most[k] = -_less(_less(-most[k], _less(-pr, -pi)), _less(-br, -bi))
                        most[k] = -_less(-most[k], _less(-sr, -si))
                        y[h, t, first + k] += np.float32(2) * (c.real * sr - c.imag * si)
                        re[n, k], im[n, k] = sr, si


@njit(error_model="numpy")
def scan_static(u, A, B, C, y, scale, zero, least, most, peak):
    """Fill y (h, l, b), the state rounded three times a step by scale and zero (h, n)."""
    heads, length, count = u.shape
    pairs = A.shape[1]
    for h in range(heads):
        for first in range(0, count, LANES):
            lanes = min(LANES, count - first)
            re = np.zeros((pairs, LANES), np.float32)
            im = np.zeros((pairs, LANES), np.float32)
            out = np.zeros(LANES, np.float32)
            for t in range(length):
                x = u[h, t, first : first + lanes]
                out[:] = np.float32(0)
                for n in range(pairs):
                    a, b, c, s, z = A[h, n], B[h, n], C[h, n], scale[h, n], zero[h, n]
                    for k in range(lanes):
                        pr = a.real * re[n, k] - a.imag * im[n, k]
                        pi = a.real * im[n, k] + a.imag * re[n, k]
                        sr = _rounded(pr, s, z, least, most)
                        sr += _rounded(b.real * x[k], s, z, least, most)
                        si = _rounded(pi, s, z, least, most)
                        si += _rounded(b.imag * x[k], s, z, least, most)
                        out[k] += c.real * sr - c.imag * si
                        re[n, k] = _clamped(_rounded(sr, s, z, least, most), peak)
                        im[n, k] = _clamped(_rounded(si, s, z, least, most), peak)
                for k in range(lanes):
                    y[h, t, first + k] = np.float32(2) * out[k]


@njit(error_model="numpy")
def _round_live(re, im, levels, least, most):
    """Round (n, lanes) by the range of each lane."""
    pairs, lanes = re.shape
    low, high = re[0].copy(), -re[0]  # high is kept negated
    for n in range(pairs):
        for k in range(lanes):
            low[k] = _less(low[k], _less(re[n, k], im[n, k]))
            high[k] = _less(high[k], _less(-re[n, k], -im[n, k]))
    scale, zero = low.copy(), low.copy()
    for k in range(lanes):
        span = -high[k] - low[k]
        scale[k] = np.float32(1) if span <= np.float32(TINIEST_RANGE) else span / levels
        zero[k] = np.rint(least - low[k] / scale[k])
        zero[k] = min(max(zero[k], np.float32(ZERO_LOW)), np.float32(ZERO_HIGH))
    for n in range(pairs):
        for k in range(lanes):
            re[n, k] = _rounded(re[n, k], scale[k], zero[k], least, most)
            im[n, k] = _rounded(im[n, k], scale[k], zero[k], least, most)


@njit(error_model="numpy")
def scan_live(u, A, B, C, y, levels, least, most, peak):
    """Fill y (h, l, b), each of the three roundings by the range of a sample and head."""
    heads, length, count = u.shape
    pairs = A.shape[1]
    for h in range(heads):
        for first in range(0, count, LANES):
            lanes = min(LANES, count - first)
            re = np.zeros((pairs, LANES), np.float32)
            im = np.zeros((pairs, LANES), np.float32)
            pr, pi, br, bi = (np.zeros_like(re), np.zeros_like(re), re.copy(), re.copy())
            out = np.zeros(LANES, np.float32)
            for t in range(length):
                for n in range(pairs):
                    a, b = A[h, n], B[h, n]
                    for k in range(lanes):
                        x = u[h, t, first + k]
                        pr[n, k] = a.real * re[n, k] - a.imag * im[n, k]
                        pi[n, k] = a.real * im[n, k] + a.imag * re[n, k]
                        br[n, k], bi[n, k] = b.real * x, b.imag * x
                _round_live(pr, pi, levels, least, most)
                _round_live(br, bi, levels, least, most)
                out[:] = np.float32(0)
                for n in range(pairs):
                    c = C[h, n]
                    for k in range(lanes):
                        re[n, k], im[n, k] = pr[n, k] + br[n, k], pi[n, k] + bi[n, k]
                        out[k] += c.real * re[n, k] - c.imag * im[n, k]
                _round_live(re, im, levels, least, most)
                for n in range(pairs):
                    for k in range(lanes):
                        re[n, k] = _clamped(re[n, k], peak)
                        im[n, k] = _clamped(im[n, k], peak)
                for k in range(lanes):
                    y[h, t, first + k] = np.float32(2) * out[k]
