"""Smooth functions in fixed float32 arithmetic, sixteen numbers at a time."""

from __future__ import annotations

import numpy as np

from sensprobe_kernels.jit import inline
from sensprobe_kernels.ops.selective_scan.exponential import exponential
from sensprobe_kernels.quantize.lanes import clamp
from sensprobe_kernels.simd.vector import Floats, absolute, choose, every, less, negative

_ZERO, _ONE, _TWO, _HALF = (np.float32(v) for v in (0.0, 1.0, 2.0, 0.5))
_LINEAR = np.float32(20.0)  # beyond it softplus is x, as in torch
_ODD = tuple(np.float32(1 / k) for k in (3, 5, 7, 9, 11, 13, 15))
_A3, _A5, _A7, _A9, _A11, _A13, _A15 = _ODD
_ROOT_HALF = np.float32(0.5**0.5)
_TANH_1 = np.float32((2 / np.pi) ** 0.5)
_TANH_3 = np.float32(0.044715 * (2 / np.pi) ** 0.5)
_REACH = np.float32(4.0)  # beyond it erf is 1 in float32


@inline
def silu(x: Floats) -> Floats:
    """x / (1 + exp(-x))."""
    return x / (every(_ONE) + exponential(negative(x)))


@inline
def log1p(t: Floats) -> Floats:
    """log(1 + t) for t in [0, 1]: 2 artanh(s) = 2 (s + s³/3 + …), s = t / (2 + t) ≤ 1/3."""
    s = t / (every(_TWO) + t)
    q = s * s
    p = every(_A15) * q + every(_A13)
    p = p * q + every(_A11)
    p = p * q + every(_A9)
    p = p * q + every(_A7)
    p = p * q + every(_A5)
    p = p * q + every(_A3)
    return every(_TWO) * (s + s * (p * q))


@inline
def softplus(x: Floats) -> Floats:
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)); x beyond 20."""
    y = choose(less(x, every(_ZERO)), every(_ZERO), x) + log1p(exponential(negative(absolute(x))))
    return choose(less(every(_LINEAR), x), x, y)


_P1 = np.float32(-1.60960333262415e-02)
_P3 = np.float32(-2.95459980854025e-03)
_P5 = np.float32(-7.34990630326855e-04)
_P7 = np.float32(-5.69250639462346e-05)
_P9 = np.float32(-2.10102402082508e-06)
_P11 = np.float32(2.77068142495902e-08)
_P13 = np.float32(-2.72614225801306e-10)
_Q0 = np.float32(-1.42647390514189e-02)
_Q2 = np.float32(-7.37332916720468e-03)
_Q4 = np.float32(-1.68282697438203e-03)
_Q6 = np.float32(-2.13374055278905e-04)
_Q8 = np.float32(-1.45660718464996e-05)


@inline
def erf(x: Floats) -> Floats:
    """An odd polynomial over an even one on [-4, 4], the one Eigen uses; within 5e-7."""
    x = clamp(x, every(-_REACH), every(_REACH))
    q = x * x
    p = every(_P13) * q + every(_P11)
    p = p * q + every(_P9)
    p = p * q + every(_P7)
    p = p * q + every(_P5)
    p = p * q + every(_P3)
    p = p * q + every(_P1)
    d = every(_Q8) * q + every(_Q6)
    d = d * q + every(_Q4)
    d = d * q + every(_Q2)
    d = d * q + every(_Q0)
    return x * p / d


@inline
def gelu(x: Floats) -> Floats:
    """x (1 + erf(x / √2)) / 2."""
    return x * every(_HALF) * (every(_ONE) + erf(x * every(_ROOT_HALF)))


@inline
def gelu_tanh(x: Floats) -> Floats:
    """x (1 + tanh(v)) / 2 = x / (1 + exp(-2v)), v = √(2/π) (x + 0.044715 x³)."""
    v = x * (every(_TANH_1) + every(_TANH_3) * (x * x))
    return x / (every(_ONE) + exponential(negative(v + v)))


@inline
def sigmoid(x: Floats) -> Floats:
    return every(_ONE) / (every(_ONE) + exponential(negative(x)))
