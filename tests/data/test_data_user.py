"""A user's own code: run when named, blamed when it fails, kept off stdout."""

from pathlib import Path

import pytest

from sensprobe.data import load_data, load_function
from sensprobe.errors import DataError, UsageError

GOOD = """
import numpy as np
from neighbour import COUNT

def data():
    print("loading")
    return {"x": np.arange(COUNT * 2.0).reshape(COUNT, 2), "y": np.arange(COUNT) % 2}

def metric(logits, y):
    return logits + y

def fails():
    return {}["gone"]

def leaves():
    raise SystemExit(3)

NOT_A_FUNCTION = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("COUNT = 20\n")
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    return path


def test_data_from_a_function(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_data(f"python:{file}:data")
    assert data.sizes() == {"calibration": 2, "search": 9, "confirmation": 9}
    assert data.name == f"python:{file}:data"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "loading" in captured.err


def test_a_metric(file: Path) -> None:
    assert load_function(f"python:{file}:metric")(1, 2) == 3


def test_the_users_exception_is_kept(file: Path) -> None:
    with pytest.raises(DataError, match=r"fails\(\) failed: KeyError: 'gone'") as caught:
        load_data(f"python:{file}:fails")
    assert isinstance(caught.value.__cause__, KeyError)


def test_code_that_exits_does_not_end_the_process(file: Path) -> None:
    with pytest.raises(DataError, match=r"leaves\(\) failed: SystemExit: 3"):
        load_data(f"python:{file}:leaves")


def test_a_missing_function_lists_those_there_are(file: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no function metrics; did you mean metric.*data, metric, fails, leaves"
    ):
        load_function(f"python:{file}:metrics")
    with pytest.raises(UsageError, match="no function NOT_A_FUNCTION"):
        load_function(f"python:{file}:NOT_A_FUNCTION")


def test_a_file_without_functions(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.touch()
    with pytest.raises(UsageError, match="defines no function; define data"):
        load_function(f"python:{path}:data")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.py does not exist; name a Python file"):
        load_function(f"python:{tmp_path / 'none.py'}:data")


def test_a_file_that_is_not_python(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.touch()
    with pytest.raises(UsageError, match=r"must end in .py"):
        load_function(f"python:{path}:data")


@pytest.mark.parametrize("code", ["def broken(:", "import not_a_module_at_all", "1 / 0"])
def test_a_file_that_does_not_import(tmp_path: Path, code: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(code)
    with pytest.raises(DataError, match=r"importing bad.py failed: \w+Error: "):
        load_function(f"python:{path}:data")


@pytest.mark.parametrize("spec", ["python:", "python:mine.py", "python::data", "python:m.py:a b"])
def test_a_spec_that_names_no_function(spec: str) -> None:
    with pytest.raises(UsageError):
        load_data(spec)
