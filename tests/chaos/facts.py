"""What the ledger says afterwards about each intent, and a whole history: the ledger's side and the witnesses' side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from axme_celery import audit
from axme_celery.model import Checkpoint, DeadLetter, EarlyAnswer, Event, Intent, Leg, Wait

from . import reference
from .witness import Line


@dataclass(frozen=True, kw_only=True)
class IntentFacts:
    """One intent as the ledger has it."""

    intent: Intent
    events: tuple[Event, ...]
    leg: Leg
    checkpoints: tuple[Checkpoint, ...] = ()
    waits: tuple[Wait, ...] = ()
    letters: tuple[DeadLetter, ...] = ()
    #: Early answers to the tools' jobs that this intent waits for.
    early: tuple[EarlyAnswer, ...] = ()
    #: What the audit chain says is wrong.
    audit_trouble: str | None = None
    #: (run, ref) of its rows in the user's own table.
    bookings: tuple[tuple[int, str], ...] = ()
    #: State and result that Celery's AsyncResult shows; None when nobody looked.
    celery: tuple[str, Any] | None = None

    @property
    def result(self) -> Any:
        return None if self.intent.result is None else json.loads(self.intent.result)


@dataclass(frozen=True, kw_only=True)
class History:
    """All that is known of a run of the harness."""

    lines: Sequence[Line]
    intents: Mapping[str, IntentFacts]
    #: How many runs of legs were hit by a kill, a lost reply or a pause: each may cost one execution of one step.
    faults: int = 0
    #: What is left over after everything ended: "table: rows".
    leftovers: tuple[str, ...] = field(default=())


def collect(axme: Any, *, celery: bool = False) -> dict[str, IntentFacts]:
    """The facts of every intent in the ledger. ``celery``: look at Celery's result too."""
    ledger = axme.runtime.ledger
    secret = axme.settings.secret_key
    found: dict[str, IntentFacts] = {}
    with ledger.engines.connect() as connection:
        booked = connection.execute(select(reference.bookings)).all()
    for handle in axme.intents():
        record = ledger.intent(handle.id)
        (leg,) = ledger.legs(handle.id)
        events, waits = tuple(handle.events()), tuple(ledger.waits(handle.id))
        jobs = {(w.tool, w.job_id) for w in waits if w.tool == reference.TOOL}
        name = leg.signature["args"][0]
        jobs |= {(reference.TOOL, f"{name}:{job}") for job in ("early", "late")}
        early = [ledger.early_answer(tool, job) for tool, job in sorted(jobs)]
        asked = None
        if celery:
            shown = axme.app.AsyncResult(leg.id)
            asked = (shown.state, shown.result if shown.state == "SUCCESS" else str(shown.result))
        found[handle.id] = IntentFacts(
            intent=record,
            events=events,
            leg=leg,
            checkpoints=tuple(ledger.checkpoints(handle.id)),
            waits=waits,
            letters=tuple(ledger.dead_letters_of(handle.id)),
            early=tuple(e for e in early if e is not None),
            audit_trouble=audit.verify(record, events, secret.encode() if secret else None),
            bookings=tuple((row.run, row.ref) for row in booked if row.intent == handle.id),
            celery=asked,
        )
    return found
