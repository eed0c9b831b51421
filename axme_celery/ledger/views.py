"""What pages ask of the ledger, besides what the verbs do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, exists, literal_column, select

from . import tables as t
from .access import Access

#: Ids in one ``IN``: databases bind only so many values.
_MANY = 1000
#: An inbox longer than this is a list nobody reads to its end; beyond it, changes show at the next look.
INBOX_ROWS = 500


class Views:
    """Questions of pages; one of a ledger's parts."""

    def __init__(self, access: Access, is_sqlite: bool) -> None:
        self._access = access
        self._is_sqlite = is_sqlite

    def seqs(self, intent_ids: Sequence[str]) -> dict[str, int]:
        """Where these intents are: id -> number of the last event."""

        def ask(c: Connection) -> dict[str, int]:
            found: dict[str, int] = {}
            for start in range(0, len(intent_ids), _MANY):
                some = intent_ids[start : start + _MANY]
                rows = c.execute(select(t.intents.c.id, t.intents.c.seq).where(t.intents.c.id.in_(some)))
                found |= {row.id: row.seq for row in rows}
            return found

        return self._access.ask(ask) if intent_ids else {}

    def inbox_marks(self, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """What of an inbox's waits can change while they are open; of everybody's, without names."""
        c = t.waits.c
        query = select(c.id, c.timeout_at, c.votes, c.to).where(
            c.status == literal_column("'OPEN'"), c.kind == literal_column("'HUMAN'")
        )
        if names:
            mine = and_(t.wait_owners.c.wait_id == c.id, t.wait_owners.c.owner.in_(list(names)))
            query = query.where(exists().where(mine))
        query = query.order_by(c.opened_at, c.id).limit(INBOX_ROWS)
        return self._access.ask(lambda connection: [tuple(row) for row in connection.execute(query)])
