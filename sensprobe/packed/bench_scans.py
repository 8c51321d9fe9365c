"""Recurrences over some tokens at once, as a prefill or a whole sequence runs them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.ir import Operation

from sensprobe.models import Model
from sensprobe.numerics.storage import Rounded, Storage
from sensprobe.ops import head_scan, selective_scan
from sensprobe.ops.head_chunks import head_chunks
from sensprobe.packed.bench_models import CHANNELS, HEADS, resolved
from sensprobe.packed.bench_references import Run
from sensprobe.packed.bench_steps import EXACTLY, state_bytes

TOKENS = 128
STATE = "layers.0.state"


class Scan(NamedTuple):
    """A family's recurrence; `kind` is its operation in a program."""

    operation: str
    family: str
    scheme: str
    kind: type[Operation]

    def plan(self) -> dict[str, str]:
        return {} if self.scheme == EXACTLY else {"layers.*.state": self.scheme}

    def moved(self, model: Model, batch: int) -> int:
        """Bytes: x, dt, B, C and y of every token in float32, the state in and out, A."""
        passing = sum(model.sites[f"layers.0.{n}"].reals for n in ("x", "dt", "B", "C", "y"))
        states = 2 * state_bytes(model, self.plan())
        return batch * (4 * TOKENS * passing + states) + 4 * model.sites["layers.0.A"].reals

    def run(self, model: Model, batch: int) -> Run:
        """On the CPU, as the simulation runs it: by kernels, and chunks by PyTorch's products."""
        site = model.sites[STATE]
        *rows, n = site.shape
        kept: Storage = None
        if self.plan():
            kept = Rounded(resolved(model, self.plan())[STATE], site)
        x = torch.full((batch, TOKENS, *rows), 0.5)
        dt = torch.full((batch, TOKENS, rows[0]), 0.5)
        if self.family == CHANNELS:
            A, B = torch.full((*rows, n), -1.0), torch.full((batch, TOKENS, n), 0.5)
            return lambda: selective_scan(x, dt, A, B, B, None, kept)
        A, B = torch.full((rows[0],), -1.0), torch.full((batch, TOKENS, 1, n), 0.5)
        scan = head_chunks if self.kind is ir.Chunks else head_scan
        return lambda: scan(x, dt, A, B, B, None, kept)


SCANS = (
    *(
        Scan(f"scan, {name}", family, scheme, kind)
        for name, family, kind in (
            ("Mamba", CHANNELS, ir.Channels),
            ("Mamba-2", HEADS, ir.Heads),
        )
        for scheme in (EXACTLY, "int8/head/dynamic")
    ),
    Scan("scan in chunks, Mamba-2", HEADS, "int8/head/dynamic/every64", ir.Chunks),
)
