"""The operations of a streaming program by kind, and the bytes that each kind must move a step.

Weights and static scales are read as packed, once a step; states are read and written, a sequence
each; what passes between operations is float32, codes of it two bytes on the CPU and one on a GPU.
Arithmetic on the program's tables: exact, and nothing is run.
"""

from __future__ import annotations

from math import ceil

from sensprobe_kernels.program import ir
from sensprobe_kernels.program.ir import Operation

from sensprobe.export.tensors import layout
from sensprobe.packed.compile import Compiled
from sensprobe.packed.weights import PackedWeights

KINDS: dict[str, tuple[type[Operation], ...]] = {
    "embedding": (ir.Embed,),
    "products": (ir.Linear, ir.LinearCodes, ir.Bias),
    "convolution": (ir.Convolve,),
    "recurrence": (ir.Decay, ir.Channels, ir.Heads, ir.Diagonal, ir.Modes),
    "norms": (ir.Rms, ir.LayerNorm, ir.Affine, ir.Centre, ir.Factor),
    "rounding": (ir.Round,),
    "elementwise": (
        ir.Input, ir.Softplus, ir.Gate, ir.Add, ir.Skip, ir.Mean, ir.Gelu, ir.HalfGlu,
        ir.HardGlu, ir.Copy, ir.Qgelu, ir.Silu, ir.Relu, ir.GeluTanh, ir.Qgelu4,
        ir.Pick, ir.Multiply,
    ),
}  # fmt: skip
"""What is told apart of a step; biases go with their products, the rotations of a plan with the
rounding they are for."""
KIND_OF = {kind: name for name, kinds in KINDS.items() for kind in kinds}
NUMBER = 4  # bytes of a float32


def bytes_by_kind(made: Compiled, weights: PackedWeights, code_bytes: int = 2) -> dict[str, int]:
    """Bytes that the operations of each kind must move in a step of the program's whole batch, in
    the order in which a step first meets the kinds."""
    table = _Table(made, weights, code_bytes)
    moved: dict[str, int] = {}
    for o in made.program.ops:
        kind = KIND_OF[type(o)]
        moved[kind] = moved.get(kind, 0) + table.moved(o)
    return moved


class _Table:
    """The bytes of a program's tensors, stores and states."""

    def __init__(self, made: Compiled, weights: PackedWeights, code_bytes: int) -> None:
        self.program, self.code_bytes = made.program, code_bytes
        self._held: dict[int, int] = {}  # where a tensor of a site begins -> bytes of them all
        for site in weights.sites.values():
            names = layout({site.name: site}, weights.plan)
            size = sum(weights.tensors[name].numel() for name in names)
            self._held |= {weights.places[name]: size for name in names if size}
        self._state_sizes = made.program.state_sizes(made.fresh.size)

    def moved(self, o: Operation) -> int:
        """Bytes of one operation."""
        fixed, each = self._of(o)
        return fixed + self.program.batch * each

    def _weight(self, *tensors: int) -> int:
        """Bytes of tensors; NONE has none."""
        found = (self.program.tensors[i].at for i in tensors if i >= 0)
        return sum(self._held[at] for at in found)

    def _scales(self, store: int) -> int:
        """Bytes of a store's static scales and zero points."""
        return self._held.get(self.program.stores[store].scale_at, 0)

    def _of(self, o: Operation) -> tuple[int, int]:
        """(bytes of weights and static scales, bytes that every sequence adds)."""
        match o:
            case ir.Linear() | ir.LinearCodes() | ir.Embed():
                return self._product(o)
            case ir.Convolve() | ir.Channels() | ir.Heads() | ir.Diagonal() | ir.Modes():
                return self._stateful(o)
            case ir.Round():
                return self._rounded(o)
            case ir.Rms() | ir.Factor():
                return self._weight(o.weight), 2 * NUMBER * o.x.size
            case ir.LayerNorm() | ir.Affine():
                return self._weight(o.weight, o.bias), 2 * NUMBER * o.x.size
            case ir.Bias():
                return self._weight(o.tensor), 2 * NUMBER * o.to.size
            case ir.Decay():
                t = self.program.tensors[o.A]
                return self._weight(o.A), 2 * NUMBER * t.rows * t.columns
            case ir.Skip():
                return self._weight(o.D), 3 * NUMBER * o.span * o.entries
        return 0, NUMBER * _passing(o)

    def _product(self, o: ir.Linear | ir.LinearCodes | ir.Embed) -> tuple[int, int]:
        t, weight = self.program.tensors[o.tensor], self._weight(o.tensor)
        out = NUMBER * t.rows
        if isinstance(o, ir.Embed):
            return 0, weight // t.rows + NUMBER * t.columns
        if isinstance(o, ir.Linear):
            return weight, NUMBER * t.columns + out
        return weight, self.code_bytes * t.columns + NUMBER * ceil(t.columns / o.x.run) + out

    def _stateful(
        self, o: ir.Convolve | ir.Channels | ir.Heads | ir.Diagonal | ir.Modes
    ) -> tuple[int, int]:
        """Operations that keep a state, which goes in and out."""
        s = self.program.states[o.state]
        fixed = self._scales(s.store)
        match o:
            case ir.Convolve():
                passing, weights = 2 * s.rows, self._weight(o.weight, o.bias)
            case ir.Channels():
                passing, weights = 3 * s.rows + 2 * s.n, self._weight(o.A) + self._scales(o.decay)
            case ir.Heads():
                passing, weights = 2 * (s.rows + s.heads + s.groups * s.n), 0
            case ir.Diagonal():
                passing, weights = 2 * s.heads, self._weight(o.A, o.B, o.C)
            case ir.Modes():
                passing, weights = 4 * s.heads * s.n, self._weight(o.A)
        return fixed + weights, 2 * self._state_sizes[o.state] + NUMBER * passing

    def _rounded(self, o: ir.Round) -> tuple[int, int]:
        """In and out, codes where they are kept, and what is rotated back."""
        size, passing = o.x.size, 2
        if o.power and o.signs_back >= 0:
            passing += 1
        codes = self.code_bytes * size if o.kept.codes.at >= 0 else 0
        return self._scales(o.store), passing * NUMBER * size + codes


def _passing(o: Operation) -> int:
    """Numbers in and out of operations that read registers alone."""
    match o:
        case ir.Input() | ir.HalfGlu() | ir.HardGlu() | ir.Copy() | ir.Pick():
            return (3 if isinstance(o, ir.HalfGlu | ir.HardGlu) else 2) * o.to.size
        case (
            ir.Silu()
            | ir.Softplus()
            | ir.Gelu()
            | ir.GeluTanh()
            | ir.Qgelu()
            | ir.Qgelu4()
            | ir.Relu()
        ):
            return 2 * o.to.pitch
        case ir.Centre():
            return 2 * o.to.size
        case ir.Gate() | ir.Add() | ir.Multiply():
            return 3 * o.to.pitch
    assert isinstance(o, ir.Mean)
    return 4 * o.x.size  # with the sum over all steps, in and out
