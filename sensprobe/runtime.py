"""Which implementation runs an operation: a kernel where one computes the same, else the reference.

    from sensprobe.runtime import diagonal_scan      the signature and meaning of sensprobe.ops

A kernel never computes something else: on the CPU it equals the reference bit for bit. Where there
is none, the reference runs and the logger `sensprobe.runtime` says why, once a reason: as a warning
where a kernel could have been expected, as information where the reference is what was asked for.

Kernels use as many threads as torch (`torch.set_num_threads`, OMP_NUM_THREADS). They are compiled
on first use and cached beside the package, in the user's cache folder where that cannot be written,
or where NUMBA_CACHE_DIR says.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sensprobe.formats import BF16, FP32, Float, Int, Log, LogPolar, Polar
from sensprobe.ops.diagonal_scan import diagonal_scan as reference
from sensprobe.ops.diagonal_scan import trajectory
from sensprobe.philox import key_of
from sensprobe.rounding import LARGEST_SCALE, SMALLEST_SCALE, spread
from sensprobe.scheme import ZERO_PEAK, Rounding, Scales, Scheme, scale_shape
from sensprobe.sites import Site
from sensprobe.storage import Custom, Memory, Rounded, Storage, Watched, fresh

if TYPE_CHECKING:
    from sensprobe_kernels.stored.store import Store

logger = logging.getLogger(__name__)
_said: set[str] = set()

# As the kernels' `flags` number them.
_ROUNDING = {
    Rounding.NEAREST: 0,
    Rounding.FEEDBACK: 0,
    Rounding.TRUNCATE: 1,
    Rounding.STOCHASTIC: 2,
}
_SCALES = {Scales.S16: 0, Scales.S32: 1, Scales.POW2: 2}


class Implementation(NamedTuple):
    """One way to run an operation, for `sensprobe doctor`."""

    operation: str
    device: str
    name: str


def describe() -> list[Implementation]:
    """Every operation and what runs it, the fast ones first."""
    scan = "diagonal_scan"
    rows = [Implementation(scan, "any", "reference loop (PyTorch)")]
    if find_spec("numba"):
        rows.insert(0, Implementation(scan, "cpu", f"kernel (Numba, {_threads()})"))
    return rows


def _threads() -> str:
    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"


def diagonal_scan(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    storage: Storage = None,
    memory: Memory | None = None,
) -> tuple[Tensor, Memory]:
    """`sensprobe.ops.diagonal_scan`, by the fastest implementation that computes the same.

    u: (batch, length, heads) float32. A, B, C: (heads, n) complex64. Returns y (batch, length,
    heads) and the memory after the last step; arguments are left as they are.
    """
    ours = memory is None  # a memory made here may be written to
    if memory is None:
        memory = fresh(u.shape[0], (*A.shape, 2), storage, u.device)
    tensors = [u, A, B, C, memory.state]
    if isinstance(storage, Custom):
        _say(logging.INFO, "states passed through a function run on the reference loop")
    elif torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        _say(logging.INFO, "recurrences that need a gradient run on the reference loop")
    elif any(t.device.type != "cpu" for t in tensors):
        _say(logging.WARNING, f"no kernel for the state space recurrence on {u.device.type}")
    elif not {t.dtype for t in tensors} <= {torch.float32, torch.complex64}:
        _say(logging.WARNING, f"no kernel for the state space recurrence on {u.dtype}")
    elif (store := _store(storage, memory, A.shape)) is None:
        _say(logging.WARNING, f"no kernel for a state stored as {_scheme(storage)}")
    elif isinstance(storage, Watched):
        for step, state in enumerate(trajectory(u, A, B, memory), memory.step):
            storage.look(state, step)
        return _fast(u, A, B, C, store, memory if ours else _copied(memory))
    else:
        return _fast(u, A, B, C, store, memory if ours else _copied(memory))
    return reference(u, A, B, C, storage, memory)


def _say(level: int, reason: str) -> None:
    if reason not in _said:
        _said.add(reason)
        logger.log(level, "%s; the slow reference computes it", reason)


def _scheme(storage: Storage) -> Scheme | None:
    return storage.scheme if isinstance(storage, Rounded) else None


def _copied(memory: Memory) -> Memory:
    return Memory(
        memory.state.detach().clone(memory_format=torch.contiguous_format),
        None
        if memory.residual is None
        else memory.residual.detach().clone(memory_format=torch.contiguous_format),
        memory.step,
    )


def _fast(
    u: Tensor, A: Tensor, B: Tensor, C: Tensor, store: Store, memory: Memory
) -> tuple[Tensor, Memory]:
    """By the kernel, which writes to the memory's tensors."""
    from sensprobe_kernels.diagonal_scan.cpu import scan

    state, residual = memory.state, memory.residual
    y = scan(
        u.detach().contiguous().numpy(),
        (_parts(A), _parts(B), _parts(C)),
        store,
        state.numpy(),
        None if residual is None else residual.numpy(),
        memory.step,
        torch.get_num_threads(),
    )
    return torch.from_numpy(y), Memory(state, residual, memory.step + u.shape[1])


def _parts(x: Tensor) -> NDArray[np.float32]:
    """Complex numbers as (…, 2) float32."""
    return torch.view_as_real(x.detach().resolve_conj()).contiguous().numpy()


def _store(storage: Storage, memory: Memory, shape: torch.Size) -> Store | None:
    """The kernel's description of a storage; None where it has none."""
    from sensprobe_kernels.stored.store import Store

    if storage is None or isinstance(storage, Watched):
        return Store()
    assert isinstance(storage, Rounded)
    scheme = storage.scheme
    if memory.residual is not None and scheme.rounding is not Rounding.FEEDBACK:
        return None
    if isinstance(scheme.format, Polar | LogPolar):
        return None
    store = Store(
        rounding=_ROUNDING[scheme.rounding],
        clip=scheme.clip,
        every=scheme.every,
        first=storage.first,
        key=key_of(scheme.seed, storage.site.name),
        **_format(scheme.format, scheme.asym),
    )
    return _span(store, storage, shape)


def _format(format: Int | Float | Log, asym: bool) -> dict[str, Any]:
    from sensprobe_kernels.stored import flags

    if isinstance(format, Int):
        return {"code": flags.INTEGER, "peak": format.levels if asym else format.peak}
    if format == FP32:
        return {"code": flags.ANY}
    if isinstance(format, Log):
        return {"code": flags.FLOAT, "peak": format.peak, "floor": 1 - format.powers}
    return {
        "code": flags.WIDE if format == BF16 else flags.FLOAT,
        "peak": format.peak,
        "floor": format.floor,
        "mantissa": format.mantissa,
    }


def _dense(x: Tensor, scheme: Scheme, site: Site, shape: torch.Size) -> NDArray[np.float32]:
    """A calibrated scale or zero point for each real of the state."""
    return spread(x, scheme, site).expand(*shape, 2).contiguous().numpy()


def _span(store: Store, storage: Rounded, shape: torch.Size) -> Store | None:
    """The store with what its scales span: calibrated ones for each real, or how to read live."""
    from sensprobe_kernels.stored import flags

    scheme, site = storage.scheme, storage.site
    store = store._replace(span=flags.STATIC, scaled=scheme.scaled, asym=scheme.asym)
    if not scheme.scaled:
        return store
    if not scheme.dynamic:
        assert storage.scale is not None, f"{site.name}: a static state needs calibrated scales"
        scale = _dense(storage.scale, scheme, site, shape)
        zero = None if storage.zero is None else _dense(storage.zero, scheme, site, shape)
        return store._replace(scale=scale, zero=zero)
    heads, n = shape
    group = {"tensor": n, "head": n, "channel": n, "group": scheme.group}[scheme.granularity]
    spans = {(1, 1): flags.TENSOR, (heads, -(-n // group)): flags.GROUP}
    rows, columns, *_ = scale_shape(scheme, site)
    span = spans.get((rows, columns))
    if span is None:
        return None
    return store._replace(
        span=span,
        group=min(group, n),
        parts=scheme.parts,
        scales=_SCALES[scheme.scales],
        smallest=SMALLEST_SCALE[scheme.scales],
        largest=LARGEST_SCALE[scheme.scales],
        zero_peak=ZERO_PEAK[scheme.scales],
    )
