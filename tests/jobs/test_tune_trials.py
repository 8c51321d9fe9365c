"""Short trainings that choose the rates of a long one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sensprobe.errors import DivergedError
from sensprobe.jobs import tune_trials
from sensprobe.jobs.train_under import TuneSettings
from sensprobe.plans.plan import Plan
from sensprobe.session.open import open_session
from sensprobe.train.method import Method


@dataclass
class Trained:
    """What stands in for a training: it scores a number, or diverges."""

    value: float
    stderr: float = 0.01
    n: int = 9

    @property
    def trained(self) -> Trained:
        return self


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Chooses by trials that score these values, None for one that diverges."""

    def choose(values: list[float | None], settings: TuneSettings) -> Any:
        left, asked = iter(values), []

        def train(session: Any, plan: Any, settings: TuneSettings, *rest: Any, **more: Any) -> Any:
            asked.append(settings)
            if (value := next(left)) is None:
                raise DivergedError("training diverged")
            return Trained(value)

        monkeypatch.setattr(tune_trials, "train_under", train)
        session = open_session("s4d-digits", "digits")
        found = tune_trials.chosen_by_trials(session, Plan(), settings, Path("x"), len(values))
        return asked, *found

    return choose


def test_a_trial_that_diverges_comes_last(tried: Any) -> None:
    asked, chosen, rows = tried([0.5, None, 0.7], TuneSettings())
    assert chosen.lr == asked[2].lr
    assert [row["value"] for row in rows] == [0.7, 0.5, None]


def test_trials_that_all_diverge_are_an_error(tried: Any) -> None:
    with pytest.raises(DivergedError):
        tried([None, None], TuneSettings())


def test_a_trial_is_not_progressive(tried: Any) -> None:
    """It may be a single leg, in which no bits can be taken away."""
    asked, chosen, _ = tried([0.5], TuneSettings(method=Method(progressive=True)))
    assert not asked[0].method.progressive
    assert chosen.method.progressive
