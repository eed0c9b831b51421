"""Undoes what a test process leaves behind, also when it is killed: servers, folders, databases.

Each test process starts one, as a program of its own, and writes to its input
what it takes (``promise``) and what it has put back itself (``release``). The
end of that input is the end of the test process, however it came.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 10


def promise_server(pid: int, stop_signal: int, folder: Path) -> None:
    """Stop this process and remove its folder, unless released before."""
    _tell({"key": str(pid), "pid": pid, "signal": stop_signal, "folder": str(folder)})


def promise_folder(folder: Path) -> None:
    """Remove this folder."""
    _tell({"key": str(folder), "folder": str(folder)})


def promise_database(server_url: str, name: str) -> None:
    """Drop this database of the PostgreSQL at a libpq URL, unless released before."""
    _tell({"key": name, "server": server_url, "database": name})


def release(key: int | str) -> None:
    """The process id or database is gone: forget it."""
    _tell({"key": str(key)})


@functools.cache
def _janitor() -> subprocess.Popen[str]:
    """A process that was forked shares the janitor of its parent, who then waits for both."""
    return subprocess.Popen([sys.executable, "-I", __file__], stdin=subprocess.PIPE, text=True, start_new_session=True)


def _tell(order: dict[str, Any]) -> None:
    pipe = _janitor().stdin
    assert pipe is not None
    with contextlib.suppress(BrokenPipeError):
        pipe.write(json.dumps(order) + "\n")
        pipe.flush()


# -- the other side of the pipe --


def main() -> None:
    left: dict[str, dict[str, Any]] = {}
    for line in sys.stdin:
        order = json.loads(line)
        left.pop(order["key"], None)
        if len(order) > 1:
            left[order["key"]] = order
    # Databases first: the server they are on may be one of those that are stopped next.
    for order in left.values():
        if "database" in order:
            with contextlib.suppress(Exception):
                _drop(order["server"], order["database"])
    _stop([order for order in left.values() if "pid" in order])
    for order in left.values():
        if "folder" in order:
            shutil.rmtree(order["folder"], ignore_errors=True)


def _stop(servers: list[dict[str, Any]]) -> None:
    for server in servers:
        _signal(server["pid"], server["signal"])
        _signal(server["pid"], signal.SIGCONT)
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until and any(_signal(server["pid"], 0) for server in servers):
        time.sleep(0.05)
    for server in servers:
        _signal(server["pid"], signal.SIGKILL)


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def _drop(server_url: str, database: str) -> None:
    import psycopg  # here: this program waits through every run and hardly ever needs it

    with psycopg.connect(server_url, autocommit=True, connect_timeout=3) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')


if __name__ == "__main__":
    main()
