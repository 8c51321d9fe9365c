"""The streaming program: one record an operation, and the tables that operations refer to.

Builders append records, code generators and the launches of a GPU read them by name, and the
interpreter of the CPU reads them as rows of whole numbers. `encode` makes a row of a record,
`decode` the record of a row, and `columns` says in which column each field lies; all three follow
the order in which a record lists its fields, and nothing else knows that order.

In a record a `Register` is an array of float32. Other whole numbers refer to tables of the program:
a tensor, a state, a store (how numbers are rounded) or a constant. NONE marks what is absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import (
    Annotated,
    Any,
    NamedTuple,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

T = TypeVar("T")
TensorNumber = Annotated[int, "tensor"]
StateNumber = Annotated[int, "state"]
StoreNumber = Annotated[int, "store"]
ConstantNumber = Annotated[int, "constant"]
"""A place in one of the program's tables (`tables_of`)."""
NONE = -1
"""The number of an absent tensor, or the place of what is not kept."""


class Register(NamedTuple):
    """An array (batch, pitch) of work memory from number `at` on, of which `size` columns are used.

    Pitches are multiples of sixteen. Columns beyond `size` hold arbitrary numbers.
    """

    at: int
    pitch: int
    size: int

    def part(self, first: int, size: int) -> Register:
        """Some of the columns, in place."""
        return Register(self.at + first, self.pitch, size)


class Codes(NamedTuple):
    """Integer codes of a register that was rounded, in the basis it was rounded in.

    `codes` lies in a block of work memory of its own; `scales` is a register of one scale for every
    `run` columns. Both begin at NONE where no codes are kept.
    """

    codes: Register
    scales: Register
    run: int


NOWHERE = Register(NONE, 0, 0)
NO_CODES = Codes(NOWHERE, NOWHERE, 0)

# -- operations -----------------------------------------------------------------------------------


class Embed(NamedTuple):
    """to = the row of a tensor that each sequence's token names."""

    tensor: TensorNumber
    to: Register


class Input(NamedTuple):
    """to = the inputs of the step."""

    to: Register


class Linear(NamedTuple):
    """to = W x."""

    tensor: TensorNumber
    x: Register
    to: Register


class Bias(NamedTuple):
    """to = to + b."""

    tensor: TensorNumber
    to: Register


class Rms(NamedTuple):
    """to = x / √(mean x² + eps) · weight, the mean over each of `groups` runs of columns.

    `eps` is a constant; there may be no weight.
    """

    x: Register
    to: Register
    groups: int
    eps: ConstantNumber
    weight: TensorNumber


class LayerNorm(NamedTuple):
    """to = (x - mean x) / √(variance of x + eps) · weight + bias; `eps` is a constant."""

    x: Register
    to: Register
    eps: ConstantNumber
    weight: TensorNumber
    bias: TensorNumber


class Round(NamedTuple):
    """to = x, rounded as a store says.

    With a `power` x goes through a Hadamard transform first, in blocks of base · power columns; the
    matrix of `base` rows begins at the constant `signs`. Unless `signs_back` is NONE, the rounded
    numbers are transformed back into x. `kept` is where codes go, and `readers` says who reads them
    (SCANNED, MULTIPLIED, PLAIN) where a recurrence may, else it is 0.
    """

    x: Register
    store: StoreNumber
    to: Register
    base: int
    power: int
    signs: ConstantNumber
    signs_back: ConstantNumber
    kept: Codes
    readers: int


class Silu(NamedTuple):
    """to = x / (1 + exp(-x))."""

    x: Register
    to: Register


class Softplus(NamedTuple):
    """to = log(1 + exp(x)), clamped to the constants `low` and `high`."""

    x: Register
    to: Register
    low: ConstantNumber
    high: ConstantNumber


class Gate(NamedTuple):
    """to = y silu(z)."""

    y: Register
    z: Register
    to: Register


class Add(NamedTuple):
    """to = a + b."""

    a: Register
    b: Register
    to: Register


class Skip(NamedTuple):
    """to = y + D x; D has so many `entries`, each for `span` columns."""

    y: Register
    x: Register
    to: Register
    D: TensorNumber
    span: int
    entries: int


class Convolve(NamedTuple):
    """to = the causal convolution of x with a short filter a channel, plus a bias.

    The state is the window of past inputs.
    """

    weight: TensorNumber
    bias: TensorNumber
    x: Register
    to: Register
    state: StateNumber


class Decay(NamedTuple):
    """to = exp(dt A)."""

    dt: Register
    A: TensorNumber
    to: Register


class Channels(NamedTuple):
    """h = exp(dt A) h + dt B x, to = C · h: a recurrence a channel (Mamba).

    `decay` is the store of exp(dt A). Kernels of GPUs read the codes of x, B and C where there are
    some, those of the CPU the registers.
    """

    x: Register
    dt: Register
    A: TensorNumber
    B: Register
    C: Register
    to: Register
    state: StateNumber
    decay: StoreNumber
    x_codes: Codes
    B_codes: Codes
    C_codes: Codes


class Heads(NamedTuple):
    """h = decay h + dt B x, to = C · h: a recurrence a head, its decay given (Mamba-2).

    Codes are as those of `Channels`.
    """

    x: Register
    dt: Register
    decay: Register
    B: Register
    C: Register
    to: Register
    state: StateNumber
    x_codes: Codes
    B_codes: Codes
    C_codes: Codes


class LinearCodes(NamedTuple):
    """to = W x, x given by its codes: integers are multiplied by integers."""

    tensor: TensorNumber
    x: Codes
    to: Register


class Mean(NamedTuple):
    """to = the mean of x over all steps so far."""

    x: Register
    to: Register


class Gelu(NamedTuple):
    """to = x (1 + erf(x / √2)) / 2."""

    x: Register
    to: Register


class HalfGlu(NamedTuple):
    """to = a sigmoid(b), where a and b are the first and the second half of x."""

    x: Register
    to: Register


class Copy(NamedTuple):
    """to = x."""

    x: Register
    to: Register


class Diagonal(NamedTuple):
    """h = A h + B x, to = 2 Re(C · h), with complex pairs a head (S4D)."""

    x: Register
    to: Register
    A: TensorNumber
    B: TensorNumber
    C: TensorNumber
    state: StateNumber


class Qgelu(NamedTuple):
    """to = x clamp(x + 2, 0, 1)."""

    x: Register
    to: Register


class Chunks(NamedTuple):
    """The recurrence of `Heads` with decays exp(dt A), its state rounded every so many steps.

    It runs on whole sequences, on GPUs only.
    """

    x: Register
    dt: Register
    A: TensorNumber
    B: Register
    C: Register
    to: Register
    state: StateNumber
    every: int


class Relu(NamedTuple):
    """to = max(x, 0)."""

    x: Register
    to: Register


class Modes(NamedTuple):
    """h = A h + x, to = h, complex modes whose real and imaginary numbers lie in turn (S5)."""

    x: Register
    to: Register
    A: TensorNumber
    state: StateNumber


class Affine(NamedTuple):
    """to = x · weight + bias."""

    x: Register
    to: Register
    weight: TensorNumber
    bias: TensorNumber


class HardGlu(NamedTuple):
    """to = a clamp(b + 3, 0, 6) / 6, where a and b are the first and the second half of x."""

    x: Register
    to: Register


class GeluTanh(NamedTuple):
    """to = x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2."""

    x: Register
    to: Register


class Qgelu4(NamedTuple):
    """to = x clamp(x + 2, 0, 4) / 4."""

    x: Register
    to: Register


class Pick(NamedTuple):
    """to_j = x_c with the constant c = columns + j as its column, 0 where that is NONE."""

    x: Register
    to: Register
    columns: ConstantNumber


class Centre(NamedTuple):
    """to = x - mean x."""

    x: Register
    to: Register


class Factor(NamedTuple):
    """to = weight / √(mean x² + eps); `eps` is a constant."""

    x: Register
    to: Register
    eps: ConstantNumber
    weight: TensorNumber


class Multiply(NamedTuple):
    """to = a · b."""

    a: Register
    b: Register
    to: Register


Operation: TypeAlias = (
    Embed | Input | Linear | Bias | Rms | LayerNorm | Round | Silu | Softplus | Gate | Add | Skip
    | Convolve | Decay | Channels | Heads | LinearCodes | Mean | Gelu | HalfGlu | Copy | Diagonal
    | Qgelu | Chunks | Relu | Modes | Affine | HardGlu | GeluTanh
    | Qgelu4 | Pick | Centre | Factor | Multiply
)  # fmt: skip
OPERATIONS: tuple[type[Any], ...] = get_args(Operation)
CODES = {kind: code for code, kind in enumerate(OPERATIONS)}
"""The number that stands first in the row of a record of each kind."""
(
    EMBED, INPUT, LINEAR, BIAS, RMS, LAYER_NORM, ROUND, SILU, SOFTPLUS, GATE, ADD, SKIP, CONVOLVE,
    DECAY, CHANNELS, HEADS, LINEAR_CODES, MEAN, GELU, HALF_GLU, COPY, DIAGONAL, QGELU, CHUNKS, RELU,
    MODES, AFFINE, HARD_GLU, GELU_TANH, QGELU4, PICK, CENTRE, FACTOR, MULTIPLY,
) = range(len(OPERATIONS))  # fmt: skip

# Who reads codes that a recurrence may read.
SCANNED = 1  # the recurrence
MULTIPLIED = 2  # linear maps, the codes
PLAIN = 4  # linear maps, the numbers

# -- rows -----------------------------------------------------------------------------------------


def columns(kind: type[T]) -> T:
    """A record that holds in every field the column of that field in a row."""
    return _filled(kind, count(1))


def encode(operation: Operation) -> list[int]:
    """The row of an operation: its code and every number of its fields, then zeros up to WIDTH."""
    numbers = [CODES[type(operation)], *_flat(operation)]
    return numbers + [0] * (WIDTH - len(numbers))


def decode(row: Sequence[int]) -> Operation:
    """The operation of a row."""
    found: Operation = _filled(OPERATIONS[row[0]], iter(row[1:]))
    return found


def tables_of(kind: type[Any]) -> dict[str, str]:
    """The fields of an operation that refer to a table, with the table's name."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: hint.__metadata__[0] for name, hint in hints.items() if get_origin(hint) is Annotated
    }


def _filled(kind: type[T], numbers: Iterator[int]) -> T:
    """A record of whole numbers, taken in the order of its fields."""
    hints = get_type_hints(kind).values()
    return kind(*(next(numbers) if hint is int else _filled(hint, numbers) for hint in hints))


def _flat(record: tuple[Any, ...]) -> Iterator[int]:
    """The inverse of `_filled`."""
    for value in record:
        yield from _flat(value) if isinstance(value, tuple) else (value,)


WIDTH = 1 + max(len(list(_flat(columns(kind)))) for kind in OPERATIONS)
"""Numbers in a row of the table of operations."""

# -- tables ---------------------------------------------------------------------------------------


class Stored(NamedTuple):
    """How an activation or a state is rounded; whole numbers as in `quantize.spec`.

    Static scales lie in the bytes of the weights, one for every `stride` rows (of a state) or
    columns (of an activation), 0 where there is one for all.
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


class State(NamedTuple):
    """A state among the bytes of one sequence: codes, dynamic scales, zero points, residuals.

    It has rows · n numbers; `bits` and the three fields that follow are as in
    `packing.tensor.Packed`. `unit` is how many tiles of sixteen rows share a dynamic scale where
    the store's span is TENSOR. `run` neighbours in a row share a scale; 0 says that a row has one.

    A complex state has n pairs a head, real and imaginary numbers in turn. There `run` neighbours
    share a scale, which may span heads, or with `parts` 2 real and imaginary ones have one each.

    `table` is set by the CPU's interpreter: where it lists the head of every tile, and after those
    the row of B and C of every tile.
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
    run: int = 0
    parts: int = 1
    table: int = 0
