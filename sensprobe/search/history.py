"""The history of a search, read from its Optuna storage without ever writing to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import optuna
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import TrialState

from sensprobe.errors import RunError
from sensprobe.search.studies import quiet

FEWEST = 8
"""Trials with parameters below which nothing is said of what matters."""
LARGEST = 20
"""Parameters that an importance is told of."""


@dataclass(frozen=True, slots=True)
class History:
    """One study. `importance`: parameter -> share of the variance of the loss that it explains
    (fANOVA; Hutter et al. 2014), empty where too little is known. `failures` are the messages of
    failed trials."""

    name: str
    trials: int
    importance: Mapping[str, float]
    failures: tuple[str, ...]


def histories(storage: Path) -> list[History]:
    """Every study of a file, the largest first; none where there is no file.

    RunError where it is no Optuna storage, or damaged.
    """
    if not storage.is_file():
        return []
    url = f"sqlite:///file:{quote(str(storage.resolve()))}?mode=ro&uri=true"
    try:
        with quiet():
            opened = RDBStorage(url, skip_table_creation=True)
            try:
                names = [study.study_name for study in opened.get_all_studies()]
                found = [_history(optuna.load_study(study_name=n, storage=opened)) for n in names]
            finally:
                opened.engine.dispose()
    except Exception as error:  # SQLAlchemy's and Optuna's many
        cause = error.__cause__ or error
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise RunError(
            f"{storage} cannot be read ({reason}); the run's evaluations do not depend on it."
        ) from error
    return sorted(found, key=lambda study: -study.trials)


def _history(study: Study) -> History:
    trials = study.get_trials(deepcopy=False)
    failed = [t for t in trials if t.state is TrialState.FAIL]
    messages = tuple(
        f"trial {t.number}: {t.system_attrs.get('fail_reason', 'failed')}" for t in failed
    )
    done = [t for t in trials if t.state is TrialState.COMPLETE]
    return History(study.study_name, len(done), _importance(study), messages)


def _importance(study: Study) -> Mapping[str, float]:
    """fANOVA over the trials that have parameters, of the first objective."""
    told = [t for t in study.get_trials(deepcopy=False) if t.params and t.values]
    if len(told) < FEWEST:
        return {}
    common = set.intersection(*(set(t.params) for t in told))
    if not common:
        return {}
    found = optuna.importance.get_param_importances(
        study,
        evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
        params=sorted(common),
        target=lambda trial: trial.values[0],
    )
    return {name: float(share) for name, share in list(found.items())[:LARGEST]}
