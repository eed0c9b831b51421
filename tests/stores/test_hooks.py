"""Webhooks in the ledger, on both databases: an event and the order to tell it are one transaction."""

from __future__ import annotations

import threading

from sqlalchemy import insert, select, update

from axme_celery.fanout import delivery_of
from axme_celery.hooks import HookEvent, Subscription
from axme_celery.ids import uuid7
from axme_celery.ledger import SqlLedger, tables, tables_hooks
from axme_celery.model import DeliveryKind

from .ledgers import claim, completed, new_intent


def subscription(ledger: SqlLedger, url: str = "https://a.example/", **fields) -> Subscription:  # type: ignore[no-untyped-def]
    now = ledger.now()
    made = Subscription(id=uuid7(), url=url, secret="s" * 32, created_at=now, updated_at=now, **fields)
    ledger.hooks.put(made)
    return made


def kinds(ledger: SqlLedger, intent_id: str) -> list[str]:
    with ledger.engine().connect() as connection:
        rows = connection.execute(select(tables.outbox.c.kind).where(tables.outbox.c.intent_id == intent_id))
        return sorted(row.kind for row in rows)


def waiting(ledger: SqlLedger, sub: Subscription, count: int) -> None:
    now = ledger.now()
    events = [HookEvent(id=uuid7(), type="a.b", data="{}", at=now) for _ in range(count)]
    ledger.hooks.record(events=events, deliveries=[delivery_of(e, sub, uuid7(), now) for e in events])


def revoke_all(ledger: SqlLedger) -> None:
    assert ledger.id, "which makes the tables"
    with ledger.engine().connect() as connection, connection.begin():
        connection.execute(update(tables_hooks.subscriptions).values(revoked_at=ledger.now()))


def test_a_commit_with_events_orders_them_told_exactly_while_somebody_is_subscribed(ledger: SqlLedger) -> None:
    """As the database sees it in that very transaction; and says so to the process that committed."""
    revoke_all(ledger)
    (before,) = ledger.commit(new_intent(ledger))
    subscription(ledger)
    (during,) = ledger.commit(new_intent(ledger))
    revoke_all(ledger)
    (after,) = ledger.commit(new_intent(ledger))

    for change, expected in ((before, ["LEG"]), (during, ["FANOUT", "LEG"]), (after, ["LEG"])):
        assert kinds(ledger, change.intent.id) == expected
        assert sorted(d.kind.value for d in change.outbox) == expected
    fanout = during.outbox[-1]
    assert fanout.body == {"since": 0, "until": 2}


def test_a_url_an_intent_names_is_told_of_its_end_without_any_subscription(ledger: SqlLedger) -> None:
    revoke_all(ledger)
    (change,) = ledger.commit(new_intent(ledger, notify="https://a.example/"))
    leg_id = change.legs[0][1].id
    ledger.commit(claim(ledger, leg_id))
    assert kinds(ledger, change.intent.id) == ["LEG"]
    (ended,) = ledger.commit(completed(ledger, leg_id))

    assert ended.outbox[-1].kind is DeliveryKind.FANOUT
    assert "FANOUT" in kinds(ledger, change.intent.id)


def test_a_subscription_not_yet_committed_is_not_seen_and_blocks_nobody(ledger: SqlLedger) -> None:
    """Whoever commits first is first; neither waits for the other."""
    if ledger.engines.is_sqlite:
        return  # one writer at a time: there is no such moment
    revoke_all(ledger)
    with ledger.engine().connect() as connection:
        transaction = connection.begin()
        row = {"id": uuid7(), "kind": "subscription", "url": "x", "event_types": [], "secret": "s", "thin": False}
        now = ledger.now()
        connection.execute(insert(tables_hooks.subscriptions).values(**row, created_at=now, updated_at=now, failures=0))
        (change,) = ledger.commit(new_intent(ledger))
        assert kinds(ledger, change.intent.id) == ["LEG"]
        transaction.rollback()


def test_couriers_never_have_the_same_delivery_in_hand(ledger: SqlLedger) -> None:
    sub = subscription(ledger, f"https://{uuid7()}.example/")
    waiting(ledger, sub, 40)
    taken: list[str] = []

    def take() -> None:
        for _ in range(10):
            mine = ledger.hooks.turn((), 5, lambda s: 5 if s.id == sub.id else 0, 60)
            taken.extend(p.delivery.id for p in mine)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == len(set(taken)) == 40


def test_nothing_is_taken_for_one_that_rests_is_disabled_or_revoked(ledger: SqlLedger) -> None:
    now = ledger.now(fresh=True)
    for values in ({"rests_until": now.replace(year=now.year + 1)}, {"disabled_at": now}, {"revoked_at": now}):
        sub = subscription(ledger, f"https://{uuid7()}.example/")
        waiting(ledger, sub, 1)
        ledger.hooks.change(sub.id, values)
        assert ledger.hooks.turn((), 50, lambda s, i=sub.id: 50 if s.id == i else 0, 0) == []


def test_giving_up_what_is_pending_leaves_what_was_received(ledger: SqlLedger) -> None:
    sub = subscription(ledger, f"https://{uuid7()}.example/")
    waiting(ledger, sub, 3)
    ledger.hooks.change(sub.id, {"revoked_at": ledger.now()}, end_pending="revoked")

    found = ledger.hooks.deliveries({"subscription_id": sub.id}, None, 10)
    assert [(p.delivery.status.value, p.delivery.last_error) for p in found] == [("DEAD", "revoked")] * 3
