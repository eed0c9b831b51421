"""Keys as the ledger keeps them: by the hash of their secret."""

from __future__ import annotations

import functools
from datetime import datetime

from sqlalchemy import bindparam, select

from ..who import SESSION_MARK, Key
from . import tables as t
from .access import Access
from .query import Query
from .rows import columns, to_record, to_row
from .write import Sheet


class KeyShelf:
    """The keys of a ledger; one of its parts."""

    def __init__(self, access: Access, is_sqlite: bool) -> None:
        self._access = access
        self._is_sqlite = is_sqlite

    def put_key(self, key: Key) -> None:
        """Keep a new one."""
        sheet = Sheet(self._is_sqlite)
        sheet.insert_new(t.keys, to_row(key))
        self._access.write(sheet.write, durable=True)

    def key(self, key_id: str) -> Key | None:
        return self._one("id", key_id)

    def key_by_hash(self, hash: str) -> Key | None:
        return self._one("hash", hash)

    def keys(self) -> list[Key]:
        """All, newest first."""
        query = select(*columns(Key)).order_by(t.keys.c.id.desc())
        return self._access.ask(lambda c: [to_record(Key, row) for row in c.execute(query).mappings()])

    def touch_key(self, key_id: str, at: datetime, *, unused: bool = False) -> bool:
        """Write down its use. ``unused``: only the first use counts; whether this was it."""
        values = {"last_used_at": at}
        if not unused:
            sheet = Sheet(self._is_sqlite)
            sheet.update(t.keys, values, {"id": key_id})
            self._access.write(sheet.write, durable=False)
            return True
        statement = t.keys.update().where(t.keys.c.id == key_id, t.keys.c.last_used_at.is_(None)).values(values)
        with self._access.transaction() as connection:
            first = connection.execute(statement).rowcount == 1
            connection.commit()
        return first

    def revoke_key(self, key_id: str, at: datetime) -> None:
        sheet = Sheet(self._is_sqlite)
        sheet.update(t.keys, {"revoked_at": at}, {"id": key_id})
        self._access.write(sheet.write, durable=True)

    def drop_sessions(self, before: datetime) -> None:
        """Forget the records of sessions that ended before this."""
        ended = t.keys.c.hash.startswith(SESSION_MARK, autoescape=True) & (t.keys.c.expires_at < before)
        with self._access.transaction() as connection:
            connection.execute(t.keys.delete().where(ended))
            connection.commit()

    def _one(self, column: str, value: str) -> Key | None:
        query = _by(column, self._is_sqlite)
        return next((key for (key,) in self._access.drive(lambda d: query.read(d, value=value))), None)


@functools.cache
def _by(column: str, is_sqlite: bool) -> Query:
    """Compiled once: every request asks this."""
    return Query(select(*columns(Key)).where(t.keys.c[column] == bindparam("value")), (Key,), is_sqlite)
