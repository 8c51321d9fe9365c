"""GPTQ (Frantar et al. 2022, arXiv 2210.17323): weights rounded so that what they compute holds.

Rounding a column of W to q leaves the outputs W x wrong by its error times x. The columns that are
not rounded yet can make up for most of that, because inputs are correlated. With H = E[x xᵀ] and
H⁻¹ = Uᵀ U (U upper triangular), U's row j is, up to its length, the first row of the inverse of
what remains at column j (equations 2 and 3, in the paper's "Cholesky reformulation"):

    error = (W_j - q_j) / U_jj        W_k ← W_k - error · U_jk    for every later column k

Columns are taken as they come (no "act-order"), updates reach beyond a block of 128 columns once a
block ("lazy batch-updates"), and 1 % of H's mean diagonal is added to it (the paper's dampening).

Two choices differ from the published code. H is measured once, on the full-precision model's
calibration inputs, not on those of a model whose earlier layers are rounded already: so a weight's
codes depend on its own scheme alone, and a plan that differs elsewhere reuses them. And the scales
of groups are those of the original weight (the code's `static_groups`), so that they are the ones
rounding to nearest would store.

Float64 throughout. Repeats give the same bits on one machine; the factorisation is LAPACK's, so
that another machine may settle a tie otherwise. What a file holds are the codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sensprobe.errors import SchemeError
from sensprobe.numerics.rounding import (
    Range,
    quantize,
    rotated,
    rotated_back,
    scale_and_zero,
    spread,
)
from sensprobe.numerics.transforms import rotate_both
from sensprobe.plans.scheme import Scheme
from sensprobe.plans.sites import Site

DAMPENING = 0.01
"""Added to H's diagonal, as a share of its mean."""
BLOCK = 128
"""Columns whose updates reach the rest of the matrix together."""


def compensated(
    x: Tensor, scheme: Scheme, site: Site, moment: Tensor | None, range: Range | None
) -> Tensor:
    """The weight whose rounding to nearest gives GPTQ's codes.

    x: (out, in) float64. moment: Σ x xᵀ of the inputs, (in, in) float64; its factor does not
    matter. range: that of the scheme's scales, in the basis it rounds in. SchemeError where there
    is no moment, or one that is not finite.
    """
    if moment is None:
        raise SchemeError(
            f"{site.name} in {scheme} is calibrated on what the projection reads, and nothing was "
            "watched. Give data to calibrate on, or leave out gptq."
        )
    if not moment.isfinite().all():
        raise SchemeError(
            f"{site.name} in {scheme}: what the projection reads is not finite on the calibration "
            "data; leave out gptq."
        )
    w = rotated(x, scheme)
    moment = rotate_both(moment) if scheme.hadamard else moment
    scale, zero = None, None
    if range is not None:
        scale, zero = (
            None if v is None else spread(v, scheme, site).expand(w.shape).mT.contiguous()
            for v in scale_and_zero(scheme, *range)
        )
    q = _by_column(w.mT.contiguous(), _upper(moment), scheme, site, scale, zero)
    return rotated_back(q.mT.contiguous(), scheme)


def _upper(moment: Tensor) -> Tensor:
    """U of H⁻¹ = Uᵀ U, dampened; the identity where no input was ever other than zero."""
    mean = moment.diagonal().mean()
    if mean == 0:
        return torch.eye(len(moment), dtype=moment.dtype)
    H = moment + DAMPENING * mean * torch.eye(len(moment), dtype=moment.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(H))
    return torch.linalg.cholesky(inverse, upper=True)


def _by_column(
    w: Tensor, U: Tensor, scheme: Scheme, site: Site, scale: Tensor | None, zero: Tensor | None
) -> Tensor:
    """w (in, out): the weight's columns as rows, each put on values of its scales, in order."""
    plain = Scheme(scheme.format, asym=scheme.asym, scales=scheme.scales)
    w, q = w.clone(), torch.empty_like(w)
    for start in range(0, len(w), BLOCK):
        stop = min(start + BLOCK, len(w))
        errors = torch.empty_like(w[start:stop])
        for j in range(start, stop):
            s, z = (None if v is None else v[j] for v in (scale, zero))
            q[j] = quantize(w[j], plain, site, s, z)
            errors[j - start] = error = (w[j] - q[j]) / U[j, j]
            w[j + 1 : stop] -= U[j, j + 1 : stop, None] * error
        w[stop:] -= U[start:stop, stop:].mT @ errors
    return q
