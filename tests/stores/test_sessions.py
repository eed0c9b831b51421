"""Records of sessions, beside the keys: dropped when they are over, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

from axme_celery.ids import uuid7
from axme_celery.ledger import SqlLedger
from axme_celery.who import SESSION_MARK, Key, Role


def test_only_sessions_that_are_over_are_dropped(ledger: SqlLedger) -> None:
    """A key that ran out stays in the list: it says who did what."""
    now = ledger.now()
    ends = {"over": now - timedelta(seconds=1), "open": now + timedelta(hours=1)}
    for name, hash, expires_at in (
        ("over", f"{SESSION_MARK}1", ends["over"]),
        ("open", f"{SESSION_MARK}2", ends["open"]),
        ("ran out", "0" * 64, ends["over"]),
        ("for ever", "1" * 64, None),
    ):
        ledger.put_key(Key(id=uuid7(), name=name, hash=hash, role=Role.APPROVER, created_at=now, expires_at=expires_at))

    ledger.drop_sessions(now)

    left = ledger.keys()
    assert {key.name: key.is_session for key in left} == {"open": True, "ran out": False, "for ever": False}
