"""Records of a program's operations and their rows: positions come from the records alone."""

from __future__ import annotations

import re
from itertools import count

import pytest
from sensprobe_kernels.program import ir
from sensprobe_kernels.program.program import Program

KINDS = pytest.mark.parametrize("kind", ir.OPERATIONS, ids=lambda kind: kind.__name__)


@KINDS
def test_a_record_is_what_its_row_says(kind):
    """Every number is another one, so that none may change places."""
    record = ir.decode([ir.CODES[kind], *range(100, 99 + ir.WIDTH)])
    row = ir.encode(record)
    assert type(record) is kind
    assert len(row) == ir.WIDTH
    assert (type(ir.decode(row)), ir.decode(row)) == (kind, record)


@KINDS
def test_columns_are_where_a_row_has_the_fields(kind):
    record = ir.decode([ir.CODES[kind], *range(100, 99 + ir.WIDTH)])
    row = ir.encode(record)

    def same(columns, values):
        for column, value in zip(columns, values, strict=True):
            if isinstance(value, tuple):
                same(column, value)
            else:
                assert row[column] == value

    same(ir.columns(kind), record)


def test_codes_have_the_names_of_their_records():
    """The numbers that the interpreter compares are named in the order of the records."""
    for kind, code in ir.CODES.items():
        name = re.sub("(?<=[a-z])(?=[A-Z])", "_", kind.__name__).upper()
        assert getattr(ir, name) == code


@KINDS
def test_every_operation_writes_a_register_and_its_references_have_tables(kind):
    assert "to" in kind._fields
    assert set(ir.tables_of(kind).values()) <= {"tensor", "state", "store", "constant"}


def test_registers_do_not_overlap_and_have_whole_lines():
    program = Program(None, 3)
    sizes = (1, 16, 17, 40)
    made = [program.register(size, f"r of {size}") for size in sizes]
    starts = [register.at for register in made]
    assert starts == [0, *(r.at + 3 * r.pitch for r in made[:-1])]
    assert all(r.pitch % 16 == 0 and r.pitch >= r.size for r in made)
    assert program.work_size == made[-1].at + 3 * made[-1].pitch
    assert list(program.registers.values()) == made


def test_a_part_of_a_register_lies_inside_it():
    whole = ir.Register(32, 64, 50)
    assert whole.part(10, 20) == ir.Register(42, 64, 20)


def test_only_keeps_the_operations_of_a_kind_in_order():
    program, numbers = Program(None, 1), count()
    x, y = program.register(8), program.register(8)
    for kind in (ir.Silu, ir.Copy, ir.Silu, ir.Gelu):
        program.add(kind(x, y) if next(numbers) % 2 else kind(y, x))
    kept = program.only(ir.Silu, ir.Gelu)
    assert [type(o) for o in kept.ops] == [ir.Silu, ir.Silu, ir.Gelu]
    assert len(program.ops) == 4
