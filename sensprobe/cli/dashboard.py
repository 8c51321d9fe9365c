"""`sensprobe dashboard`: Streamlit's server on the app, bound to this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, NoReturn

from sensprobe.errors import UnsupportedError, UsageError

APP = "sensprobe_app"
LOOKS = {
    "light": {
        "primaryColor": "#0072B2",
        "backgroundColor": "#FFFFFF",
        "secondaryBackgroundColor": "#F4F5F7",
        "textColor": "#22262B",
    },
    "dark": {
        "primaryColor": "#56B4E9",
        "backgroundColor": "#14171C",
        "secondaryBackgroundColor": "#1D2127",
        "textColor": "#E4E7EB",
    },
}
"""The page's colours are those of its figures: `report.theme`, which is slow to import."""


def run(arguments: Namespace) -> NoReturn:
    """Become the server."""
    folder = Path(arguments.runs)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder that holds runs.")
    if find_spec("streamlit") is None:
        raise UnsupportedError(
            "the dashboard needs streamlit, which is not installed: "
            "pip install -e '.[dashboard]' where you installed sensprobe from."
        )
    command = serving(folder, arguments.port, arguments.host, browser=arguments.browser)
    sys.stdout.flush()
    os.execv(command[0], command)  # so that what stops this process stops the server


def serving(folder: Path, port: int, host: str, *, browser: bool) -> list[str]:
    """The command line of the server."""
    if find_spec(APP) is None:
        raise UnsupportedError(
            f"the package {APP} is not installed beside sensprobe; install both."
        )
    settings = {
        "server.address": host,
        "server.port": port,
        "server.headless": str(not browser).lower(),
        "server.fileWatcherType": "none",
        "server.runOnSave": "false",
        "browser.gatherUsageStats": "false",
        "browser.serverAddress": host,
        "client.toolbarMode": "minimal",
        "global.developmentMode": "false",
        **{f"theme.{name}.{key}": c for name, look in LOOKS.items() for key, c in look.items()},
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    words = [*flags, "--", str(folder.resolve())]
    return [sys.executable, "-m", f"{APP}.serve", *words]


class Served(NamedTuple):
    """A dashboard that listens, and the process it is."""

    address: str
    process: subprocess.Popen[bytes]


@contextmanager
def served(folder: Path | str, cwd: Path | None = None, seconds: float = 180) -> Iterator[Served]:
    """The command on a free port of this machine while inside: for tests and for studies.

    RuntimeError where nothing listens after so many seconds.
    """
    port = free_port()
    words = ["dashboard", str(folder), "--no-browser", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "sensprobe", *words],
        cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(port, seconds)
        yield Served(f"http://localhost:{port}", process)
    finally:
        process.terminate()
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def wait_for(port: int, seconds: float) -> None:
    """Returns when something listens at a port; RuntimeError where nothing does in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens at port {port} after {seconds:.0f} s")
