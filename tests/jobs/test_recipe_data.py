"""Where `train` finds the data that a recipe names without a folder."""

from __future__ import annotations

import pytest

from sensprobe.errors import UsageError
from sensprobe.jobs.train import data_of


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("mnist", "mnist:/data/mnist"),
        ("mnist,order=permuted", "mnist:/data/mnist,order=permuted"),
        ("cifar10,colour=rgb", "cifar10:/data/cifar10,colour=rgb"),
        ("mnist:mine,order=permuted", "mnist:mine,order=permuted"),
        ("listops,length=64", "listops,length=64"),
    ],
)
def test_bare_names_are_found_on_the_machine(
    source: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENSPROBE_DATA", "/data")
    assert data_of(source, None) == found
    assert data_of(source, "digits") == "digits"


def test_without_the_machines_folder_it_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENSPROBE_DATA", raising=False)
    with pytest.raises(UsageError, match="give --data cifar10:FOLDER,colour=rgb with its binary"):
        data_of("cifar10,colour=rgb", None)
    with pytest.raises(UsageError, match="give --data mnist:FOLDER with the four IDX files"):
        data_of("mnist", None)
