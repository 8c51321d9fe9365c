"""The operations of a streaming program by kind, and the bytes that each kind must move a step.

Weights and static scales are read as packed, once a step; states are read and written, a sequence
each; what passes between operations is float32, codes of it two bytes on the CPU and one on a GPU.
Arithmetic on the program's tables: exact, and nothing is run.
"""

from __future__ import annotations

from math import ceil

from sensprobe_kernels.packing.tensor import Packed
from sensprobe_kernels.program import tables as op

from sensprobe.export.tensors import layout
from sensprobe.packed.arena import Arena
from sensprobe.packed.program import Compiled

KINDS = {
    "embedding": (op.EMBED,),
    "products": (op.LINEAR, op.LINEAR_CODES, op.BIAS),
    "convolution": (op.CONVOLVE,),
    "recurrence": (op.DECAY, op.CHANNELS, op.HEADS, op.DIAGONAL),
    "norms": (op.RMS, op.LAYER_NORM),
    "rounding": (op.ROUND,),
    "elementwise": (
        op.INPUT, op.SOFTPLUS, op.GATE, op.ADD, op.SKIP, op.MEAN, op.GELU, op.HALF_GLU, op.COPY,
        op.RAMP, op.SILU, op.RELU,
    ),
}  # fmt: skip
"""What is told apart of a step; biases go with their products, the rotations of a plan with the
rounding they are for."""
KIND_OF = {code: kind for kind, codes in KINDS.items() for code in codes}
NUMBER = 4  # bytes of a float32


def bytes_by_kind(made: Compiled, arena: Arena, code_bytes: int = 2) -> dict[str, int]:
    """Bytes that the operations of each kind must move in a step of the program's whole batch, in
    the order in which a step first meets the kinds."""
    table = _Table(made, arena, code_bytes)
    moved: dict[str, int] = {}
    for row in made.program.ops:
        kind = KIND_OF[row[0]]
        moved[kind] = moved.get(kind, 0) + table.moved(row)
    return moved


class _Table:
    """The bytes of a program's tensors, stores and states."""

    def __init__(self, made: Compiled, arena: Arena, code_bytes: int) -> None:
        self.program, self.code_bytes = made.program, code_bytes
        self._held: dict[int, int] = {}  # where a tensor of a site begins -> bytes of them all
        for site in arena.sites.values():
            names = layout({site.name: site}, arena.plan)
            size = sum(arena.tensors[name].numel() for name in names)
            self._held |= {arena.places[name]: size for name in names if size}
        starts = sorted(state.at for state in made.program.states)
        ends = [*starts[1:], made.fresh.size]
        self._state = {at: end - at for at, end in zip(starts, ends, strict=True)}

    def moved(self, row: list[int]) -> int:
        """Bytes of one operation."""
        fixed, each = self._of(row)
        return fixed + self.program.batch * each

    def _weight(self, i: int) -> int:
        return 0 if i < 0 else self._held[self.program.tensors[i].at]

    def _scales(self, store: int) -> int:
        """Static scales and zero points of what is rounded."""
        return self._held.get(self.program.stores[store].scale_at, 0)

    def _of(self, row: list[int]) -> tuple[int, int]:
        """(bytes of weights and static scales, bytes that every sequence adds)."""
        code = row[0]
        if code in (op.LINEAR, op.LINEAR_CODES, op.EMBED):
            return self._product(row, self.program.tensors[row[1]])
        if code in (op.CONVOLVE, op.CHANNELS, op.HEADS, op.DIAGONAL):
            return self._remembered(row)
        if code == op.ROUND:
            return self._rounded(row)
        if code in (op.RMS, op.LAYER_NORM):
            tensors = row[7:8] if code == op.RMS else row[6:8]
            return sum(map(self._weight, tensors)), 2 * NUMBER * row[4]
        if code == op.BIAS:
            return self._weight(row[1]), 2 * NUMBER * row[4]
        if code == op.DECAY:
            t = self.program.tensors[row[3]]
            return self._weight(row[3]), 2 * NUMBER * t.rows * t.columns
        if code == op.SKIP:
            return self._weight(row[5]), 3 * NUMBER * row[6] * row[7]
        return 0, NUMBER * _passing(row)

    def _product(self, row: list[int], t: Packed) -> tuple[int, int]:
        weight, out = self._weight(row[1]), NUMBER * t.rows
        if row[0] == op.EMBED:
            return 0, weight // t.rows + NUMBER * t.columns
        if row[0] == op.LINEAR:
            return weight, NUMBER * t.columns + out
        return weight, self.code_bytes * t.columns + NUMBER * ceil(t.columns / row[4]) + out

    def _remembered(self, row: list[int]) -> tuple[int, int]:
        """What keeps a state: it goes in and out."""
        place = {op.CONVOLVE: 6, op.CHANNELS: 9, op.HEADS: 10, op.DIAGONAL: 7}[row[0]]
        tensors = {
            op.CONVOLVE: row[1:3],
            op.CHANNELS: row[3:4],
            op.HEADS: [],
            op.DIAGONAL: row[4:7],
        }
        s = self.program.states[row[place]]
        passing = {
            op.CONVOLVE: 2 * s.rows,
            op.CHANNELS: 3 * s.rows + 2 * s.n,
            op.HEADS: 2 * (s.rows + s.heads + s.groups * s.n),
            op.DIAGONAL: 2 * s.heads,
        }[row[0]]
        fixed = sum(map(self._weight, tensors[row[0]])) + self._scales(s.store)
        if row[0] == op.CHANNELS:
            fixed += self._scales(row[10])
        return fixed, 2 * self._state[s.at] + NUMBER * passing

    def _rounded(self, row: list[int]) -> tuple[int, int]:
        """In and out, codes where they are kept, and what is taken back after a rotation."""
        size, passing = row[3], 2
        if row[8] and row[10] >= 0:
            passing += 1
        codes = self.code_bytes * size if row[11] >= 0 else 0
        return self._scales(row[4]), passing * NUMBER * size + codes


def _passing(row: list[int]) -> int:
    """Numbers in and out of operations that read registers alone."""
    code = row[0]
    if code == op.INPUT:
        return 2 * row[3]
    if code in (op.SILU, op.SOFTPLUS, op.GELU, op.RAMP, op.RELU):
        return 2 * row[3]
    if code in (op.GATE, op.ADD):
        return 3 * row[4]
    if code == op.HALF_GLU:
        return 3 * row[5]
    if code == op.COPY:
        return 2 * row[5]
    assert code == op.MEAN
    return 4 * row[4]  # with the sum over all steps, in and out
