"""Study 006: the authors' quantizer against its definition, cells against what was published, a
README that shows what was measured."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import authors
import authors_scan
import cells
import pytest
import qat
import torch
from authors import Bits, Network, Range, range_of, recurrence, rounded, scale_and_zero
from module_files import module_of
from torch import Tensor

from sensprobe.cli import study
from sensprobe.session.source import open_model

tables = module_of("006_zhao_qat", "tables")


def layer(count: int, length: int, heads: int, pairs: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """u (b, l, h), and A, B, C (h, n) of a stable recurrence."""
    torch.manual_seed(0)
    radius, angle = 0.7 + 0.29 * torch.rand(heads, pairs), 3 * torch.rand(heads, pairs)
    B, C = torch.randn(2, heads, pairs, dtype=torch.complex64)
    return torch.randn(count, length, heads), torch.polar(radius, angle), B, C


def looped(
    u: Tensor, A: Tensor, B: Tensor, C: Tensor, bits: int, found: Range | None, last: bool = True
) -> Tensor:
    """y (b, l, h) by the definition: A·x, B·u and their sum are rounded; y reads the sum before."""

    def store(z: Tensor) -> Tensor:
        parts = torch.view_as_real(z)
        ends = range_of(parts, (0, 1)) if found is None else Range(*(e[..., None] for e in found))
        return torch.view_as_complex(rounded(parts, ends, bits))

    state, y = torch.zeros(len(u), *A.shape, dtype=torch.complex64), []
    for t in range(u.shape[1]):
        total = store(A * state) + store(B * u[:, t, :, None])
        y.append(2 * (C * total).sum(-1).real)
        kept = torch.view_as_real(store(total) if last else total)
        state = torch.view_as_complex(kept.clamp(-authors.STATE_PEAK, authors.STATE_PEAK))
    return torch.stack(y, dim=1)


@pytest.mark.parametrize("time", ["static", "live"])
@pytest.mark.parametrize(("count", "length"), [(1, 1), (3, 7), (65, 5)])
def test_the_recurrence_is_the_loop_of_its_definition(time: str, count: int, length: int) -> None:
    problem = layer(count, length, heads=2, pairs=3)
    found = recurrence(*problem, None, None)[1] if time == "static" else None
    y = recurrence(*problem, 5, found)[0]
    torch.testing.assert_close(y, looped(*problem, 5, found), rtol=1e-5, atol=1e-5)


def test_the_third_rounding_matters_to_a_live_range_and_only_clips_by_a_static_one() -> None:
    """So the comparison with the loop can fail. Values of a grid add up to values of that grid."""
    problem = layer(3, 7, heads=2, pairs=3)
    without = looped(*problem, 5, None, last=False)
    assert (recurrence(*problem, 5, None)[0] - without).abs().max() > 1e-2
    wide = Range(*(10 * end for end in recurrence(*problem, None, None)[1]))
    without = looped(*problem, 5, wide, last=False)
    torch.testing.assert_close(recurrence(*problem, 5, wide)[0], without, rtol=1e-5, atol=1e-5)


def test_the_range_of_a_state_spans_both_products_and_their_sum() -> None:
    u, A, B, C = layer(2, 3, heads=1, pairs=1)
    low, high = recurrence(u, A, B, C, None, None)[1]
    state, met = torch.zeros(2, 1, 1, dtype=torch.complex64), []
    for t in range(3):
        parts = A * state, B * u[:, t, :, None]
        state = parts[0] + parts[1]
        met += [torch.view_as_real(z) for z in (*parts, state)]
    together = torch.stack(met)
    torch.testing.assert_close(high, together.max().view(1, 1))
    torch.testing.assert_close(low, together.min().view(1, 1))


@pytest.mark.parametrize("bits", [2, 6, 8])
def test_rounding_gives_a_nearest_value_of_those_the_codes_name(bits: int) -> None:
    found = Range(torch.tensor(-0.3), torch.tensor(1.1))
    scale, zero = scale_and_zero(found, bits)
    codes = torch.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))
    values = (codes - zero) * scale
    x = torch.linspace(-0.3, 1.1, 301)
    nearest = (x[:, None] - values).abs().min(1).values
    torch.testing.assert_close((rounded(x, found, bits) - x).abs(), nearest, rtol=0, atol=1e-6)
    assert rounded(torch.tensor([-9.0, 9.0]), found, bits).tolist() == values[[0, -1]].tolist()


def test_a_zero_point_stops_at_16_bits() -> None:
    """At 16 bits a range that does not hold 0 cannot be met: their code clips it."""
    found = Range(torch.tensor(0.5), torch.tensor(1.0))
    assert scale_and_zero(found, 16)[1] == authors_scan.ZERO_LOW
    assert rounded(torch.tensor(0.9), found, 16) < 0.6


def test_nothing_rounded_is_the_model_as_the_product_runs_it() -> None:
    model, pixels = open_model("s4d-smnist-16").model, torch.rand(4, 784, 1)
    with torch.no_grad():
        want = model(pixels)
    got = Network(model, Bits(), {})(pixels)[0]
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
    assert not torch.equal(Network(model, Bits(weights=4), {})(pixels)[0], got)


def test_their_gelu_is_the_one_of_their_code() -> None:
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])
    assert authors.GELUS["theirs"](x).tolist() == [0.0, -0.25, 0.0, 0.75, 3.0]


# -- cells -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [r for r in cells.STUDY["table"]], ids=str)
def test_memory_as_they_count_is_the_saving_they_print(row: dict[str, Any]) -> None:
    """To the digit; one ends in a half, which they round down."""
    saved = cells.published_saving(row["H"], cells.Widths(*row["widths"]))
    assert saved == pytest.approx(row["saved"], abs=0.0051)


def test_every_cell_has_its_widths_in_its_plan() -> None:
    names = [cell.name for cell in cells.cells()]
    assert len(set(names)) == len(names) == 4 + 1 + 15
    for cell in cells.cells():
        sites = open_model(cells.STUDY["models"][str(cell.H)]).model.sites
        plan = cell.widths.plan("live").resolve(sites.values())
        bits = {name: scheme.bits_per_real for name, scheme in plan.items()}
        w = cell.widths
        assert (bits.pop("layers.0.A"), bits.pop("layers.0.state")) == (w.A, w.x)
        kinds = {name: sites[name].kind.value for name in bits}
        assert {bits[n] for n, kind in kinds.items() if kind == "weight"} == {w.weights}
        assert {bits[n] for n, kind in kinds.items() if kind == "activation"} == {w.activations}


def test_a_finished_cell_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qat, "QAT", tmp_path / "qat.jsonl")
    asked = Namespace(only=["h16-w8a8"], seeds=[0, 1], epochs=1, lr=0.1, ssm_lr=0.1, state="live")
    first, second = qat.missing(asked)
    assert (first[0].name, first[1]["seed"]) == ("h16-w8a8-A8x8-continuous", 0)
    study.append_line(tmp_path / "qat.jsonl", {"cell": first[0].name, **first[1], "test": 0})
    assert list(qat.missing(asked)) == [second]
    assert len(list(qat.missing(Namespace(**vars(asked) | {"epochs": 2})))) == 2
    with pytest.raises(SystemExit, match="no cell is called h17"):
        list(qat.missing(Namespace(**vars(asked) | {"only": ["h17"]})))


# -- README ----------------------------------------------------------------------------------------


def test_the_readme_shows_what_was_measured() -> None:
    text, found = (cells.HERE / "README.md").read_text(encoding="utf-8"), tables.read_results()
    assert study.rendered(text, tables.SECTIONS, found) == text


def line(cell: str, seed: int, test: float, search: float = 90.0, **how: Any) -> dict[str, Any]:
    usual = {"epochs": 3, "lr": 1e-3, "ssm_lr": 1e-4, "state": "", "seconds": 60, "n": 10_000}
    scores = {"test": {"value": test, "stderr": 0.3}, "search": {"value": search, "stderr": 0.4}}
    return {"cell": cell, "seed": seed, "before": scores["test"], **scores, **usual, **how}


def test_a_figure_is_the_mean_over_seeds_of_one_way_of_training() -> None:
    cell = next(iter(cells.table_cells()))
    three = [line(cell.name, seed, value) for seed, value in enumerate((90.0, 91.0, 92.0))]
    found = {"ptq": [], "qat": [*three, line(cell.name, 0, 99.0, search=99.0, epochs=9)]}
    assert tables.shown(found, cell) == three
    mean = tables.mean_of(three)
    assert mean["value"] == 91
    assert mean["stderr"] == pytest.approx((0.3**2 + 1 / 3) ** 0.5)
    assert tables.reached(found, cell, [91.5, 0.5]) == "yes"
    assert tables.reached(found, cell, [91.5]) == "**no**"
    assert "not run" in tables.table({"ptq": [], "qat": []})
