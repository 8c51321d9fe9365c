"""A guess, with its error, of the score of plans nobody has evaluated.

A Gaussian process on features that stay few however many decisions there are: for each part, and
for the whole plan, log(1 + predicted loss / 0.01 nats). Lengthscales a feature learn which parts
the sensitivities got wrong. A second, weaker kernel on the fraction of decisions two plans share
holds what the losses cannot say (an int5 that happens to beat the int6). Scores saturate at both
ends, so the process lives on a logit of the score between the worst and the best seen; there the
spread between like plans is about the same everywhere.

Measured on exhaustive tables of real S4D classifiers (7 parts x 4 widths): the logit and the
second kernel each halve what is left of the front's missing hypervolume; sensitivities fed in
after the monotone fit instead of as measured double it, because on one set of samples a narrower
width can truly score better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize

from sensprobe.search.problem import OVERFLOW_NATS, Array, Assignment, Problem

KNEE_NATS = 0.01  # losses well below it are all "nothing"
MARGIN = 0.02  # of the score's range: where the logit's asymptotes lie beyond what was seen
_STEPS = 20


class Features:
    """Plans as arrays: log losses by part and in total, then the option indices."""

    def __init__(self, problem: Problem) -> None:
        parts = sorted({decision.part for decision in problem.decisions})
        self.parts = [parts.index(decision.part) for decision in problem.decisions]
        self.continuous = len(parts) + 1
        width = max(len(decision.options) for decision in problem.decisions)
        self._loss = np.zeros((len(self.parts), width + 1))  # last column: UNUSED
        for d, decision in enumerate(problem.decisions):
            for k, option in enumerate(decision.options):
                self._loss[d, k] = min(max(option.loss, 0.0), OVERFLOW_NATS)
        self._pairs = problem.pairs

    def __call__(self, plans: Sequence[Assignment] | NDArray[np.int64]) -> Array:
        """(plans, continuous + decisions)."""
        index = np.asarray(plans, dtype=np.int64).reshape(len(plans), len(self.parts))
        losses = self._loss[np.arange(len(self.parts)), index]  # (plans, decisions)
        sums = np.zeros((len(index), self.continuous))
        for d, part in enumerate(self.parts):
            sums[:, part] += losses[:, d]
        sums[:, -1] = losses.sum(axis=1)
        for pair in self._pairs:
            met = (index[:, pair.i] == pair.a) & (index[:, pair.j] == pair.b)
            sums[:, -1] += pair.extra * met
        return np.hstack([np.log1p(np.maximum(sums, 0.0) / KNEE_NATS), index.astype(float)])


@dataclass(frozen=True)
class Logit:
    """score <-> logit between two asymptotes."""

    low: float
    high: float

    @staticmethod
    def around(scores: Array) -> Logit:
        """Asymptotes a margin beyond the scores."""
        low, high = float(scores.min()), float(scores.max())
        margin = MARGIN * (high - low) or 1e-6
        return Logit(low - margin, high + margin)

    def forward(self, score: Array) -> Array:
        return np.asarray(np.log((score - self.low) / (self.high - score)))

    def back(self, value: Array) -> Array:
        return np.asarray(self.low + (self.high - self.low) / (1.0 + np.exp(-value)))


class Surrogate:
    """The process. `fit` learns its scales only when the data has grown by a sixth."""

    def __init__(self, features: Features) -> None:
        self._features = features
        many = features.continuous
        # log: a lengthscale each; size of the first kernel; noise; size and reach of the second
        self._centre = np.concatenate(
            [np.full(many, np.log(2.0)), np.log([1.0, 0.03, 0.1, 2.0])],
        )
        self._theta = np.concatenate(
            [np.full(many, np.log(1.5)), np.log([1.0, 0.05, 0.1, 2.0])],
        )
        self._learned_at = 0
        self.link = Logit(0.0, 1.0)

    def fit(self, plans: Sequence[Assignment], scores: Array, ends: Sequence[float] = ()) -> None:
        """Condition on plans and their scores; `ends` are scores the link's range must hold too."""
        self.link = Logit.around(np.concatenate([scores, np.asarray(ends, float)]))
        value = self.link.forward(scores)
        self._x = self._features(plans)
        self._mean, self._spread = float(value.mean()), float(value.std()) or 1.0
        self._y = (value - self._mean) / self._spread
        if len(value) >= self._learned_at * 7 / 6:
            found = minimize(
                self._misfit, self._theta, method="L-BFGS-B", options={"maxiter": _STEPS}
            )
            self._theta, self._learned_at = np.clip(found.x, -8.0, 8.0), len(value)
        self._condition()

    def believe(self, plan: Assignment) -> float:
        """Go on as if a plan had the score that is guessed of it; returns that score."""
        guess, _ = self.predict([plan])
        self._x = np.vstack([self._x, self._features([plan])])
        self._y = np.append(self._y, (guess - self._mean) / self._spread)
        self._condition()
        return float(self.link.back(guess)[0])

    def _condition(self) -> None:
        self._factor = cho_factor(self._covariance(self._theta), lower=True)
        self._weights = cho_solve(self._factor, self._y)

    def predict(self, plans: Sequence[Assignment] | NDArray[np.int64]) -> tuple[Array, Array]:
        """Mean and standard deviation on the link's scale."""
        across = self._kernel(self._features(plans), self._x, self._theta)
        mean = across @ self._weights
        many = self._features.continuous
        prior = np.exp(2 * self._theta[many]) + np.exp(2 * self._theta[many + 2])
        variance = prior - np.sum(across * cho_solve(self._factor, across.T).T, axis=1)
        spread = np.sqrt(np.maximum(variance, 1e-10))
        return mean * self._spread + self._mean, spread * self._spread

    def _kernel(self, a: Array, b: Array, theta: Array) -> Array:
        many = self._features.continuous
        scale = np.exp(theta[:many])
        left, right = a[:, :many] / scale, b[:, :many] / scale
        square = (left**2).sum(1)[:, None] + (right**2).sum(1)[None] - 2 * left @ right.T
        r = np.sqrt(5 * np.maximum(square, 0.0))
        smooth = np.exp(2 * theta[many]) * (1 + r + r * r / 3) * np.exp(-r)  # Matérn 5/2
        apart = np.zeros_like(r)
        for mine, theirs in zip(a[:, many:].T, b[:, many:].T, strict=True):
            apart += mine[:, None] != theirs[None]
        apart /= a.shape[1] - many
        return np.asarray(smooth + np.exp(2 * theta[many + 2] - np.exp(theta[many + 3]) * apart))

    def _covariance(self, theta: Array) -> Array:
        noise = np.exp(2 * theta[self._features.continuous + 1]) + 1e-8
        return self._kernel(self._x, self._x, theta) + noise * np.eye(len(self._x))

    def _misfit(self, theta: Array) -> float:
        """Negative log posterior of the scales; each is a priori within a factor e or so."""
        try:
            factor = cho_factor(self._covariance(np.clip(theta, -8.0, 8.0)), lower=True)
        except LinAlgError:
            return 1e9
        fit = 0.5 * self._y @ cho_solve(factor, self._y) + np.log(np.diag(factor[0])).sum()
        return float(fit + 0.5 * np.sum((theta - self._centre) ** 2))
