"""Runs of before models were named by what their files hold."""

import json
from pathlib import Path

import pytest

from sensprobe import api, zoo
from sensprobe.errors import RunError
from sensprobe.progress import Silent
from sensprobe.runs import open_run
from sensprobe.session.source import open_model

MODEL = "s4d-digits"
PLAN = {"layers.*.A": "int8/head/asym"}


class Notes(Silent):
    """Keeps what a user would be told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def named(run: Path, model: str) -> None:
    """The run, as if made when the model was called so."""
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_fingerprint": model}))


def models_measured(run: Path) -> list[str]:
    return [entry.key.model for entry in open_run(run).entries()]


def evaluated(run: Path, limit: int = 20) -> Notes:
    notes = Notes()
    api.evaluate(MODEL, "digits", PLAN, run=run, limit=limit, progress=notes)
    return notes


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run without an evaluation of the new name: made, and its ledger taken away."""
    evaluated(tmp_path / "run", 4)
    for path in (tmp_path / "run" / "evaluations").iterdir():
        path.unlink()
    return tmp_path / "run"


def test_names_say_how_they_were_made_and_earlier_ones_are_known() -> None:
    source = open_model(MODEL)
    assert source.fingerprint.startswith("2-")
    assert len(source.earlier()) >= len(zoo.EARLIER_NAMES[MODEL]) > 1
    assert source.fingerprint not in source.earlier()


def test_a_name_that_is_proved_goes_on_in_its_run(run: Path) -> None:
    old = zoo.EARLIER_NAMES[MODEL][0]
    named(run, old)
    first, again = evaluated(run), evaluated(run)
    assert not any("older sensprobe" in said for said in first.said + again.said)
    assert models_measured(run) == [old]  # measured once, and found again


def test_a_name_that_cannot_be_proved_is_said_and_all_is_measured_anew(run: Path) -> None:
    named(run, "0" * 16)
    notes = evaluated(run)
    assert any("measured anew" in said for said in notes.said)
    assert models_measured(run) == [open_model(MODEL).fingerprint]


def test_sensitivities_of_a_name_that_cannot_be_proved_are_made_again(run: Path) -> None:
    api.profile(MODEL, "digits", run, ["int8/head"], limit=20, method="taylor")
    named(run, "0" * 16)
    path = run / "results" / "sensitivity-taylor.json"
    document = json.loads(path.read_text())
    del document["model_fingerprint"]
    path.write_text(json.dumps(document))
    with pytest.raises(RunError, match=r"an older sensprobe called 0{16}.*sensprobe profile"):
        api.search(run, ["4000"], evaluations=1, limit=20, confirm=False)
    api.profile(MODEL, "digits", run, ["int8/head"], limit=20, method="taylor")
    assert api.search(run, ["4000"], evaluations=1, limit=20, confirm=False)["search"]["chosen"]


def test_another_model_is_refused_whatever_its_name(run: Path) -> None:
    for name in ("0" * 16, "2-" + "0" * 16):
        named(run, name)
        with pytest.raises(RunError, match="a run of other inputs"):
            api.evaluate("s4d-smnist-16", "digits", PLAN, run=run, limit=4)
    named(run, "2-" + "0" * 16)
    with pytest.raises(RunError, match="a run of other inputs"):
        evaluated(run)
