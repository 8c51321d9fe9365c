"""The server behind the dashboard, asked by others than browsers."""

from __future__ import annotations

import re
import socket
import time
import urllib.request

from sensprobe.cli.dashboard import served


def test_a_client_that_does_not_read_holds_no_server_up(runs):
    """Thirty answers of megabytes are on their way when the command is stopped."""
    with served(runs) as dashboard:
        host, port = dashboard.address.removeprefix("http://").split(":")
        page = urllib.request.urlopen(dashboard.address).read().decode()
        (script, *_) = re.findall(r'src="\.?/?(static/js/[^"]+)"', page)
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.connect((host, int(port)))
            deaf.sendall(f"GET /{script} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode() * 30)
            time.sleep(1)
            dashboard.process.terminate()
            assert dashboard.process.wait(timeout=120) is not None
