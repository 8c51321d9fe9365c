"""What a metric says of itself, and what documents of older runs are taken to say."""

import pytest

from sensprobe.errors import DataError
from sensprobe.scores.metrics import INFO, MetricInfo, declared, from_json, info_in


def metric(**attributes):
    def accuracy(outputs, targets): ...

    accuracy.__dict__.update(attributes)
    return accuracy


def test_a_function_declares_by_attributes_and_nothing_by_its_name():
    assert declared(metric(), "accuracy") == (MetricInfo("accuracy"), False)
    info, complete = declared(metric(unit="fraction"), "accuracy")
    assert complete
    assert (info.unit, info.change_unit, info.scale, info.sign) == ("%", "points", 100, 1)
    assert info.kept(1) == 0.01
    info, _ = declared(metric(unit="dB", higher_is_better=False, name="noise"), "f")
    assert info == MetricInfo("noise", "dB", "dB", 1.0, False)


def test_what_is_returned_counts_where_no_attribute_does():
    said = {"unit": "percent", "higher_is_better": False}
    assert declared(metric(), "f", said)[0] == MetricInfo("f", "%", "points", 1.0, False)
    assert declared(metric(unit="nats"), "f", said)[0].unit == "nats"
    assert declared(metric(), "f", MetricInfo("g", "m")) == (MetricInfo("g", "m"), True)


@pytest.mark.parametrize(
    "said", [{"unit": 3}, {"unit": "two\nlines"}, {"unit": "x" * 41}, {"higher_is_better": 1}]
)
def test_a_declaration_that_cannot_be_is_refused(said):
    with pytest.raises(DataError, match="metric f"):
        declared(metric(**said), "f")


def test_documents_say_what_they_measure_and_older_ones_by_their_names():
    info = MetricInfo("accuracy", "dB", "dB", 2.0, False)
    assert info_in({"metric": "accuracy", "metric_info": info.to_json()}) == info
    assert info_in({"metric": "accuracy", "sign": 1}) == INFO["correct"]
    assert info_in({"metric": "bits_per_byte"}) == INFO["bits_per_byte"]
    assert info_in({"metric": "mine", "sign": -1}) == MetricInfo("mine", higher_is_better=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"unit": 1},
        {"scale": 0},
        {"scale": True},
        {"scale": 1e999},
        {"higher_is_better": 1},
    ],
)
def test_a_damaged_declaration_is_an_error(wrong):
    with pytest.raises(ValueError, match="a metric"):
        from_json(INFO["correct"].to_json() | wrong)
