"""`sensprobe bench`: every operation at a shape, with what it moved and its ratio."""

from __future__ import annotations

import json

import pytest

from sensprobe.cli import main
from sensprobe.packed import bench


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """One small shape and few rounds: the numbers are not looked at here."""
    monkeypatch.setattr(bench, "SHAPES", {"tiny": 64})
    monkeypatch.setattr(bench, "LEAST_SECONDS", 1e-4)
    monkeypatch.setattr(bench, "ROUNDS", 2)
    monkeypatch.setattr(bench, "COPIED_BYTES", 1 << 16)


def test_every_operation_is_timed(capsys):
    assert main(["bench", "--shapes", "tiny", "--batch", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["copy_bytes_per_second"] > 0
    found = {(row["operation"], row["scheme"]) for row in told["rows"]}
    assert found == {
        *(("linear", scheme) for scheme in bench.WEIGHTS),
        *((f"state, {name}", scheme) for name in ("Mamba", "Mamba-2") for scheme in bench.STATES),
    }
    for row in told["rows"]:
        assert row["seconds"] > 0
        assert row["ratio"] == pytest.approx(row["reference_seconds"] / row["seconds"])
        assert row["bytes_per_second"] == pytest.approx(row["bytes"] / row["seconds"])


def test_bytes_are_those_that_must_move():
    """Of an update: the packed state in and out, x, dt, y, B and C in float32, and A."""
    rows, n, batch = 128, 16, 2
    (case,) = (c for c in bench.cases("tiny", batch) if (c.operation, c.scheme) == MAMBA_INT8)
    state = rows * n + 2 * rows  # codes, and a float16 scale a channel
    assert case.bytes == 2 * batch * state + 4 * batch * (3 * rows + 2 * n) + 4 * rows * n


MAMBA_INT8 = ("state, Mamba", "int8/head/dynamic")


def test_a_table_for_people(capsys):
    assert main(["bench", "--shapes", "tiny"]) == 0
    out = capsys.readouterr().out
    assert "linear, tiny" in out
    assert "GB/s" in out


@pytest.mark.parametrize(
    ("words", "why"),
    [(["--shapes", "7b"], "no shape 7b"), (["--shapes", "tiny", "--batch", "0"], "at least one")],
)
def test_what_cannot_be_says_why(words, why, capsys):
    assert main(["bench", *words]) == 2
    assert why in capsys.readouterr().err
