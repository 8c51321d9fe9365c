"""The cost of a plan: exact bytes, bit operations, effective bits, from shapes alone.

    weights = sum of ceil(values · bits / 8) + scales + zero points, static scales of states and
              activations included (they are stored with the weights)
    state   = batch · (codes + dynamic scales and zero points + residuals of error feedback)

Activations pass through and cost no memory here. Equal to the data sizes of the tensors in an
exported file, to the byte. Bit operations are those of products: what an online Hadamard transform
adds up, and rescaling, is not among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import ceil

from sensprobe.errors import UsageError
from sensprobe.plans.formats import LogPolar, Polar
from sensprobe.plans.scheme import (
    EXACT,
    RESIDUAL_BYTES,
    SCALE_BYTES,
    ZERO_BYTES,
    Rounding,
    Scheme,
    scale_count,
)
from sensprobe.plans.sites import Kind, Site


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes of a plan at a batch size, and the work of one time step."""

    weight_bytes: int
    state_bytes: int
    total_bytes: int
    effective_bits: float  # bits of weights and state together, scales included, a real value
    bit_operations: int  # sum over products of bits · bits, one sequence, one time step
    batch: int

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)


def scale_bytes(scheme: Scheme, site: Site) -> int:
    """Bytes of the scales and zero points of one copy of a tensor."""
    count = scale_count(scheme, site)
    scale, zero = SCALE_BYTES[scheme.scales], ZERO_BYTES[scheme.scales]
    if isinstance(scheme.format, LogPolar):
        return count * 2 * (scale + zero)  # magnitude and phase
    if isinstance(scheme.format, Polar):
        return count * (2 * scale + zero)  # the magnitude starts at zero
    return count * (scale + (zero if scheme.asym else 0))


def code_bytes(scheme: Scheme, site: Site) -> int:
    """Bytes of the packed codes of one copy of a tensor."""
    if isinstance(scheme.format, Polar | LogPolar):
        numbers = site.reals // 2
        fields = scheme.format.magnitude_bits, scheme.format.phase_bits
        return sum(ceil(numbers * bits / 8) for bits in fields)
    return ceil(site.reals * scheme.format.bits / 8)


@lru_cache(maxsize=2**16)
def site_bytes(site: Site, scheme: Scheme = EXACT) -> tuple[int, int]:
    """(bytes stored once, bytes a sequence) of one site."""
    scales = scale_bytes(scheme, site)
    if site.kind is Kind.ACTIVATION:
        return (0 if scheme.dynamic else scales), 0
    codes = code_bytes(scheme, site)
    if site.kind is Kind.WEIGHT:
        return codes + scales, 0
    if scheme.rounding is Rounding.FEEDBACK:
        codes += RESIDUAL_BYTES * site.reals
    return (0, codes + scales) if scheme.dynamic else (scales, codes)


def cost(
    sites: Iterable[Site],
    plan: Mapping[str, Scheme],
    products: Iterable[tuple[str, str | None, int]] = (),
    batch: int = 1,
) -> Cost:
    """The cost of a resolved plan (site name -> scheme; sites it leaves out are float32)."""
    if batch < 1:
        raise UsageError(f"batch {batch}: at least one sequence must run to have a state.")
    sites = list(sites)
    once = each = reals = 0
    for site in sites:
        stored, carried = site_bytes(site, plan.get(site.name, EXACT))
        once, each = once + stored, each + carried
        if site.kind is not Kind.ACTIVATION:
            reals += site.reals * (batch if site.kind is Kind.STATE else 1)
    total = once + batch * each
    return Cost(once, batch * each, total, 8 * total / reals, bit_operations(plan, products), batch)


def bit_operations(
    plan: Mapping[str, Scheme], products: Iterable[tuple[str, str | None, int]]
) -> int:
    """Σ count · bits(weight) · bits(operand) over the products of one time step, which HAWQ-V3
    (arXiv 2011.10680) calls BOPS. An operand without a site counts 32 bits."""

    def bits(name: str | None) -> float:
        return plan.get(name, EXACT).bits_per_real if name else 32

    return round(sum(count * bits(weight) * bits(operand) for weight, operand, count in products))
