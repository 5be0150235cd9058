"""The monitor as a page: a small server on the loopback device, one look per request, four buttons."""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import TYPE_CHECKING

from palmar.safety.types import PalmarError

if TYPE_CHECKING:
    from palmar.real_robot.operator import Operator

HOST = "127.0.0.1"
MOST = 1024
"""Bytes of a request's body that are read."""


class Page(ThreadingHTTPServer):
    """Serves the page, ``/state`` and, with the page's own secret, ``/do``."""

    daemon_threads = True

    def __init__(self, operator: Operator, port: int, *, ask: bool):
        """On ``port`` of the loopback device, 0 for a free one.

        Raises:
            OSError: If the port is taken.
        """
        super().__init__((HOST, port), Handler)
        self.operator, self.may_ask, self.secret = operator, ask, secrets.token_urlsafe(24)
        self.one = threading.Lock()
        """The operator's block has one writer."""

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{HOST}:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Page
    server_version = "palmar"

    def do_GET(self) -> None:
        """The page or the state."""
        if not self._ours():
            return
        if self.path == "/":
            text = files("palmar.cli").joinpath("monitor.html").read_text()
            told = json.dumps(self.server.secret if self.server.may_ask else "")
            self._send(HTTPStatus.OK, text.replace('"SECRET"', told), "text/html; charset=utf-8")
        elif self.path == "/state":
            now = self.server.operator.look()
            self._json(HTTPStatus.OK, asdict(now) | {"alive": now.alive})
        else:
            self._json(HTTPStatus.NOT_FOUND, {"error": f"no page {self.path}; there are / and /state"})

    def do_POST(self) -> None:
        """A request of the operator: ``{"do": "stop"}`` with the page's secret."""
        if not self._ours():
            return
        if not secrets.compare_digest(self.headers.get("X-Palmar", ""), self.server.secret) or not self.server.may_ask:
            self._json(HTTPStatus.FORBIDDEN, {"error": "only the page itself may ask"})
            return
        length = self.headers.get("Content-Length", "")
        body = self.rfile.read(min(int(length), MOST)) if length.isdigit() else b""
        try:
            with self.server.one:
                now = self.server.operator.ask(str(json.loads(body)["do"]))
        except (PalmarError, ValueError, KeyError, TypeError) as error:
            self._json(HTTPStatus.CONFLICT, {"error": str(error)})
        else:
            self._json(HTTPStatus.OK, asdict(now) | {"alive": now.alive})

    def _ours(self) -> bool:
        """Whether it was addressed to the loopback device: a foreign page must not reach it by a name of its own."""
        if self.headers.get("Host", "") == self.server.address[7:-1]:
            return True
        self._json(HTTPStatus.FORBIDDEN, {"error": f"the host must be {self.server.address[7:-1]}"})
        return False

    def _json(self, status: HTTPStatus, value: object) -> None:
        self._send(status, json.dumps(value), "application/json")

    def _send(self, status: HTTPStatus, text: str, kind: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the page asks five times a second."""


def serve(operator: Operator, port: int, *, ask: bool) -> int:
    """Serve until Ctrl-C."""
    with Page(operator, port, ask=ask) as page:
        print(f"monitor: {page.address}  (Ctrl-C ends it)", flush=True)
        page.serve_forever(poll_interval=0.2)
    return 0
