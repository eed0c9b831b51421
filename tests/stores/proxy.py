"""Stands between a client and PostgreSQL, and breaks a connection at the worst moment.

For URLs with ``sslmode=disable&gssencmode=disable``: it reads along.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Literal
from urllib.parse import urlsplit

from tests.servers.wire import WireReader

#: What becomes of the message after which the client's connection breaks.
How = Literal[
    "done",  # the server does it, and its reply is lost
    "done late",  # the server gets it only when the client has long seen the break
    "lost",  # the server never gets it
]
LATE_SECONDS = 0.4
#: Instead of certain bytes: whatever commits, except a checkpoint.
COMMIT = "COMMIT"


class BreakingProxy:
    """Listens on ``port``; everything passes until ``break_at``."""

    def __init__(self, server_url: str) -> None:
        parts = urlsplit(server_url)
        self._server = parts.hostname or "127.0.0.1", parts.port or 5432
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = server_url.replace(f"{parts.hostname}:{self._server[1]}", f"127.0.0.1:{self._port}", 1)
        self.url += "?sslmode=disable&gssencmode=disable"
        #: How many connections were broken as asked.
        self.broken = 0
        self._marker: bytes | str | None = None
        self._how: How = "done"
        self._lock = threading.Lock()
        self._answered = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def _port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def break_at(self, marker: bytes | str, how: How) -> None:
        """Break the next connection on which a client sends these bytes, or commits (COMMIT)."""
        self._how, self._marker = how, marker

    def close(self) -> None:
        """Let nobody in any more."""
        with contextlib.suppress(OSError):
            # Closing alone would leave the thread that accepts where it is.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            mute = threading.Event()
            for work in (self._up, self._down):
                threading.Thread(target=work, args=(client, server, mute), daemon=True).start()

    def _is_the_one(self, data: bytes, commits: str | None) -> bool:
        with self._lock:
            marker = self._marker
            if marker is None or not (commits == marker if isinstance(marker, str) else marker in data):
                return False
            self._marker = None
            self.broken += 1
            return True

    def _up(self, client: socket.socket, server: socket.socket, mute: threading.Event) -> None:
        reader = WireReader()
        while data := _received(client):
            if self._is_the_one(data, reader.commits(data)):
                mute.set()
                self._break(client, server, data)
                return
            try:
                server.sendall(data)
            except OSError:
                break
        _cut(client, server)

    def _break(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        if self._how == "done":
            server.sendall(data)
            # The server has done it once it answers.
            assert self._answered.wait(5), "the server did not answer"
            self._answered.clear()
        _cut(client)
        if self._how == "done late":
            time.sleep(LATE_SECONDS)
            server.sendall(data)
            time.sleep(LATE_SECONDS)
        _cut(server)

    def _down(self, client: socket.socket, server: socket.socket, mute: threading.Event) -> None:
        while data := _received(server):
            if mute.is_set():
                self._answered.set()
                continue
            try:
                client.sendall(data)
            except OSError:
                break
        if not mute.is_set():
            _cut(client, server)


def _received(one: socket.socket) -> bytes:
    try:
        return one.recv(1 << 20)
    except OSError:
        return b""


def _cut(*ends: socket.socket) -> None:
    for one in ends:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
