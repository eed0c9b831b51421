"""What a client of PostgreSQL sends, read along on the wire (without encryption)."""

from __future__ import annotations

import re

#: The message that prepares a statement which is a transaction of its own, under a name to run it by later, or without
#: to run it at once: the hot path's insert, and the ledger's other changes.
_PREPARES = re.compile(rb"P....(\w*)\x00(INSERT INTO axme_checkpoints|WITH w0 AS)", re.DOTALL)


class WireReader:
    """Reads one connection: the driver prepares a statement once, and later sends only its name."""

    def __init__(self) -> None:
        #: Names of prepared statements, and what running each of them is.
        self._prepared: dict[bytes, str] = {}

    def commits(self, data: bytes) -> str | None:
        """Whether this commits something: "COMMIT", in whichever form, a "checkpoint", or nothing (None)."""
        if b"COMMIT\x00" in data:
            return "COMMIT"
        for name, begins in _PREPARES.findall(data):
            kind = "COMMIT" if begins.startswith(b"WITH") else "checkpoint"
            if not name:
                return kind
            self._prepared[name] = kind
        return next((kind for name, kind in self._prepared.items() if b"\x00" + name + b"\x00" in data), None)
