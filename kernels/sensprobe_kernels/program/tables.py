"""What the compiled step reads: operations, stores and states as rows of whole numbers.

A register is a float32 array (batch, pitch) in one block of work memory, its pitch a multiple of
sixteen; an operation names registers by where they start. Columns beyond a register's size hold
anything. Codes of activations are int16, in a block of their own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sensprobe_kernels.jit import inline
from sensprobe_kernels.quantize.spec import Flags, Settings, flags_of

# Operations, and what follows them in their row. A tensor is a row of the table of tensors, -1
# where there is none; a store and a state likewise. What is rounded is first rotated where there is
# a power, and taken back to where it came from unless `signs back` is -1; its codes are kept
# unless they go to -1. `readers` says of codes that a recurrence may read who else does.
# `operands` of a recurrence are a place of fifteen numbers, or -1: of x, B and C each codes, their
# pitch, columns that share a scale, scales and their pitch, codes -1 where there are none. Kernels
# for GPUs read those and not the registers; those of the CPU read registers alone.
EMBED = 0  # tensor, to, pitch
INPUT = 1  # to, pitch, size
LINEAR = 2  # tensor, from, its pitch, to, its pitch
BIAS = 3  # tensor, to, pitch, size
RMS = 4  # from, to, pitch, size, groups, constant of eps, tensor
LAYER_NORM = 5  # from, to, pitch, size, constant of eps, weight, bias
# from, its pitch, columns, store, to, its pitch, base, power, signs, signs back, codes, their
# pitch, scales, their pitch, readers
ROUND = 6
SILU = 7  # from, to, pitch
SOFTPLUS = 8  # from, to, pitch, constants of the smallest and largest
GATE = 9  # y, z, to, pitch: y silu(z)
ADD = 10  # a, b, to, pitch
SKIP = 11  # y, x, to, pitch, tensor of D, columns a number of it, numbers of it, pitch of x
CONVOLVE = 12  # weight, bias, x, to, pitch, state
DECAY = 13  # dt, its pitch, tensor of A, to, pitch
# x, dt, tensor of A, B, C, to, pitch, pitch of B, state, store of the decay, operands
CHANNELS = 14
HEADS = 15  # x, its pitch, dt, decay, their pitch, B, C, to, pitch, state, operands
# tensor, codes, their pitch, columns that share a scale, scales, their pitch, to, its pitch
LINEAR_CODES = 16
MEAN = 17  # from, to, pitch, size
GELU = 18  # from, to, pitch
HALF_GLU = 19  # from, its pitch, to, pitch, size: a sigmoid(b)
COPY = 20  # from, its pitch, to, its pitch, columns
DIAGONAL = 21  # x, to, pitch, A, B, C, state
RAMP = 22  # from, to, pitch: y clamp(y + 2, 0, 1)
# x, its pitch, dt, its pitch, tensor of A, B, C, to, pitch, state, steps from one rounding of it to
# the next; of whole sequences, on GPUs only
CHUNKS = 23
RELU = 24  # from, to, pitch

WIDTH = 16
"""Numbers in a row of the table of operations."""

# Readers, of what a recurrence may read in codes.
SCANNED = 1  # the recurrence
MULTIPLIED = 2  # linear maps, the codes
PLAIN = 4  # linear maps, the numbers


class Stored(NamedTuple):
    """How a tensor in passing, or a state, is rounded: `flags` and what goes with them.

    Static scales lie in the bytes of the weights, one for every `stride` rows (of a state) or
    columns (of what passes), 0 where there is one for all.
    """

    span: int
    code: int
    rounding: int
    quotient: int
    asym: int
    feedback: int
    clip: int
    group: int
    scales: int
    key0: int
    key1: int
    numbers: int  # where its eight constants start
    scale_at: int
    zero_at: int
    stride: int


STORED_FIELDS = len(Stored._fields)


@inline
def stored_of(stores: Any, i: int) -> Stored:
    """Row i of the table of stores."""
    return Stored(
        stores[i, 0], stores[i, 1], stores[i, 2], stores[i, 3], stores[i, 4], stores[i, 5],
        stores[i, 6], stores[i, 7], stores[i, 8], stores[i, 9], stores[i, 10], stores[i, 11],
        stores[i, 12], stores[i, 13], stores[i, 14],
    )  # fmt: skip


@inline
def flags_in(s: Stored) -> Flags:
    return flags_of(s.span, s.code, s.rounding, s.quotient, s.asym, s.feedback, s.clip)


@inline
def settings_of(s: Stored) -> Settings:
    """The settings of a step that is always rounded."""
    return Settings(s.group, 1, s.scales, 1, s.key0, s.key1)


class State(NamedTuple):
    """A state in a sequence's bytes: codes, then live scales and zero points, then residuals.

    rows · n numbers; `kind` and the three that follow as in `packed.tensor.Packed`. `unit` is how
    many tiles of sixteen rows share a live scale under TENSOR.

    `run` numbers that follow one another in a row share a scale, 0: all.

    A complex state has n pairs a head, real and imaginary by turns. `run` numbers that follow one
    another share a scale, be they of several heads, or each of `parts` 2 has its own.
    """

    store: int
    at: int
    bits: int
    kind: int
    shift: int
    factor: int
    rows: int
    n: int
    unit: int
    heads: int
    channels: int  # of a head
    groups: int  # rows of B and C
    scale_at: int
    zero_at: int
    residual_at: int
    table: int  # where the head of each tile, then its row of B and C, are among the places
    run: int = 0
    parts: int = 1


STATE_FIELDS = len(State._fields)


@inline
def state_of(states: Any, i: int) -> State:
    """Row i of the table of states."""
    return State(
        states[i, 0], states[i, 1], states[i, 2], states[i, 3], states[i, 4], states[i, 5],
        states[i, 6], states[i, 7], states[i, 8], states[i, 9], states[i, 10], states[i, 11],
        states[i, 12], states[i, 13], states[i, 14], states[i, 15], states[i, 16], states[i, 17],
    )  # fmt: skip
