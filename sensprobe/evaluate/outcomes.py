"""Per-sample arrays from a model's outputs: correctness, loss, and distance from the baseline.

Accuracy is what users read; it does not add up over sites. Cross-entropy and the divergence from
the full-precision output do, to first order, so sensitivities are kept in those as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sensprobe.errors import DataError
from sensprobe.scores.metrics import LABEL, NRMSE, PREDICTED, MetricInfo

CAP = 50.0
"""The largest loss of a sample in nats, and the loss of one with NaN or infinite outputs."""
FARTHEST = 1e30
"""The same for squared errors and distances: still finite in float32."""

Metric = Callable[[Tensor, Tensor], Tensor]
"""A user's metric: (outputs (n, …), targets (n, …)) -> one finite value a sample (n,), or those and
what they measure (see `metrics`). Outputs of an unstable plan may be NaN or infinite: the metric
must give a finite value for those too."""
AGREES = "agrees"


def classification(
    logits: Tensor, y: Tensor, baseline: Tensor | None, more: frozenset[str] = frozenset()
) -> dict[str, np.ndarray]:
    """correct, cross_entropy and, against baseline logits, kl = KL(baseline || model); nats.

    `more` names what else is wanted: predicted (the class, -1 where outputs are not finite, and
    beside it the label), agrees (whether it is the baseline's).
    """
    finite = torch.isfinite(logits).all(-1)
    safe = torch.where(finite[:, None], logits, torch.zeros_like(logits)).double()
    log_p = F.log_softmax(safe, dim=-1)
    nll = (-log_p.gather(1, y[:, None]).squeeze(1)).clamp(max=CAP)
    out = {
        "correct": (safe.argmax(-1) == y) & finite,
        "cross_entropy": torch.where(finite, nll, CAP),
    }
    if baseline is not None:
        log_q = F.log_softmax(baseline.double(), dim=-1)
        kl = (log_q.exp() * (log_q - log_p)).sum(-1).clamp(0, CAP)
        out["kl"] = torch.where(finite & torch.isfinite(baseline).all(-1), kl, CAP)
        if AGREES in more:
            same = (safe.argmax(-1) == baseline.argmax(-1)) & torch.isfinite(baseline).all(-1)
            out[AGREES] = same & finite
    if PREDICTED in more:
        out[PREDICTED], out[LABEL] = torch.where(finite, safe.argmax(-1), -1), y
    return {name: t.to(torch.float32).numpy() for name, t in out.items()}


def unlabelled(
    logits: Tensor, y: Tensor, baseline: Tensor | None, more: frozenset[str] = frozenset()
) -> dict[str, np.ndarray]:
    """kl and, where wanted, agrees, of outputs read as logits; y says nothing."""
    first = torch.zeros(len(logits), dtype=torch.int64)
    found = classification(logits, first, baseline, more)
    return {name: values for name, values in found.items() if name in ("kl", AGREES)}


def regression(
    outputs: Tensor, y: Tensor, baseline: Tensor | None, more: frozenset[str] = frozenset()
) -> dict[str, np.ndarray]:
    """squared_error and, against baseline outputs, distance: means over the targets of a sample,
    of all its steps. `more` may name nrmse, the root of squared_error."""

    def squared(other: Tensor) -> np.ndarray:
        error = (outputs - other.reshape(outputs.shape)).flatten(1).double() ** 2
        mean = torch.nan_to_num(error.mean(-1), nan=FARTHEST, posinf=FARTHEST)
        return mean.clamp(max=FARTHEST).to(torch.float32).numpy()

    out = {"squared_error": squared(y)}
    if NRMSE in more:
        out[NRMSE] = np.sqrt(out["squared_error"])
    if baseline is not None:
        out["distance"] = squared(baseline)
    return out


def outcomes(
    task: str,
    outputs: Tensor,
    y: Tensor,
    baseline: Tensor | None = None,
    metric: Metric | None = None,
    more: frozenset[str] = frozenset(),
) -> dict[str, np.ndarray]:
    """Every per-sample array (n,) float32 of a task other than language, those of `more` that it
    has, plus `custom` where the user gave a metric."""
    known = {"classification": classification, "regression": regression, "unlabelled": unlabelled}
    out = known[task](outputs, y, baseline, more)
    if metric is not None:
        out["custom"] = custom(metric, outputs, y)
    return out


def custom(metric: Metric, outputs: Tensor, y: Tensor) -> np.ndarray:
    """The values (n,) of a user's metric; DataError if it does not return one finite value each."""
    found, _ = told_apart(metric(outputs, y))
    try:
        values = torch.as_tensor(found).detach().float().flatten()
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"the metric returned a {type(found).__name__}; it must return a tensor of one number "
            "for each sample, beside which a mapping may say its unit: values, {'unit': 'percent'}."
        ) from None
    if len(values) != len(y):
        raise DataError(
            f"the metric returned {len(values)} values for {len(y)} samples; it must return one "
            "each."
        )
    if bad := int((~torch.isfinite(values)).sum()):
        raise DataError(
            f"the metric returned NaN or infinity for {bad} of {len(y)} samples; it must return a "
            "finite number for each, also where a plan made the outputs NaN or infinite."
        )
    return values.numpy()


def told_apart(found: Any) -> tuple[Any, Mapping[str, Any] | MetricInfo | None]:
    """The values that a user's metric returned, and the unit and direction it returned with
    them."""
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping | MetricInfo):
        return found
    return found, None
