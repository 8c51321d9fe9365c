"""Metrics: the arrays that evaluations keep, and a metric's name, unit and direction.

A score is kept as the metric gives it and read as its `MetricInfo` says: tables, axes, cards and
`--max-loss` all go by that one declaration, and nothing goes by what a function is called. A
metric of the user's own declares itself by attributes of the function, or by a mapping that it
returns beside its values:

    def hits(outputs, targets):
        return (outputs.argmax(-1) == targets).float()
    hits.unit = "fraction"          # a share of 1, read in percent; differences are in points
    hits.higher_is_better = True    # the default

`unit` is "fraction", "percent" (numbers that are in percent already) or any text ("nats", "dB").
Without one, numbers are shown as they are and a limit is in the metric's own unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

from sensprobe.errors import DataError

DIVERGENCE = "divergence"
"""The metric that needs no labels: how far outputs are from those of full precision."""
AGREEMENT, BALANCED_ACCURACY, F1 = "agreement", "balanced-accuracy", "f1"
BUILT_IN = (DIVERGENCE, AGREEMENT, BALANCED_ACCURACY, F1)
"""The metrics that `--metric` takes by name; anything else is the user's own code."""
PRIMARY = {
    "classification": "correct",
    "regression": "squared_error",
    "language": "bits_per_byte",
    "unlabelled": "kl",
}
"""The per-sample array behind a task's headline metric."""
NRMSE = "nrmse"
"""The array of regression with a target at every step: the root of a sequence's mean squared
error, of targets whose standard deviation is 1."""
NAMES = {
    "correct": "accuracy",
    "squared_error": "mse",
    NRMSE: NRMSE,
    "bits_per_byte": "bits_per_byte",
    "custom": "custom",
    "kl": DIVERGENCE,
    "distance": DIVERGENCE,
    "agrees": AGREEMENT,
    "balanced_accuracy": "balanced_accuracy",
    "f1": "f1",
}
ADDITIVE = {
    "classification": "kl",
    "regression": "distance",
    "language": "kl",
    "unlabelled": "kl",
}
"""The per-sample array that sensitivities add up in."""
ARRAYS = {AGREEMENT: "agrees", BALANCED_ACCURACY: "balanced_accuracy", F1: "f1"}
"""The per-sample values behind a built-in metric that has an array of its own."""
PREDICTED, LABEL = "predicted", "label"
"""The class that a model names for a sample, -1 where outputs are not finite, and the true one."""

UNITS = {"fraction": ("%", "points", 100.0), "percent": ("%", "points", 1.0)}
"""Declared unit -> unit of a level, unit of a difference, and what turns scores into those."""
LONGEST = 40
"""Characters that a name or a unit may have."""


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """The name, unit and direction of a metric.

    A kept score times `scale` is the number that people read: in `unit` where it is a level, in
    `change_unit` where it is a difference or a limit on one.
    """

    name: str
    unit: str = ""
    change_unit: str = ""
    scale: float = 1.0
    higher_is_better: bool = True

    @property
    def sign(self) -> int:
        """+1 where more is better, -1 where less is."""
        return 1 if self.higher_is_better else -1

    def kept(self, shown: float) -> float:
        """A difference as people give it, in the unit that scores are kept in."""
        return shown / self.scale

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def from_json(document: Mapping[str, Any]) -> MetricInfo:
    """The metric that a document of a run describes; ValueError where it describes none."""
    texts = {key: document.get(key, "") for key in ("name", "unit", "change_unit")}
    scale, better = document.get("scale", 1.0), document.get("higher_is_better", True)
    if not texts["name"] or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(f"a metric named {texts}")
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise ValueError(f"a metric's scale {scale!r}")
    if not isfinite(scale) or scale <= 0 or not isinstance(better, bool):
        raise ValueError(f"a metric's scale {scale!r} and higher_is_better {better!r}")
    return MetricInfo(**texts, scale=float(scale), higher_is_better=better)


def _share(name: str) -> MetricInfo:
    return MetricInfo(name, *UNITS["fraction"])


INFO = {
    "correct": _share("accuracy"),
    "agrees": _share("agreement"),
    "balanced_accuracy": _share("balanced accuracy"),
    "f1": _share("macro F1"),
    "squared_error": MetricInfo("mse", higher_is_better=False),
    NRMSE: MetricInfo(NRMSE, higher_is_better=False),
    "bits_per_byte": MetricInfo("bits per byte", higher_is_better=False),
    "kl": MetricInfo(DIVERGENCE, higher_is_better=False),
    "distance": MetricInfo(DIVERGENCE, higher_is_better=False),
}
"""The metrics of the arrays that may be a headline."""


def info_named(name: str, sign: int | None = None) -> MetricInfo:
    """The metric of a document that has only a name and a sign, as older runs wrote."""
    known = {NAMES[array]: info for array, info in INFO.items()}
    if name in known and name != DIVERGENCE:
        return known[name]
    return MetricInfo(name, higher_is_better=sign is None or sign > 0)


def info_in(document: Mapping[str, Any]) -> MetricInfo:
    """The metric of a result document; ValueError or KeyError where it names none."""
    if isinstance(document.get("metric_info"), Mapping):
        return from_json(document["metric_info"])
    return info_named(str(document["metric"]), document.get("sign"))


def declared(
    function: object, name: str, returned: Mapping[str, Any] | MetricInfo | None = None
) -> tuple[MetricInfo, bool]:
    """The metric that a user's function declares, and whether it declares a unit.

    Attributes of the function count first, then what it returned beside its values. DataError for
    a declaration that cannot be one.
    """
    if isinstance(returned, MetricInfo):
        return returned, True
    said = dict(returned or {})
    for key in ("name", "unit", "higher_is_better"):
        if (value := _attribute(function, key)) is not None:
            said[key] = value
    unit, better = said.get("unit"), said.get("higher_is_better", True)
    title = said.get("name", name)
    for what, text in (("unit", unit), ("name", title)):
        if text is not None and not (isinstance(text, str) and text.isprintable()):
            raise DataError(f"metric {name}: its {what} is {text!r}; a {what} is text on one line.")
        if text is not None and len(text) > LONGEST:
            raise DataError(f"metric {name}: its {what} is longer than {LONGEST} characters.")
    if not isinstance(better, bool):
        raise DataError(f"metric {name}: higher_is_better is {better!r}; it must be True or False.")
    info = MetricInfo(title or name, higher_is_better=better)
    if not unit:
        return info, False
    level, change, scale = UNITS.get(unit, (unit, unit, 1.0))
    return replace(info, unit=level, change_unit=change, scale=scale), True


def _attribute(function: object, key: str) -> Any:
    """An attribute of a function, or of the object that it guards."""
    found = getattr(function, key, None)
    return getattr(getattr(function, "__wrapped__", None), key, None) if found is None else found
