"""A streaming program: its operations, the tables they refer to, and names for people."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sensprobe_kernels.packing.tensor import Packed
from sensprobe_kernels.program.ir import Operation, Register, State, Stored

PITCH, CODES_PITCH = 16, 32
"""Registers of float32, and of codes, are as wide as a multiple of these."""


@dataclass
class Program:
    """Operations for a step of `batch` sequences, filled by `add` and the methods that give the
    number of a table's new row.

    data: packed weights and static scales. Tensors, stores and states have the names of the sites
    they are of, "" where they are of none.
    """

    data: NDArray[np.uint8]
    batch: int
    ops: list[Operation] = field(default_factory=list)
    tensors: list[Packed] = field(default_factory=list)
    stores: list[Stored] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    consts: list[float] = field(default_factory=list)
    registers: dict[str, Register] = field(default_factory=dict)
    codes: dict[str, Register] = field(default_factory=dict)
    tensor_names: list[str] = field(default_factory=list)
    store_names: list[str] = field(default_factory=list)
    state_names: list[str] = field(default_factory=list)
    work_size: int = 0  # float32 numbers of all registers
    codes_size: int = 0  # codes of all registers of codes

    def register(self, size: int, name: str = "") -> Register:
        """A new register; `name` must not be in use."""
        made = Register(self.work_size, -(-size // PITCH) * PITCH, size)
        self.work_size += self.batch * made.pitch
        self.registers[name or f"r{len(self.registers)}"] = made
        return made

    def codes_register(self, size: int, name: str = "") -> Register:
        """A new register of integer codes, in a block of their own."""
        made = Register(self.codes_size, -(-size // CODES_PITCH) * CODES_PITCH, size)
        self.codes_size += self.batch * made.pitch
        self.codes[name or f"c{len(self.codes)}"] = made
        return made

    def tensor(self, tensor: Packed, name: str = "") -> int:
        self.tensors.append(tensor)
        self.tensor_names.append(name)
        return len(self.tensors) - 1

    def store(self, stored: Stored, name: str = "") -> int:
        self.stores.append(stored)
        self.store_names.append(name)
        return len(self.stores) - 1

    def state(self, state: State, name: str = "") -> int:
        self.states.append(state)
        self.state_names.append(name)
        return len(self.states) - 1

    def state_sizes(self, total: int) -> list[int]:
        """Bytes of each state, of the `total` that a sequence's states have together."""
        return [end - at for at, end in pairwise([*(s.at for s in self.states), total])]

    def constants(self, *values: float) -> int:
        """The number of the first of some new constants, which follow each other."""
        self.consts += values
        return len(self.consts) - len(values)

    def add(self, operation: Operation) -> None:
        self.ops.append(operation)

    def only(self, *kinds: type[Operation]) -> Program:
        """A program of nothing but its operations of some kinds, on the same registers."""
        return replace(self, ops=[o for o in self.ops if isinstance(o, kinds)])
