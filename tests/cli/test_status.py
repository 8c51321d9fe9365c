"""`sensprobe status`."""

from __future__ import annotations

import os
from pathlib import Path

from command_line import Shell

from sensprobe import api
from sensprobe.runs import open_run


def test_status_in_the_terminal(shell: Shell, tmp_path: Path) -> None:
    api.profile("s4d-digits", "digits", tmp_path / "run", ["int8/head/asym"], limit=16)
    quiet = shell.ok("status", "--run", tmp_path / "run").out
    count = open_run(tmp_path / "run").count
    said = f"finished, {count} evaluations; nobody works on it now."
    assert said in " ".join(quiet.split())
    run = open_run(tmp_path / "run")
    with run.working("search"):
        run.tell_progress("searching", 1, 4)
        run.tell_progress("searching", 2, 4)
        told = " ".join(shell.ok("status", "--run", tmp_path / "run").out.split())
        assert f"search {os.getpid()}: searching" in told
        assert "50%" in told
        assert shell.ok("status", "--run", tmp_path / "run", "--json").json["state"] == "running"
    gone = shell("status", "--run", tmp_path / "none")
    assert gone.code == 1
    assert "no run at" in gone.err
