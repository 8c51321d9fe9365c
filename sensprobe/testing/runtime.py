"""The suite that every runtime passes: what it makes of a plan, and what it says of that.

    class TestMine(RuntimeContract):
        pass

needs two fixtures in its file: `runtime`, the record of the runtime, and `model`, one that it has.
"""

from __future__ import annotations

from contextlib import suppress

from sensprobe.errors import UsageError
from sensprobe.export.runtimes import Fit, Judge, Runtime, fit
from sensprobe.models import Model
from sensprobe.plans.plan import Resolved, adapted
from sensprobe.plans.scheme import EXACT, parse
from sensprobe.plans.sites import Kind

PLANS = ("int8/channel", "int4/group32/asym", "int8/head/dynamic", "e4m3/channel", "fp16", "int5")


def plan_of(text: str, model: Model) -> Resolved:
    """A scheme for every site that can be in it."""
    sites = model.sites.values()
    return adapted([("*", parse(text))], sites).resolve(sites)


def fitted(runtime: Runtime, model: Model) -> list[tuple[Resolved, Fit]]:
    """The plans of which a runtime can express something, with what it makes of them."""
    found = []
    for text in PLANS:
        plan = plan_of(text, model)
        with suppress(UsageError):
            found.append((plan, fit(runtime, model, plan)))
    return found


class RuntimeContract:
    """The folder of a runtime differs from a plan exactly where a row says so."""

    def test_its_examples_are_schemes(self, runtime: Runtime) -> None:
        assert [parse(text) for text in runtime.examples]

    def test_it_can_express_something(self, runtime: Runtime, model: Model) -> None:
        assert fitted(runtime, model)

    def test_every_scheme_is_kept_or_has_a_row(self, runtime: Runtime, model: Model) -> None:
        for plan, found in fitted(runtime, model):
            rows = {change.site for change in found.changes}
            for name in model.sites:
                if found.plan.get(name, EXACT) != plan.get(name, EXACT):
                    assert name in rows, (str(plan.get(name, EXACT)), name)

    def test_a_row_says_why(self, runtime: Runtime, model: Model) -> None:
        assert all(c.why for _, found in fitted(runtime, model) for c in found.changes)

    def test_what_it_keeps_it_keeps_again(self, runtime: Runtime, model: Model) -> None:
        for _, found in fitted(runtime, model):
            assert fit(runtime, model, found.plan).plan == found.plan

    def test_every_weight_has_one_holder(self, runtime: Runtime, model: Model) -> None:
        holder = Judge(runtime, model).holder
        assert set(holder) == {n for n, s in model.sites.items() if s.kind is Kind.WEIGHT}
