"""The 16,384 plans of the yardstick, enumerated for real, and kept small enough to replay anywhere.

enumeration.npz   for each plan, in the order of `every_assignment`: which of the samples it
                  gets right (packed bits), its mean cross-entropy on each piece of the data,
                  its mean KL divergence from full precision
space.json        the search problem (bytes, sensitivities), and what it was measured on
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import sensprobe
from sensprobe.jobs.cost import cost
from sensprobe.jobs.problem import build_space
from sensprobe.jobs.profile import profile
from sensprobe.jobs.search import SearchSettings, chunks, search
from sensprobe.plans.plan import Resolved, adapted, parse_setting
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Site
from sensprobe.search import Assignment, Decision, Option, Problem, Sample
from sensprobe.search.exhaustive import every_assignment
from sensprobe.session.open import open_session
from sensprobe.session.session import Session

HERE = Path(__file__).parent
STUDY = tomllib.loads((HERE / "study.toml").read_text())


@dataclass(frozen=True, eq=False)
class Enumeration:
    """Every plan's real result. Rows are in the order of `every_assignment(problem)`."""

    problem: Problem
    full_bytes: int  # of the model at full precision
    chance: float
    pieces: tuple[int, ...]  # samples of each piece of the data
    correct: np.ndarray  # (plans, samples) bool
    cross_entropy: np.ndarray  # (plans, pieces) nats, means
    kl: np.ndarray  # (plans,) nats
    base_correct: np.ndarray  # (samples,) bool
    base_cross_entropy: np.ndarray  # (pieces,)
    about: dict[str, Any]

    @cached_property
    def accuracy(self) -> np.ndarray:
        return self.correct.mean(1)

    @property
    def sensitivities(self) -> int:
        """Evaluations the sensitivities cost: one a part and scheme."""
        return sum(len(decision.options) for decision in self.problem.decisions)

    @cached_property
    def total_bytes(self) -> np.ndarray:
        return np.array([self.problem.size(a).total for a in every_assignment(self.problem)])

    def uniform(self) -> dict[str, Assignment]:
        """Scheme -> the plan that puts every part in it."""
        schemes = [option.scheme for option in self.problem.decisions[0].options]
        return {s: (k,) * len(self.problem.decisions) for k, s in enumerate(schemes)}

    def row(self, assignment: Assignment) -> int:
        """Where a plan lies."""
        counts = [len(decision.options) for decision in self.problem.decisions]
        return int(np.ravel_multi_index(assignment, counts))

    def sample(self, assignment: Assignment, piece: int) -> Sample:
        """What an evaluation of a plan on one piece of the data yields."""
        k = self.row(assignment)
        return self._sample(self.correct[k], self.cross_entropy[k], piece)

    def baseline(self) -> list[Sample]:
        """Full precision, piece by piece."""
        both = self.base_correct, self.base_cross_entropy
        return [self._sample(*both, piece) for piece in range(len(self.pieces))]

    def _sample(self, correct: np.ndarray, loss: np.ndarray, piece: int) -> Sample:
        """The loss of a sample is its piece's mean: searches use means of it alone."""
        start, count = sum(self.pieces[:piece]), self.pieces[piece]
        score = correct[start : start + count].astype(np.float64)
        return Sample(score, np.full(count, float(loss[piece])))


def resolved(assignment: Assignment, problem: Problem, sites: Iterable[Site]) -> Resolved:
    """Site schemes of a plan, from the names in the problem alone."""
    sites = list(sites)
    chosen = [
        (d.name, d.options[k].scheme) for d, k in zip(problem.decisions, assignment, strict=True)
    ]
    frozen = [parse_setting(text) for text in STUDY["space"]["freeze"]]
    entries = [(name, parse(scheme)) for name, scheme in chosen] + frozen
    return adapted(entries, sites).resolve(sites)


def enumerate_plans(run: Path, out: Path = HERE, model: str = "", data: str = "") -> None:
    """Profile the parts and evaluate every plan by `exhaustive`; what `run` holds is not redone.

    `model` and `data` ask the same of others than the study's.
    """
    asked = STUDY["space"]
    session = open_session(model or asked["model"], data or asked["data"], run)
    schemes = tuple(parse(text) for text in asked["schemes"])
    freeze = tuple(parse_setting(text) for text in asked["freeze"])
    sensitivity = profile(session, schemes)
    settings = SearchSettings(method="exhaustive", schemes=schemes, freeze=freeze)
    known, began = session.run.count, time.perf_counter()  # type: ignore[union-attr]
    found = search(session, settings)
    seconds = time.perf_counter() - began
    space = build_space(session.source.model.sites, sensitivity, schemes=schemes, freeze=freeze)
    problem = space.problem
    assert [d.part for d in problem.decisions] == asked["parts"], problem.decisions
    assert len(found["candidates"]) == problem.count
    save_space(out, session, problem, {"seconds": seconds, "known_before": known})
    plans = [space.resolved(assignment) for assignment in every_assignment(problem)]
    save_results(out, session, plans)


def save_space(out: Path, session: Session, problem: Problem, timing: dict[str, float]) -> None:
    stop = session.samples.use("search")
    document = {
        "about": {
            "model": session.source.fingerprint,
            "data": session.dataset.splits.fingerprint("search"),
            "sensprobe": sensprobe.__version__,
            "exhaustive": timing,
        },
        "pieces": [end - start for start, end in chunks(stop)],
        "full_bytes": cost(session.source.outline, {})["total_bytes"],
        "chance": 1 / session.dataset.classes,  # type: ignore[operator]
        "problem": asdict(problem),
    }
    (out / "space.json").write_text(json.dumps(document, indent=1) + "\n")


def save_results(out: Path, session: Session, plans: list[Any]) -> None:
    """Summarise the ledger: one row a plan, full precision last."""
    stop = session.samples.use("search")
    pieces = chunks(stop)
    correct, cross_entropy, kl = [], [], []
    for plan in [*plans, {}]:
        arrays = session.measure(plan, "search", 0, stop)
        correct.append(np.packbits(arrays["correct"].astype(bool)))
        cross_entropy.append([arrays["cross_entropy"][a:b].mean(dtype=float) for a, b in pieces])
        kl.append(arrays["kl"].mean(dtype=float))
    np.savez_compressed(
        out / "enumeration.npz",
        correct=np.array(correct),
        cross_entropy=np.array(cross_entropy, np.float32),
        kl=np.array(kl, np.float32),
    )


def load_enumeration(folder: Path = HERE) -> Enumeration:
    """The stored enumeration."""
    document = json.loads((folder / "space.json").read_text())
    pieces = tuple(document["pieces"])
    with np.load(folder / "enumeration.npz") as stored:
        correct = np.unpackbits(stored["correct"], axis=1, count=sum(pieces)).astype(bool)
        cross_entropy, kl = stored["cross_entropy"].astype(float), stored["kl"].astype(float)
    return Enumeration(
        problem=_problem(document["problem"]),
        full_bytes=document["full_bytes"],
        chance=document["chance"],
        pieces=pieces,
        correct=correct[:-1],
        cross_entropy=cross_entropy[:-1],
        kl=kl[:-1],
        base_correct=correct[-1],
        base_cross_entropy=cross_entropy[-1],
        about=document["about"],
    )


def _problem(document: dict[str, Any]) -> Problem:
    decisions = tuple(
        Decision(**(d | {"options": tuple(Option(**o) for o in d["options"])}))
        for d in document["decisions"]
    )
    return Problem(decisions, document["fixed_weight_bytes"], document["fixed_state_bytes"])
