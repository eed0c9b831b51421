"""Kombu's filesystem transport, with writes that are whole.

As it comes, the transport writes a message in place: a reader that looks at the wrong
moment takes an empty file, the message is lost and the reader stops with an error. The
table of an exchange, which several processes bind their queues in at once when they
start, is truncated and written in place as well. Both happen on a busy machine.

Here a message appears under its name by a rename, is taken by a rename within the same
folder, and a table is changed under a lock and replaced as a whole. Everything else is kombu's.

One machine, a local disk. A message taken by a worker that is then killed is gone:
the ledger has it published again.
"""

from __future__ import annotations

import fcntl
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps, loads

#: The scheme of its URL, once registered.
SCHEME = "axme-files"


def register() -> None:
    """Let this process open ``axme-files://``. Twice is once."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"


class Channel(filesystem.Channel):
    """A channel whose files are whole or not there."""

    def _put(self, queue: str, message: Any, **_: Any) -> None:  # type: ignore[override]
        folder = Path(self.data_folder_out)
        # By its name a message is known: <when>_<id>.<queue>.msg. An unfinished one has no such name.
        unfinished = folder / f"{uuid.uuid4()}.unfinished"
        unfinished.write_text(dumps(message), encoding="utf-8")
        unfinished.rename(folder / f"{round(time.monotonic() * 1000):015}_{uuid.uuid4()}.{queue}.msg")

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        folder = Path(self.data_folder_in)
        for name in sorted(path.name for path in folder.iterdir() if path.name.partition(".")[2] == f"{queue}.msg"):
            taken = folder / f"{uuid.uuid4()}.taken"
            try:
                (folder / name).rename(taken)
            except FileNotFoundError:
                continue  # another process was first
            payload = loads(taken.read_text(encoding="utf-8"))
            taken.unlink()
            return payload
        raise Empty

    def get_table(self, exchange: str) -> list[filesystem.exchange_queue_t]:
        """The bindings of an exchange."""
        try:
            rows = loads(self._table_file(exchange).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        return [filesystem.exchange_queue_t(*row) for row in rows]

    def _queue_bind(self, exchange: str, routing_key: str | None, pattern: str | None, queue: str | None) -> None:
        bound = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        self._change_table(exchange, lambda table: table if bound in table else [bound, *table])

    def _delete(self, queue: str, exchange: str, routing_key: str, pattern: str, *_: Any, **__: Any) -> None:
        self._purge(queue)  # type: ignore[no-untyped-call]
        bound = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        self._change_table(exchange, lambda table: [row for row in table if row != bound])

    def _change_table(self, exchange: str, change: Callable[[list[Any]], list[Any]]) -> None:
        file = self._table_file(exchange)
        with self._alone():
            table = self.get_table(exchange)
            changed = change(table)
            if changed != table:
                unfinished = file.with_name(f"{uuid.uuid4()}.unfinished")
                unfinished.write_text(dumps(changed), encoding="utf-8")
                unfinished.replace(file)

    def _table_file(self, exchange: str) -> Path:
        return Path(self._exchange_file(exchange))  # type: ignore[no-untyped-call]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the one lock of the control folder; the kernel frees it when its holder dies."""
        folder = Path(self.control_folder)
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class Transport(filesystem.Transport):
    """``axme-files://`` with the options of kombu's filesystem transport."""

    Channel = Channel
