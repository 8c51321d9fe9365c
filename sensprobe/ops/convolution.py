"""The recurrence of an exact state, written as a convolution: what training and fast scoring use.

While nothing is rounded, h_t = A h_{t-1} + B u_t with y_t = 2 Re(sum_n C_n h_{t,n}) equals

    y_t = sum_{l=0..t} K_l u_{t-l},      K_l = 2 Re(sum_n C_n B_n A_n^l)

(A and B discretised), and K is the only place where state size and length meet. Built term by term
it costs h·n·l complex numbers, and autograd would keep them; here no tensor is larger than h·n·2√l.
Powers are split as l = s·q + r with s = ceil(√l), so A^l = (A^s)^q · A^r and the whole kernel is
one real matrix product a head:

    K[q, r] = 2 (Re H_q, -Im H_q) · (Re R_r, Im R_r)      H_q = C B (A^s)^q,   R_r = A^r

A length of 784 at h = 64, n = 32 is then 6 million multiplications: cheap enough to do in float64
throughout, which keeps the phase of A^783 (float32 would be off by 783 roundings), and cheap enough
that a compiled kernel for it would save nothing a training step can notice.

Both functions are differentiable once, by the formulas below and not by recording operations:
autograd would run a complex transform of full length for the gradient of each real one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

ODD_FACTORS = (1, 3, 5, 7)  # times a power of two: lengths every FFT library has a fast path for
CACHED = 2**18  # float32 numbers: 1 MiB, a core's second-level cache


def ssm_kernel(A: Tensor, B: Tensor, C: Tensor, length: int) -> Tensor:
    """K (h, length), real, in the precision of A; differentiable in A, B and C.

    A, B, C: (h, n) complex, **discretised** (A_bar and B_bar). Computed in float64 whatever comes
    in. Zeros in A are fine (0^0 is 1). A mode with |A| > 1 grows; past 1e308 K is not finite.
    """
    K = _Powers.apply(A.to(torch.complex128), (B * C).to(torch.complex128), length)
    return K.to(A.real.dtype)


def fft_conv(u: Tensor, K: Tensor) -> Tensor:
    """Causal convolution along time: y[:, t, h] = sum_{s<=t} K[h, s] u[:, t-s, h].

    u: (b, l, h) real. K: (h, k) real, of any length k and cast to u's precision; terms beyond l
    do nothing. Returns (b, l, h). Zero-padded, so nothing wraps around.
    """
    if 0 in u.shape or K.shape[1] == 0:
        return torch.zeros_like(u)
    y: Tensor = _Convolve.apply(u, K[:, : u.shape[1]].to(u.dtype))
    return y


def traced_conv(u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The same function of u (b, l, h) and discretised A, B, C (h, n), for torch.vmap over u.

    K is made in plain operations, in the precision of its inputs. Zeros in A are not fine here.
    """
    length = u.shape[1]
    s = max(1, math.isqrt(max(0, length - 1)) + 1)
    rows = -(-length // s)
    log_A = torch.log(A)[..., None]
    near = torch.exp(log_A * torch.arange(s))  # (h, n, s)
    far = (B * C)[..., None] * torch.exp(log_A * (s * torch.arange(rows)))  # (h, n, rows)
    K = 2 * torch.einsum("hnq,hnr->hqr", far, near).real.flatten(1)[:, :length]
    return fft_conv(u, K)


def fft_length(least: int) -> int:
    """The smallest odd·2^k >= least with odd in ODD_FACTORS.

    Measured on 784-step sequences (2 x86-64 cores, 2,048 transforms): 1,792 = 7·2^8 takes 2.8 ms,
    the shorter 1,568 = 7²·2^5 takes 16 ms, 2,048 takes 5.1 ms.
    """
    return min(odd << max(0, math.ceil(math.log2(least / odd))) for odd in ODD_FACTORS)


class _Powers(torch.autograd.Function):
    """K_l = 2 Re(sum_n W_n A_n^l), l < length. A, W: (h, n) complex128. K: (h, length) float64."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, W: Tensor, length: int) -> Tensor:
        s = max(1, math.isqrt(max(0, length - 1)) + 1)  # ceil(sqrt(length))
        rows = -(-length // s)
        R = _powers(A, s)  # (h, s, n): A^r
        G = _powers(R[:, -1] * A, rows)  # (h, rows, n): (A^s)^q
        ctx.save_for_backward(W, R, G)
        ctx.length = length
        K = torch.bmm(_reals((W[:, None] * G).conj()), _reals(R).transpose(1, 2))  # (h, rows, s)
        return 2 * K.flatten(1)[:, :length]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """The chain rule on the two factors; d(A^r) = r A^(r-1), read from the powers kept.

        With K = 2 Re(f) and f analytic, torch's gradient is the conjugate of sum 2 g f'.
        """
        W, R, G = ctx.saved_tensors
        h, s, n = R.shape
        rows = G.shape[1]
        g = torch.nn.functional.pad(2 * grads[0], (0, rows * s - ctx.length)).view(h, rows, s)
        to_G = _complexes(torch.bmm(g, _reals(R)), n)  # (h, rows, n): sum_r g R
        to_R = _complexes(torch.bmm(g.transpose(1, 2), _reals(W[:, None] * G)), n)  # (h, s, n)
        to_top = W * _derivative(to_G, G)  # gradient at A^s
        to_A = _derivative(to_R, R) + to_top * s * R[:, -1]  # d(A^s) = s A^(s-1)
        to_W = (to_G * G).sum(1)
        return to_A.conj(), to_W.conj(), None


class _Convolve(torch.autograd.Function):
    """y = K * u along time, causal. u: (b, l, h), K: (h, k) with k <= l, one dtype.

    A few sequences at a time, so that transforms stay in the cache, and only u and K are kept:
    transforming u again in the backward pass is cheaper than bringing its transform from memory.
    What torch.vmap adds in front of u is more of the batch; K it may not add to.
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, int | None], u: Tensor, K: Tensor
    ) -> tuple[Tensor, int]:
        at = in_dims[0]
        assert at is not None, "mapped over sequences"
        assert in_dims[1] is None, "not over kernels"
        y = _Convolve.apply(u.movedim(at, 0).flatten(0, 1), K)
        return y.unflatten(0, (info.batch_size, -1)), 0

    @staticmethod
    def forward(u: Tensor, K: Tensor) -> Tensor:
        length, size = u.shape[1], fft_length(u.shape[1] + K.shape[1] - 1)
        F, y = torch.fft.rfft(K, n=size), torch.empty_like(u)
        for part in _parts(u, size):
            U = torch.fft.rfft(u[part].transpose(1, 2), n=size)
            y[part] = torch.fft.irfft(U.mul_(F), n=size)[..., :length].transpose(1, 2)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """Correlations: grad_u = K ⋆ g and grad_K = sum_b u ⋆ g."""
        (g,), (u, K) = grads, ctx.saved_tensors
        length, taps = u.shape[1], K.shape[1]
        size = fft_length(length + taps - 1)
        F = torch.fft.rfft(K, n=size).conj().resolve_conj()
        grad_u, grad_K = torch.empty_like(u), torch.zeros_like(F)
        for part in _parts(u, size):
            G = torch.fft.rfft(g[part].transpose(1, 2), n=size)
            U = torch.fft.rfft(u[part].transpose(1, 2), n=size)
            grad_K += U.conj_physical_().mul_(G).sum(0)
            grad_u[part] = torch.fft.irfft(G.mul_(F), n=size)[..., :length].transpose(1, 2)
        return grad_u, torch.fft.irfft(grad_K, n=size)[:, :taps]


def _parts(u: Tensor, size: int) -> list[slice]:
    """Slices of the batch whose padded sequences fill about `CACHED` numbers."""
    step = max(1, CACHED // (u.shape[2] * size))
    return [slice(start, start + step) for start in range(0, u.shape[0], step)]


def _powers(A: Tensor, count: int) -> Tensor:
    """(h, count, n): A^0 … A^(count-1), each from log2(count) products, so errors stay small."""
    out, top = torch.ones_like(A)[:, None], A  # top = A^len(out)
    while out.shape[1] < count:
        out = torch.cat([out, out * top[:, None]], dim=1)
        top = top * top
    return out[:, :count]


def _derivative(grad: Tensor, powers: Tensor) -> Tensor:
    """sum_k grad_k · k A^(k-1), (h, n), from powers (h, count, n) of A."""
    k = torch.arange(1, powers.shape[1], dtype=torch.float64, device=powers.device)
    return (grad[:, 1:] * powers[:, :-1] * k[:, None]).sum(1)


def _reals(x: Tensor) -> Tensor:
    """(h, k, n) complex -> (h, k, 2n): real and imaginary parts side by side."""
    return torch.view_as_real(x.resolve_conj()).flatten(2)


def _complexes(x: Tensor, n: int) -> Tensor:
    """The inverse of `_reals`."""
    return torch.view_as_complex(x.unflatten(2, (n, 2)))
