"""Sites and schemes as the tables of a program have them, or why a program cannot."""

from __future__ import annotations

from math import ceil, prod

from sensprobe_kernels.packed.tensor import (
    BFLOAT,
    HALF,
    OFFSET,
    SIGNED,
    SINGLE,
    SMALL,
    Packed,
)
from sensprobe_kernels.program.cpu import Program
from sensprobe_kernels.program.tables import State, Stored
from sensprobe_kernels.stored import flags
from sensprobe_kernels.stored.store import Store, numbers, quotient
from sensprobe_kernels.vector import LANES

from sensprobe.errors import UnsupportedError
from sensprobe.formats import BF16, FP16, FP32, Float, Format, Int, Log, LogPolar, Polar
from sensprobe.packed.arena import Arena
from sensprobe.runtime.stores import spanned, store_of
from sensprobe.scheme import (
    EXACT,
    RESIDUAL_BYTES,
    SCALE_BYTES,
    ZERO_BYTES,
    Rounding,
    Scales,
    Scheme,
    scale_count,
    scale_shape,
)
from sensprobe.sites import Site
from sensprobe.storage import Rounded
from sensprobe.taps import StaticScale

SCALES = {Scales.S16: flags.S16, Scales.S32: flags.S32, Scales.POW2: flags.POW2}
PLAIN = {FP32: SINGLE, FP16: HALF, BF16: BFLOAT}
LARGEST_CODE = 8
"""Bits of the widest codes a state may have, and of those that weights are read in sixteens."""


def refuse(site: Site, scheme: Scheme, why: str) -> UnsupportedError:
    return UnsupportedError(f"{site.name} in {scheme}: no streaming kernel {why}")


def packed(site: Site, arena: Arena) -> Packed:
    """A weight as `rows` of `columns`; one axis is one row unless its numbers differ in scale."""
    scheme = arena.plan.get(site.name, EXACT)
    if scheme.hadamard:
        raise refuse(site, scheme, "rotates weights")
    if isinstance(scheme.format, Polar | LogPolar):
        raise refuse(site, scheme, "reads magnitude and phase")
    if scheme.granularity == "decoupled":
        raise refuse(site, scheme, "multiplies two scales of a weight")
    rows, columns = prod(site.shape[:-1]), site.shape[-1] * (2 if site.is_complex else 1)
    if not scheme.scaled:
        place = arena.places[site.name]
        kind, bits = PLAIN[scheme.format], scheme.format.bits  # type: ignore[index]
        return Packed(place, bits, kind, rows, columns, -1, 0, -1, 0, columns, 0, 0, 1)
    shape = scale_shape(scheme, site)
    parts = shape[-1] if site.is_complex else 1
    *over, along = shape[:-1] if site.is_complex else shape
    stride, group = _scaled(site, scheme, tuple(over), along)
    if site.is_complex:
        stride, group = stride * parts, 2 * group
    bits = scheme.format.bits
    whole = bits <= LARGEST_CODE and (rows == 1 or columns * bits % 8 == 0)
    kind, shift, factor = _codes(scheme.format, scheme.asym)
    return Packed(
        arena.places[f"{site.name}.codes"], bits, kind, rows, columns,
        arena.places[f"{site.name}.scale"], SCALES[scheme.scales],
        arena.places[f"{site.name}.zero"] if scheme.asym else -1,
        stride, group, shift, factor, int(whole and (group >= columns or group % 8 == 0)), parts,
    )  # fmt: skip


def _scaled(site: Site, scheme: Scheme, over: tuple[int, ...], along: int) -> tuple[int, int]:
    """(scales from one row to the next, columns that share one)."""
    columns, each = site.shape[-1], over == site.shape[:-1]
    one = prod(over) == 1
    if not (each or one):
        raise refuse(site, scheme, "reads scales that some rows share")
    if along == 1:
        return (0 if one and prod(site.shape[:-1]) > 1 else 1), columns
    if along == columns:
        return (columns if each and not one else 0), 1
    return along, scheme.group


def _codes(format: Format, asym: bool) -> tuple[int, int, int]:
    """kind, shift and factor of `Packed`."""
    if isinstance(format, Int):
        return (OFFSET if asym else SIGNED), 0, 0
    assert isinstance(format, Float | Log)
    mantissa, floor = (
        (format.mantissa, format.floor) if isinstance(format, Float) else (0, 1 - format.powers)
    )
    return SMALL, 23 - mantissa, floor + 126


# -- what is rounded as it passes -----------------------------------------------------------------


def passing(
    program: Program, site: Site, scheme: Scheme, static: StaticScale | None, arena: Arena
) -> int:
    """The store of an activation."""
    if scheme.rounding is Rounding.STOCHASTIC:
        raise refuse(site, scheme, "rounds an activation at random")
    if scheme.hadamard:
        raise refuse(site, scheme, "rotates an activation")
    store = store_of(Rounded(scheme, site, *(static or (None, None))))
    if store is None:
        raise refuse(site, scheme, "rounds so")
    if not scheme.scaled:
        return _stored(program, store, flags.STATIC)
    shape = scale_shape(scheme, site)
    run = _run(shape, scheme, site)
    if run is None:
        raise refuse(site, scheme, "rounds numbers that are no neighbours by one scale")
    if scheme.dynamic:
        return _stored(program, store, flags.GROUP, group=run)
    one = prod(shape) == 1
    return _stored(
        program, store, flags.STATIC if one else flags.STATIC_EACH,
        place=(site, scheme, arena), stride=0 if one else run,
    )  # fmt: skip


def _run(shape: tuple[int, ...], scheme: Scheme, site: Site) -> int | None:
    """Neighbours that share a scale; None if those that share one are no neighbours."""
    if scheme.granularity == "decoupled":
        return None
    if scheme.granularity == "group":
        run = min(scheme.group, site.shape[-1])
        return run if len(site.shape) == 1 or site.shape[-1] % run == 0 else None
    run, shared = 1, True
    for size, scales in zip(reversed(site.shape), reversed(shape), strict=True):
        if scales == 1 and shared:
            run *= size
        elif scales == size:
            shared = False
        else:
            return None
    return run


def _stored(
    program: Program,
    store: Store,
    span: int,
    *,
    group: int = 0,
    place: tuple[Site, Scheme, Arena] | None = None,
    stride: int = 0,
    feedback: bool = False,
) -> int:
    """A row of the table of stores."""
    scale_at = zero_at = -1
    if place is not None:
        site, scheme, arena = place
        scale_at = arena.places[f"{site.name}.scale"]
        zero_at = arena.places[f"{site.name}.zero"] if scheme.asym else -1
    stored = Stored(
        span,
        store.code,
        store.rounding,
        quotient(store),
        int(store.asym),
        int(feedback),
        int(store.clip is not None),
        group,
        store.scales,
        *store.key,
        program.constants(*numbers(store).tolist()),
        scale_at,
        zero_at,
        stride,
    )  # fmt: skip
    return program.store(stored)


def exact(program: Program) -> int:
    """The store of what is not rounded."""
    return _stored(program, Store(), flags.EXACT)


def inside(
    program: Program, site: Site, scheme: Scheme, static: StaticScale | None, arena: Arena
) -> int:
    """The store of what an operation computes and rounds inside itself: rows of the last axis."""
    rows = prod(site.shape[:-1])
    if scheme.rounding is Rounding.FEEDBACK or scheme.every != 1:
        raise refuse(site, scheme, "rounds so")
    store, _ = _state_store(program, site, scheme, static, arena, rows)
    return store


# -- states ---------------------------------------------------------------------------------------


def state(
    program: Program,
    site: Site,
    scheme: Scheme | None,
    static: StaticScale | None,
    arena: Arena,
    at: int,
    *,
    heads: int = 1,
    groups: int = 1,
) -> tuple[int, int]:
    """(a row of the table of states, bytes it takes a sequence): rows of the last axis, from byte
    `at` of a sequence's memory on. `heads` that own the rows, in `groups` that share B and C."""
    rows, n = prod(site.shape[:-1]), site.shape[-1]
    tiles, own = rows // LANES, rows // heads
    if own % LANES:
        reason = f"takes {own} channels of a head; sixteen go together"
        raise refuse(site, scheme or EXACT, reason)
    table = program.table([k * heads // tiles for k in range(tiles)])
    program.table([k * groups // tiles for k in range(tiles)])

    def made(
        store: int, bits: int, kind: int, shift: int, factor: int, unit: int, live: int,
        scale_at: int, zero_at: int, residual_at: int,
    ) -> int:  # fmt: skip
        row = State(
            store,
            at,
            bits,
            kind,
            shift,
            factor,
            rows,
            n,
            unit,
            heads,
            own,
            groups,
            live,
            scale_at,
            zero_at,
            residual_at,
            table,
        )  # fmt: skip
        return program.state(row)

    if scheme is None:
        store = exact(program)
        return made(store, 32, SINGLE, 0, 0, 1, 0, -1, -1, -1), 4 * rows * n
    store, unit = _state_store(program, site, scheme, static, arena, own)
    codes = ceil(rows * n * scheme.format.bits / 8)
    live = scale_count(scheme, site) if scheme.scaled and scheme.dynamic else 0
    scale_at, end = at + codes, at + codes + live * SCALE_BYTES[scheme.scales]
    zero_at = -1
    if live and scheme.asym:
        zero_at, end = end, end + live * ZERO_BYTES[scheme.scales]
    residual_at = -1
    if scheme.rounding is Rounding.FEEDBACK:
        residual_at, end = end, end + RESIDUAL_BYTES * rows * n
    if not scheme.scaled:
        kind, shift, factor = PLAIN[scheme.format], 0, 0  # type: ignore[index]
    else:
        kind, shift, factor = _codes(scheme.format, scheme.asym)
    bits = scheme.format.bits
    i = made(store, bits, kind, shift, factor, unit, live, scale_at, zero_at, residual_at)
    return i, end - at


def complex_state(
    program: Program,
    site: Site,
    scheme: Scheme | None,
    static: StaticScale | None,
    arena: Arena,
    at: int,
) -> tuple[int, int]:
    """(a row of the table of states, bytes it takes a sequence), of pairs (heads, n)."""
    program.complex = True
    heads, n = site.shape
    count, natural = 2 * heads * n, (2 * heads * n, 1)
    if scheme is None or not scheme.scaled:
        kind = SINGLE if scheme is None else PLAIN[scheme.format]  # type: ignore[index]
        bits, live, (shift, factor) = 32 if scheme is None else scheme.format.bits, 0, (0, 0)
        order, store = natural, exact(program)
        if scheme is not None:
            _require_plain(site, scheme)
            known = store_of(Rounded(scheme, site))
            assert known is not None
            store = _stored(program, known, flags.STATIC)
    else:
        _require_plain(site, scheme)
        order = _order(site, scheme)
        kind, shift, factor = _codes(scheme.format, scheme.asym)
        bits, live = scheme.format.bits, scale_count(scheme, site) if scheme.dynamic else 0
        known = store_of(Rounded(scheme, site, *(static or (None, None))))
        assert known is not None
        store = (
            _stored(program, known, flags.GROUP, group=order[0])
            if scheme.dynamic
            else _stored(program, known, flags.STATIC, place=(site, scheme, arena))
        )
    scale_at = end = at + ceil(count * bits / 8)
    zero_at = -1
    if live:
        assert scheme is not None
        end += live * SCALE_BYTES[scheme.scales]
        if scheme.asym:
            zero_at, end = end, end + live * ZERO_BYTES[scheme.scales]
    row = State(
        store, at, bits, kind, shift, factor, 2 * heads, n, 1, heads, 1, 1, live, scale_at, zero_at,
        -1, 0, *order,
    )  # fmt: skip
    return program.state(row), end - at


def _require_plain(site: Site, scheme: Scheme) -> None:
    if scheme.every != 1:
        raise refuse(site, scheme, f"keeps a state in full for {scheme.every} steps")
    if scheme.scaled and scheme.format.bits > LARGEST_CODE:
        raise refuse(site, scheme, f"packs states in more than {LARGEST_CODE} bits")
    odd = scheme.rounding in (Rounding.STOCHASTIC, Rounding.FEEDBACK)
    if odd or scheme.clip is not None or isinstance(scheme.format, Polar | LogPolar):
        raise refuse(site, scheme, "keeps a complex state so")


def _order(site: Site, scheme: Scheme) -> tuple[int, int]:
    """run and parts of a scaled complex state."""
    heads, n = site.shape
    *over, along, parts = scale_shape(scheme, site)
    if scheme.granularity == "decoupled" or prod(over) not in (1, heads):
        raise refuse(site, scheme, "keeps a complex state so")
    if along > 1:
        if n % scheme.group:
            raise refuse(site, scheme, "keeps groups of a complex state that n does not fill")
        return 2 * scheme.group, parts
    return 2 * n * heads // prod(over), parts


def _state_store(
    program: Program, site: Site, scheme: Scheme, static: StaticScale | None, arena: Arena, own: int
) -> tuple[int, int]:
    """The store of a state, and how many tiles share a live scale."""
    if scheme.every != 1:
        raise refuse(site, scheme, f"keeps a state in full for {scheme.every} steps")
    if scheme.scaled and scheme.format.bits > LARGEST_CODE:
        raise refuse(site, scheme, f"packs states in more than {LARGEST_CODE} bits")
    storage = Rounded(scheme, site, *(static or (None, None)))
    found = spanned(storage)
    if found is None:
        raise refuse(site, scheme, "keeps a state so")
    store, by_head = found
    feedback = scheme.rounding is Rounding.FEEDBACK
    if not scheme.scaled:
        return _stored(program, store, flags.STATIC, feedback=feedback), 1
    rows, n = prod(site.shape[:-1]), site.shape[-1]
    if scheme.dynamic:
        if store.span == flags.GROUP and store.group < n:
            raise refuse(site, scheme, "has several live scales in a row of a state")
        unit = 1 if store.span == flags.GROUP else (own if by_head else rows) // LANES
        return _stored(program, store, store.span, group=n, feedback=feedback), unit
    *over, along = scale_shape(scheme, site) if scheme.granularity != "decoupled" else (0, 0)
    shared = rows // max(prod(over), 1)
    if along != 1 or not (prod(over) == 1 or shared == 1 or shared % LANES == 0):
        raise refuse(site, scheme, "reads such static scales of a state")
    return _stored(
        program, store, flags.STATIC, place=(site, scheme, arena), feedback=feedback,
        stride=0 if prod(over) == 1 else shared,
    ), 1  # fmt: skip
