"""A hypothesis strategy over every scheme that can be written, and which sites it may be put on."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from sensprobe.plans.fitting import reads_activation, why_not
from sensprobe.plans.formats import FORMATS, FP32, UNSCALED, Int, LogPolar, Polar
from sensprobe.plans.scheme import OPTIONS, Rounding, Scales, Scheme
from sensprobe.plans.sites import Site

SCALARS = list(FORMATS.values())
POLARS = st.builds(Polar, st.integers(1, 16), st.integers(1, 16)) | st.builds(
    LogPolar, st.integers(1, 16), st.integers(1, 16)
)
POSITIVE = st.floats(1e-30, 1e30)
GRANULARITIES = [
    word.says["granularity"] for o in OPTIONS if o.name == "granularity" for word in o.words
]


@st.composite
def schemes(draw: st.DrawFn) -> Scheme:
    """Any scheme `parse` can give, drawn field by field."""
    format = draw(st.sampled_from(SCALARS) | POLARS)
    fields: dict[str, object] = {}
    if draw(st.booleans()):
        fields["clip"] = draw(POSITIVE)
    if format == FP32:
        return Scheme(format, **fields)
    if draw(st.booleans()):
        fields["every"] = draw(st.integers(1, 1000))
    polar = isinstance(format, Polar | LogPolar)
    fields["hadamard"] = not polar and draw(st.booleans())
    kinds = [Rounding.NEAREST, Rounding.TRUNCATE] if polar else list(Rounding)
    fields["rounding"] = draw(st.sampled_from(kinds))
    if fields["rounding"] is Rounding.STOCHASTIC:
        fields["seed"] = draw(st.integers(0, 2**32 - 1))
    if format in UNSCALED:
        return Scheme(format, **fields)
    fields["scales"] = draw(st.sampled_from(Scales))
    fields["granularity"] = draw(st.sampled_from(GRANULARITIES))
    if fields["granularity"] == "decoupled":
        return Scheme(format, **fields)
    if fields["granularity"] == "group":
        fields["group"] = draw(st.integers(1, 128))
    if not polar:
        fields |= draw(_ranges(isinstance(format, Int)))
    return Scheme(format, **fields)


@st.composite
def _ranges(draw: st.DrawFn, integer: bool) -> dict[str, object]:
    fields: dict[str, object] = {"parts": draw(st.booleans())}
    fields["asym"] = integer and draw(st.booleans())
    fields["range"] = draw(st.sampled_from(["absmax", "percentile", "mse", "given"]))
    if fields["range"] == "absmax":
        fields["dynamic"] = draw(st.booleans())
    if fields["range"] == "percentile":
        fields["percent"] = draw(st.floats(50, 100, exclude_min=True))
    if fields["range"] == "given":
        high = draw(POSITIVE)
        low = draw(st.sampled_from([-high, 0.0, high / 2, -3 * high])) if fields["asym"] else -high
        fields["given"] = (low, high)
    return fields


def schemes_for(site: Site) -> st.SearchStrategy[Scheme]:
    """Schemes that make sense for a site: any scheme, less what the site cannot have."""

    def fitted(scheme: Scheme) -> Scheme:
        if isinstance(scheme.format, Polar | LogPolar) and why_not(Scheme(scheme.format), site):
            scheme = replace(scheme, format=Int(max(2, scheme.format.magnitude_bits)))
        if site.kind != "state":
            rounding = scheme.rounding
            rounding = Rounding.NEAREST if rounding is Rounding.FEEDBACK else rounding
            scheme = replace(scheme, clip=None, every=1, rounding=rounding)
        if site.kind == "weight":
            scheme = replace(scheme, dynamic=False)
        if scheme.hadamard and why_not(Scheme(Int(8), hadamard=True), site):
            scheme = replace(scheme, hadamard=False)
        if scheme.rounding is Rounding.GPTQ and not reads_activation(site):
            scheme = replace(scheme, rounding=Rounding.NEAREST)
        scheme = replace(scheme, parts=scheme.parts and site.is_complex)
        if why_not(scheme, site):
            scheme = replace(scheme, granularity="tensor", group=0)
        if why_not(scheme, site):
            scheme = replace(scheme, parts=False)
        return scheme

    return schemes().map(fitted)
