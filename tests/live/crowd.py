"""Many clients of live streams in one process, as bare sockets: what each has heard, and how often it was cut off."""

from __future__ import annotations

import random
import re
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field

_ID = re.compile(rb"^id: (\d+)$", re.MULTILINE)


@dataclass
class Client:
    """One page's stream."""

    path: str
    key: str
    heard: list[int] = field(default_factory=list)
    buffer: bytes = b""
    connection: socket.socket | None = None
    opened: int = 0
    status: int = 0
    ended: bool = False
    #: Cut off after so many more events; None: never.
    patience: int | None = None


class Crowd:
    """All of them, read by one thread."""

    def __init__(self, port: int, keys: list[str], paths: list[str], *, cut: random.Random | None = None) -> None:
        self._port = port
        self._cut = cut
        self.cuts = 0
        self.clients = [Client(path, keys[n % len(keys)]) for n, path in enumerate(paths)]
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self, each_second: int = 400) -> None:
        """Connect them all, not all at once."""
        self._thread.start()
        for client in self.clients:
            self._connect(client)
            time.sleep(1 / each_second)

    def held(self) -> int:
        """How many have an open stream."""
        return sum(1 for client in self.clients if client.status == 200 and client.connection is not None)

    def stop(self) -> None:
        self._stopping = True
        self._thread.join(10)
        for client in self.clients:
            if client.connection is not None:
                client.connection.close()

    def _connect(self, client: Client) -> None:
        last = f"Last-Event-ID: {client.heard[-1]}\r\n" if client.heard else ""
        connection = socket.create_connection(("127.0.0.1", self._port), 30)
        connection.sendall(
            f"GET {client.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: {client.key}\r\n{last}"
            f"Accept: text/event-stream\r\n\r\n".encode()
        )
        connection.setblocking(False)
        client.buffer, client.connection, client.status = b"", connection, 0
        client.opened += 1
        client.patience = self._cut.randrange(4) if self._cut else None
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _read(self) -> None:
        while not self._stopping:
            for ready, _ in self._selector.select(0.005 if self._cut else 0.2):
                self._take(ready.data)
            if self._cut and self._cut.random() < 0.5:
                # Also one that hears nothing, at any moment.
                client = self._cut.choice(self.clients)
                if client.connection is not None and not client.ended:
                    self._leave(client)
                    self._connect(client)

    def _take(self, client: Client) -> None:
        assert client.connection is not None
        try:
            chunk = client.connection.recv(65536)
        except BlockingIOError:
            return None
        except OSError:
            chunk = b""
        client.buffer += chunk
        if not client.status and b"\r\n\r\n" in client.buffer:
            client.status = int(client.buffer[9:12])
        while b"\n\n" in client.buffer:
            message, _, client.buffer = client.buffer.partition(b"\n\n")
            found = _ID.search(message)
            if found:
                client.heard.append(int(found[1]))
            client.ended = client.ended or b"event: end" in message
            # A heartbeat, too, is a moment to be cut off at.
            if client.patience is not None and not client.ended:
                client.patience -= 1
                if client.patience < 0:
                    self._leave(client)
                    return self._connect(client)
        if not chunk:
            self._leave(client)
            if not client.ended and not self._stopping:
                self._connect(client)
        return None

    def _leave(self, client: Client) -> None:
        assert client.connection is not None
        self._selector.unregister(client.connection)
        client.connection.close()
        client.connection = None
        self.cuts += 1
