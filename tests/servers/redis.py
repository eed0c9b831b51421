"""A Redis of our own."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from .process import PrivateServer
from .programs import redis_program


class PrivateRedis(PrivateServer):
    """A redis-server that keeps everything in memory: started again, it is empty.

    ``PrivateRedis({"appendonly": "yes"})`` keeps its data over restarts.
    """

    name = "redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def find_program(self) -> Path:
        return redis_program()

    def arguments(self) -> list[str]:
        config = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), "save": "", "appendonly": "no"}
        return [word for key, value in {**config, **self.config}.items() for word in (f"--{key}", value)]

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as wire:
            wire.sendall(b"PING\r\n")
            return wire.recv(16).startswith(b"+PONG")
        return False
