"""What streaming kernels run, and how a search keeps to it: the end of a refusal."""

from __future__ import annotations

from sensprobe.plans.sites import Kind, Site, group_pattern

CODES = "e4m3, e5m2, e2m1, log3 to log8, fp16, bf16 and fp32"
TAKEN = {
    Kind.WEIGHT: f"weights in int2 to int16, {CODES}, complex ones in polar and logpolar too, a "
    "scale a tensor, channel, head or group",
    Kind.ACTIVATION: f"activations in int2 to int16, {CODES}, rounded to nearest or toward zero",
    Kind.STATE: f"states in int2 to int8, {CODES}, a scale a tensor, head, channel or (in a "
    "recurrence) group that divides n, rounded at every step",
}
COMPLEX = (
    f"complex states in int2 to int8, {CODES}, a scale a tensor, head or group that divides n, "
    "rounded at every step"
)
SAFE = {
    Kind.WEIGHT: "int8/channel",
    Kind.ACTIVATION: "int8/dynamic",
    Kind.STATE: "int8/head/dynamic",
}
"""A scheme that every site of a kind can have, fitted to it as a search does."""


def taken(site: Site) -> str:
    """The schemes that kernels run a site in."""
    return COMPLEX if site.kind is Kind.STATE and site.is_complex else TAKEN[site.kind]


def search_command(site: Site) -> str:
    """A search that keeps a site, in every layer, to a scheme that kernels run."""
    kept = f"{group_pattern(site)}={SAFE[site.kind]}"
    return f"sensprobe search --run RUN --budget SIZE --freeze '{kept}'"


def advice(site: Site) -> str:
    """What runs instead, and the commands that search for it."""
    return (
        f"they take {taken(site)}; `{search_command(site)}` keeps to that, --scheme allows only "
        "those of the profiled schemes that it names"
    )
