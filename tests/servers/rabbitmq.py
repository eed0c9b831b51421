"""A RabbitMQ of our own."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from .process import PrivateServer, free_port
from .programs import port_mapper_program, rabbitmq_program


class PrivateRabbitmq(PrivateServer):
    """A RabbitMQ node with a name, an Erlang cookie and a port mapper of its own. Takes seconds to start."""

    name = "rabbitmq"

    def __init__(self, config: Mapping[str, str] | None = None) -> None:
        super().__init__(config)
        self.mapper = _PortMapper()
        self._distribution_port = free_port()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def find_program(self) -> Path:
        return rabbitmq_program()

    def environment(self) -> dict[str, str]:
        folder = self.folder
        (folder / "rabbitmq.conf").write_text("".join(f"{key} = {value}\n" for key, value in self.config.items()))
        ours = {
            "HOME": str(folder),
            "RUNNING_UNDER_SYSTEMD": "true",  # the script then becomes the server, so that its pid is the server's
            "ERL_EPMD_PORT": str(self.mapper.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"axme{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced"),
        }
        kept = {key: value for key, value in super().environment().items() if not key.startswith("RABBITMQ_")}
        return {**kept, **ours}

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as wire:
            wire.settimeout(5)
            wire.sendall(b"AMQP\x00\x00\x09\x01")
            return wire.recv(1) == b"\x01"  # connection.start
        return False

    def _spawn(self) -> None:
        self.mapper.start()
        super()._spawn()

    def close(self) -> None:
        super().close()
        self.mapper.close()


class _PortMapper(PrivateServer):
    """Erlang's epmd, private: left alone, a node starts a daemon that stays when the node has gone."""

    name = "epmd"

    def find_program(self) -> Path:
        return port_mapper_program()

    def arguments(self) -> list[str]:
        return ["-port", str(self.port), "-address", "127.0.0.1"]

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False
