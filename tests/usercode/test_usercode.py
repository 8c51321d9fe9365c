"""What a file of the user's is made of, and that nothing else of its folder runs."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import sys
from pathlib import Path

import pytest

from sensprobe.errors import CodeError
from sensprobe.usercode.code import Code, files_of, mark_of


def write(folder: Path, **files: str) -> Path:
    """Files of Python, `a__b` as a/b.py; the path of `mine`."""
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder / "mine.py"


def test_what_import_statements_find_below_the_folder_counts(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        mine="import json, one\nfrom pack.deep import thing\ndef f():\n    import late\n",
        one="from two import *\n",
        two="import one\n",
        late="",
        pack__deep="from . import beside\nfrom ..pack import other\n",
        pack__beside="",
        pack__other="",
        not_imported="",
    )
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "json.txt").write_text("no module")
    names = {"mine", "one", "two", "late", *(f"pack/{n}" for n in ("deep", "beside", "other"))}
    assert set(files_of(path)) == {f"{n}.py" for n in (*names, "pack/__init__")}
    before = mark_of(files_of(path))
    write(tmp_path, not_imported="1")
    assert mark_of(files_of(path)) == before
    write(tmp_path, pack__other="1")
    assert mark_of(files_of(path)) != before


def test_what_is_found_while_running_counts_too(tmp_path: Path) -> None:
    code = "import importlib\nV = importlib.import_module('hid' + 'den').V\n"
    path = write(tmp_path, mine=code, hidden="V = 3")
    assert set(files_of(path)) == {"mine.py"}
    code = Code(path)
    assert code.module.V == 3
    assert set(code.files) == {"mine.py", "hidden.py"}
    assert "hidden" not in sys.modules


def test_an_edited_helper_is_read_anew_and_is_other_code(tmp_path: Path) -> None:
    path = write(tmp_path, mine="from helper import V\n", helper="V = 1")
    first = Code(path)
    write(tmp_path, helper="V = 2")
    second = Code(path)
    assert (first.module.V, second.module.V) == (1, 2)
    assert first.mark != second.mark


def test_helpers_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    late = "def f():\n    import helper\n    return helper.V\n"
    codes = [
        Code(write(tmp_path / name, mine=f"import helper\n{late}", helper=f"V = {name!r}"))
        for name in ("a", "b")
    ]
    for code, name in zip(codes, ("a", "b"), strict=True):
        with code.running():
            assert code.module.f() == name
    assert "helper" not in sys.modules


def test_a_neighbour_that_is_loaded_already_stays_so_for_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a", mine="from helper import V\n", helper="V = 'mine'")
    theirs = write(tmp_path / "b", helper="V = 'theirs'").with_name("helper.py")
    spec = importlib.util.spec_from_file_location("helper", theirs)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "helper", module)
    assert Code(path).module.V == "mine"
    assert sys.modules["helper"] is module


def test_a_cache_beside_the_source_is_not_run(tmp_path: Path) -> None:
    """A .pyc with the flag "unchecked" is taken for its source whatever that says."""
    path = write(tmp_path, mine="from helper import V\n", helper="V = 'evil'")
    for file in (path, path.with_name("helper.py")):
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(file), invalidation_mode=mode, doraise=True)
    write(tmp_path, helper="V = 'as it is written'")
    assert Code(path).module.V == "as it is written"


@pytest.mark.parametrize("how", ["changed", "new", "compiled"])
def test_only_what_is_allowed_runs(tmp_path: Path, how: str) -> None:
    code = "import importlib\nimportlib.import_module('hel' + 'per')\n"
    path = write(tmp_path, mine=code, helper="")
    known = Code(path).files
    ran, evil = tmp_path / "ran", f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()"
    if how == "changed":
        write(tmp_path, helper=evil)
    elif how == "new":
        known.pop("helper.py")
        write(tmp_path, helper=evil)
    else:  # compiled code is found after source: without any
        write(tmp_path, other=evil)
        py_compile.compile(str(tmp_path / "other.py"), str(tmp_path / "helper.pyc"))
        (tmp_path / "helper.py").unlink()
    with pytest.raises(CodeError, match=r"imports .*helper.pyc?, which you have not allowed as it"):
        Code(path, known)
    assert not ran.exists()
    assert Code(path).files.keys() - known.keys() <= {"helper.py", "helper.pyc"}
    assert ran.exists()


def test_once_sealed_nothing_else_is_imported(tmp_path: Path) -> None:
    late = "import importlib\ndef f(name):\n    return importlib.import_module(name)\n"
    path = write(tmp_path, mine=f"import known\n{late}", known="", other="")
    code = Code(path)
    code.seal()
    with code.running():
        assert code.module.f("known").__name__ == "known"
        assert code.module.f("os") is os
        with pytest.raises(CodeError, match=r"other.py is imported while mine.py is called"):
            code.module.f("other")


def test_a_file_that_does_not_parse_is_itself(tmp_path: Path) -> None:
    assert set(files_of(write(tmp_path, mine="def ("))) == {"mine.py"}
