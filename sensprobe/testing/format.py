"""The suite that every number format passes: what it lists, and how it is rounded to.

class TestMine(FormatContract):
    @pytest.fixture
    def format(self):
        return Mine(...)
"""

from __future__ import annotations

from math import log2

import torch

from sensprobe.numerics.rounding import round_ratio
from sensprobe.plans.formats import Float, Int, Log, parse_format
from sensprobe.plans.scheme import Rounding

RATIOS = 999


class FormatContract:
    """A real format is the list of its values, and rounding returns a nearest one of them."""

    def test_its_text_is_that_of_the_format(self, format: Int | Float | Log) -> None:
        assert parse_format(str(format)) == format

    def test_values_ascend_and_none_is_there_twice(self, format: Int | Float | Log) -> None:
        values = format.values()
        assert values == sorted(set(values))

    def test_values_lie_alike_on_both_sides_of_zero(self, format: Int | Float | Log) -> None:
        values = format.values()
        assert values == [-v or 0.0 for v in reversed(values)]
        assert values[-1] == format.peak

    def test_codes_can_name_every_value(self, format: Int | Float | Log) -> None:
        assert log2(len(format.values())) <= format.bits

    def test_values_stay_what_they_are(self, format: Int | Float | Log) -> None:
        values = torch.tensor(format.values(), dtype=torch.float32)
        for rounding in (Rounding.NEAREST, Rounding.TRUNCATE, Rounding.FEEDBACK):
            assert torch.equal(round_ratio(values, format, rounding), values)

    def test_rounding_returns_a_nearest_value(self, format: Int | Float | Log) -> None:
        """For numbers from beyond one end of the range to beyond the other."""
        values = torch.tensor(format.values(), dtype=torch.float64)
        peak = min(format.peak, 1e38)
        x = torch.linspace(-1.5, 1.5, RATIOS, dtype=torch.float64) * peak
        x = x.float().double()
        got = round_ratio(x.float(), format).double()
        gaps = torch.stack([(values - one).abs().min() for one in x])
        assert torch.isin(got, values).all()
        if isinstance(format, Log):  # rounds to the nearest power, by ratio
            return
        assert torch.equal((got - x).abs(), gaps)

    def test_toward_zero_never_grows(self, format: Int | Float | Log) -> None:
        x = torch.linspace(-1.5, 1.5, RATIOS) * min(format.peak, 1e38)
        assert (round_ratio(x, format, Rounding.TRUNCATE).abs() <= x.abs()).all()
