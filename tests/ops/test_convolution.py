"""The convolution against its definition, and its gradients against differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensprobe.ops.convolution import fft_conv, fft_length, ssm_kernel
from sensprobe.ops.diagonal_scan import reference as diagonal_scan

EPS = 2.0**-53


def modes(heads, n, seed=0, dtype=torch.complex128):
    g = torch.Generator().manual_seed(seed)
    magnitude = 1 - 0.2 * torch.rand(heads, n, generator=g, dtype=torch.float64) ** 3
    phase = 6.0 * torch.rand(heads, n, generator=g, dtype=torch.float64)
    B, C = (torch.randn(heads, n, generator=g, dtype=torch.complex128) for _ in range(2))
    return torch.polar(magnitude, phase).to(dtype), B.to(dtype), C.to(dtype)


def defined_kernel(A, B, C, length):
    """K and a bound on |K|'s rounding, in extended precision, one power after the other."""
    A, W = A.numpy().astype(np.clongdouble), (B * C).numpy().astype(np.clongdouble)
    power, K, size = np.ones_like(A), [], []
    for _ in range(length):
        K.append(2 * (W * power).sum(1).real)
        size.append(2 * (abs(W) * abs(power)).sum(1))
        power = power * A
    return np.stack(K, 1), np.stack(size, 1)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 65, 143, 784, 1021])
def test_kernel_is_the_definition(length):
    heads, n = 3, 5
    A, B, C = modes(heads, n)
    K = ssm_kernel(A, B, C, length)
    want, size = defined_kernel(A, B, C, length)
    # A^l is a product tree of l factors, one complex product (√5 EPS) each; then 2n sums.
    bound = (np.sqrt(5) * (np.arange(length) + 2) + 2 * n + 2) * EPS * size
    assert K.shape == (heads, length)
    assert K.dtype == torch.float64
    assert (abs(K.numpy() - want) <= bound).all()


def test_the_bound_above_would_catch_float32():
    A, B, C = modes(3, 5)
    want, size = defined_kernel(A, B, C, 784)
    rounded = ssm_kernel(A.to(torch.complex64), B.to(torch.complex64), C.to(torch.complex64), 784)
    bound = (np.sqrt(5) * (np.arange(784) + 2) + 12) * EPS * size
    assert rounded.dtype == torch.float32
    assert (abs(rounded.numpy() - want) > bound).mean() > 0.9


def test_kernel_with_zero_and_one_in_A():
    A = torch.tensor([[0, 1, -0.5]], dtype=torch.complex128)
    one = torch.ones_like(A)
    K = ssm_kernel(A, one, one, 4)
    assert torch.equal(K, torch.tensor([[6.0, 1.0, 2.5, 1.75]], dtype=torch.float64))


def test_kernel_of_no_steps():
    A, B, C = modes(2, 3)
    assert ssm_kernel(A, B, C, 0).shape == (2, 0)


@pytest.mark.parametrize("length", [1, 2, 11, 16])
def test_kernel_gradients(length):
    inputs = [t.requires_grad_() for t in modes(2, 3)]
    assert torch.autograd.gradcheck(lambda A, B, C: ssm_kernel(A, B, C, length), inputs)


def test_kernel_gradient_where_A_is_zero():
    A = torch.zeros(1, 2, dtype=torch.complex128, requires_grad=True)
    W = torch.tensor([[1 + 2j, 3 - 1j]], dtype=torch.complex128)
    K = ssm_kernel(A, W, torch.ones_like(W), 5)
    (grad,) = torch.autograd.grad(K[0, 1] + K[0, 2], A)
    # K_1 = 2 Re(W A): the gradient torch reports is conj(2 W); K_2 adds 0 at A = 0.
    assert torch.equal(grad, (2 * W).conj())


@pytest.mark.parametrize(("length", "taps"), [(1, 1), (7, 7), (13, 5), (5, 13), (64, 64)])
def test_convolution_is_the_definition(length, taps):
    g = torch.Generator().manual_seed(1)
    u = torch.randn(2, length, 3, generator=g, dtype=torch.float64)
    K = torch.randn(3, taps, generator=g, dtype=torch.float64)
    want = torch.zeros_like(u)
    for t in range(length):
        for s in range(min(t + 1, taps)):
            want[:, t] += K[:, s] * u[:, t - s]
    # An FFT's error is relative to the 2-norms that meet: O(log2 size) EPS |u| |K|, constant < 8.
    norms = u.norm(dim=1) * K[:, :length].norm(dim=1)  # (b, h)
    bound = 8 * np.log2(4 * max(length, taps)) * EPS * norms
    assert ((fft_conv(u, K) - want).abs().amax(1) <= bound).all()


@pytest.mark.parametrize(("length", "taps"), [(1, 1), (7, 7), (9, 4)])
def test_convolution_gradients(length, taps):
    g = torch.Generator().manual_seed(2)
    u = torch.randn(2, length, 3, generator=g, dtype=torch.float64, requires_grad=True)
    K = torch.randn(3, taps, generator=g, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fft_conv, (u, K))


def test_sequences_do_not_meet_in_a_part_of_the_batch(monkeypatch):
    g = torch.Generator().manual_seed(4)
    u = torch.randn(7, 9, 2, generator=g, dtype=torch.float64, requires_grad=True)
    K = torch.randn(2, 9, generator=g, dtype=torch.float64, requires_grad=True)
    whole = fft_conv(u, K)
    grads = torch.autograd.grad(whole.square().sum(), (u, K))
    monkeypatch.setattr("sensprobe.ops.convolution.CACHED", 3 * 2 * 20)  # 3 sequences at a time
    parts = fft_conv(u, K)
    assert torch.equal(parts, whole)
    by_parts = torch.autograd.grad(parts.square().sum(), (u, K))
    assert torch.equal(by_parts[0], grads[0])
    assert torch.allclose(by_parts[1], grads[1], rtol=0, atol=64 * EPS * grads[1].abs().max())


def test_convolution_does_not_look_ahead():
    u = torch.zeros(1, 9, 2)
    u[0, 4] = 1
    y = fft_conv(u, torch.ones(2, 9))
    assert y[0, :4].abs().max() < 1e-6
    assert (y[0, 4:] - 1).abs().max() < 1e-6


@pytest.mark.parametrize("shape", [(0, 5, 2), (2, 0, 2), (2, 5, 0)])
def test_convolution_of_nothing(shape):
    assert fft_conv(torch.zeros(shape), torch.ones(shape[2], 5)).shape == shape


def test_convolution_equals_the_recurrence():
    A, B, C = modes(4, 6, dtype=torch.complex64)
    u = torch.randn(3, 37, 4, generator=torch.Generator().manual_seed(3))
    want, _ = diagonal_scan(u, A, B, C)
    got = fft_conv(u, ssm_kernel(A, B, C, 37))
    # float32 recurrence: 37 steps and 6 modes, each rounded relative to the sums of magnitudes.
    size = 2 * (B * C).abs().sum(1) * u.abs().sum(1)  # (b, h)
    assert ((got - want).abs().amax(1) <= 37 * 2.0**-24 * size).all()
    assert (got - want).abs().max() > 0


@given(st.integers(1, 100_000))
@settings(max_examples=200, deadline=None)
def test_fft_length(least):
    size = fft_length(least)
    assert least <= size <= 2 * least
    while size % 2 == 0:
        size //= 2
    assert size in (1, 3, 5, 7)
