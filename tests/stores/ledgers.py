"""What the ledger's suites share: small stories told to a ledger by the same rules the verbs use."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from axme_celery import audit, lifecycle
from axme_celery.errors import StaleChange
from axme_celery.ids import uuid7
from axme_celery.ledger import SqlLedger
from axme_celery.model import (
    Change,
    Checkpoint,
    Fence,
    Intent,
    Leg,
    LegRecord,
    LegStatus,
    Recorded,
    Status,
    Wait,
    WaitKind,
    WaitStatus,
)


def occasion(ledger: SqlLedger) -> lifecycle.Occasion:
    return lifecycle.Occasion(now=ledger.now(), new_id=uuid7, requeue=timedelta(seconds=600))


# -- changes -----------------------------------------------------------------


def new_intent(ledger: SqlLedger, **fields: Any) -> Change:
    """An intent with its one leg, about to be committed."""
    on, intent_id, leg_id = occasion(ledger), uuid7(), uuid7()
    intent = Intent(
        **{
            "id": intent_id, "type": "export", "status": Status.CREATED, "created_at": on.now, "updated_at": on.now,
            "work_hash": "w" * 64, "payload": json.dumps({"month": "2026-10"}), **fields,
        }
    )  # fmt: skip
    signature = {"task": "export", "args": ["2026-10"], "kwargs": {}, "options": {"task_id": leg_id}}
    leg = Leg(id=leg_id, intent_id=intent_id, task="export", signature=signature, created_at=on.now)
    return lifecycle.submit(intent, leg, start_at=None, on=on)


def claim(ledger: SqlLedger, leg_id: str, run: int = 1) -> Change:
    record = recorded(ledger, leg_id)
    return lifecycle.claim(record.intent, record.leg, run, worker="box:1", token=f"claim-{run}", on=occasion(ledger))


def lost(ledger: SqlLedger, leg_id: str, run: int = 1) -> Change:
    record = recorded(ledger, leg_id)
    return lifecycle.lose(record.intent, record.leg, run, cause="killed", on=occasion(ledger))


def completed(ledger: SqlLedger, leg_id: str, result: str = '{"rows":3}') -> Change:
    record, on = recorded(ledger, leg_id), occasion(ledger)
    guard_at = on.now + timedelta(seconds=10)
    return lifecycle.complete(record.intent, record.leg, result, guard_at=guard_at, token=uuid7(), on=on)


def canceled(ledger: SqlLedger, intent_id: str, by: str = "ana") -> Change:
    intent = ledger.intent(intent_id)
    assert intent is not None
    legs, waits = ledger.legs(intent_id), ledger.waits(intent_id)
    return lifecycle.cancel(intent, legs, waits, reason="no longer needed", by=by, on=occasion(ledger))


def human_wait(ledger: SqlLedger, leg: Leg, *, to: tuple[str, ...] = ("ana",), **fields: Any) -> Wait:
    on = occasion(ledger)
    return Wait(
        **{
            "id": uuid7(), "intent_id": leg.intent_id, "leg_id": leg.id, "name": "wait_for_human", "nth": 1,
            "position": 0, "run": leg.run, "kind": WaitKind.HUMAN, "title": "Publish?", "to": to,
            "request": {"task_type": "approval", "outcomes": ["approved", "rejected"], "quorum": 1},
            "opened_at": on.now, "timeout_at": on.now + timedelta(days=2), **fields,
        }
    )  # fmt: skip


def opened(ledger: SqlLedger, wait: Wait) -> tuple[Change, ...]:
    record = recorded(ledger, wait.leg_id)
    return lifecycle.open_wait(record.intent, record.leg, wait, on=occasion(ledger))


def answered(ledger: SqlLedger, wait_id: str, by: str = "ana", outcome: str = "approved") -> Change:
    record = ledger.wait(wait_id)
    assert record is not None
    return lifecycle.answer(record, outcome=outcome, by=by, on=occasion(ledger))


def held(leg_id: str, run: int = 1) -> Fence:
    """How a run that ``claim`` made holds its leg."""
    return Fence(leg_id, run, f"claim-{run}")


def step_done(leg_id: str, name: str = "fetch", *, nth: int = 1, run: int = 1, value: str = "1") -> Change:
    checkpoint = Checkpoint(leg_id=leg_id, name=name, nth=nth, position=nth - 1, run=run, value=value)
    return Change(fence=held(leg_id, run), checkpoints=(checkpoint,))


def step_begun(leg_id: str, name: str = "pay", *, run: int = 1) -> Change:
    checkpoint = Checkpoint(leg_id=leg_id, name=name, nth=1, position=0, run=run, recorded=Recorded.STARTED)
    return Change(fence=held(leg_id, run), checkpoints=(checkpoint,))


# -- committed ------------------------------------------------------------------


def submitted(ledger: SqlLedger, **fields: Any) -> LegRecord:
    change = new_intent(ledger, **fields)
    ledger.commit(change)
    return recorded(ledger, change.legs[0][1].id)


def running(ledger: SqlLedger, **fields: Any) -> LegRecord:
    leg_id = submitted(ledger, **fields).leg.id
    ledger.commit(claim(ledger, leg_id))
    return recorded(ledger, leg_id)


def waiting(ledger: SqlLedger, **fields: Any) -> Wait:
    record = running(ledger)
    wait = human_wait(ledger, record.leg, **fields)
    ledger.commit(*opened(ledger, wait))
    return wait


# -- looked at -------------------------------------------------------------------


def recorded(ledger: SqlLedger, leg_id: str) -> LegRecord:
    record = ledger.leg_record(leg_id)
    assert record is not None
    return record


def open_files(ledger: SqlLedger) -> list[str]:
    """The files of a ledger on SQLite that this process has open, its log among them."""
    path = str(Path(ledger.engines.durable.url.database or "").resolve())
    links = [Path(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return [name for link in links if link.is_symlink() and (name := str(link.readlink())).startswith(path)]


def handles(ledger: SqlLedger) -> list[str]:
    """One for each connection to a ledger on SQLite: its log. The file itself SQLite closes only with the last of them."""
    return [name for name in open_files(ledger) if name.endswith("-wal")]


@dataclass(frozen=True)
class Everything:
    """All that a ledger holds of one intent, to be compared."""

    intent: object
    events: object
    legs: object
    waits: object
    checkpoints: object


def everything(ledger: SqlLedger, intent_id: str) -> Everything:
    return Everything(
        ledger.intent(intent_id),
        ledger.events(intent_id),
        ledger.legs(intent_id),
        ledger.waits(intent_id),
        ledger.checkpoints(intent_id),
    )


def assert_whole(ledger: SqlLedger, intent_id: str) -> None:
    """Nothing of the intent is half-written: history without gaps, and one story in intent, legs, waits and outbox."""
    intent, events = ledger.intent(intent_id), ledger.events(intent_id)
    assert intent is not None
    assert [event.seq for event in events] == list(range(1, intent.seq + 1))
    assert audit.verify(intent, events, None) is None
    assert (events[-1].status, events[-1].waiting_reason) == (intent.status, intent.waiting_reason)
    (leg,) = ledger.legs(intent_id)
    open_waits = [wait for wait in ledger.waits(intent_id) if wait.status is WaitStatus.OPEN]
    assert (leg.status is LegStatus.WAITING) == (intent.status is Status.WAITING) == bool(open_waits)
    assert leg.status.is_final == intent.status.is_final


def until_committed(ledger: SqlLedger, decide: Callable[[], Change]) -> Change:
    """As a verb does: decide again as long as another writer was faster."""
    while True:
        change = decide()
        with contextlib.suppress(StaleChange):
            (written,) = ledger.commit(change)
            return written


def told(ledger: SqlLedger, intent_id: str, actor: str) -> Change:
    """One event more, by the note that may come at any time."""
    intent = ledger.intent(intent_id)
    assert intent is not None
    event = replace(ledger.events(intent_id)[0], seq=intent.seq + 1, type="intent.reminder", actor=actor)
    event = replace(event, status=intent.status, at=ledger.now(), details={}, prev_hash="", hash="")
    after = replace(intent, seq=intent.seq + 1, updated_at=event.at)
    return Change(intent=after, was=intent, before=intent.seq, events=(event,))


@contextlib.contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[Callable[[float], object]]:
    """Runs work in a thread; the context gives a function that waits for its outcome, or says that it still runs."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def finished(seconds: float) -> object:
        thread.join(seconds)
        return outcome[0] if outcome else STILL_RUNNING

    yield finished
    thread.join(30)
    assert not thread.is_alive()


STILL_RUNNING = object()
