"""A Redis of our own."""

from __future__ import annotations

import contextlib
import functools
import socket
from pathlib import Path

import redis

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

    @property
    def socket_path(self) -> Path:
        """Its Unix socket, for those who connect by one."""
        return self.folder / "redis.sock"

    @functools.cached_property
    def admin(self) -> redis.Redis:
        """A client of database 0, to look and to set things up with; it connects anew after a restart."""
        return redis.Redis.from_url(self.url)

    def find_program(self) -> Path:
        return redis_program()

    def arguments(self) -> list[str]:
        listens = {"port": str(self.port), "bind": "127.0.0.1", "unixsocket": str(self.socket_path)}
        config = {**listens, "dir": str(self.folder), "save": "", "appendonly": "no"}
        return [word for key, value in {**config, **self.config}.items() for word in (f"--{key}", value)]

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as wire:
            wire.sendall(b"PING\r\n")
            return wire.recv(16).startswith(b"+PONG")
        return False

    def close(self) -> None:
        self.admin.close()
        super().close()
