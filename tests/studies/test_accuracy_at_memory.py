"""Study 007: plans that take no more than they say, and a table of what was measured."""

from __future__ import annotations

from types import ModuleType

import pytest
from module_files import module_of


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return module_of("007_accuracy_at_memory", "train")


def test_plans_fit_their_budgets(study) -> None:
    for plan in study.STUDY["plan"]:
        spent, full = study.bytes_of(plan)
        assert full / spent >= plan["times"], plan["name"]


def test_the_table_is_that_of_what_was_measured(study) -> None:
    assert study.table() in study.README.read_text(encoding="utf-8")


def test_several_seeds_have_a_mean_with_both_errors(study) -> None:
    rows = [{"test": 97.0, "stderr": 0.3}, {"test": 98.0, "stderr": 0.4}]
    assert study._mean(rows, "test", "stderr") == "97.50 ± 0.61"
    assert study._mean(rows[:1], "test", "stderr") == "97.00 ± 0.30"


def test_the_table_of_other_models_is_that_of_what_was_measured() -> None:
    other = module_of("008_what_tuning_buys_back", "train")
    assert other.table() in other.README.read_text(encoding="utf-8")
