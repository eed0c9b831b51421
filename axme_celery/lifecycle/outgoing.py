"""What a decision puts in the outbox or files as a dead letter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from ..model import DeadLetter, Delivery, DeliveryKind, Intent, JsonDict, Leg, Wait, WaitKind, WaitStatus
from .moves import Occasion


def leg_delivery(leg: Leg, delivery_id: str, at: datetime) -> Delivery:
    """The outbox row that publishes this leg's message for its present run."""
    return Delivery(
        id=delivery_id,
        kind=DeliveryKind.LEG,
        intent_id=leg.intent_id,
        leg_id=leg.id,
        run=leg.run,
        next_at=at,
        leg=leg,
    )


def tell_parent(intent: Intent, on: Occasion) -> list[Delivery]:
    if intent.parent_wait_id is None:
        return []
    body = {"wait_id": intent.parent_wait_id}
    return [Delivery(id=on.new_id(), kind=DeliveryKind.COMPLETION, intent_id=intent.id, body=body, next_at=on.now)]


def result_delivery(leg: Leg, state: str, error: JsonDict, at: datetime, on: Occasion) -> Delivery:
    return Delivery(
        id=on.new_id(), kind=DeliveryKind.RESULT, intent_id=leg.intent_id, leg_id=leg.id, run=leg.run,
        body={"state": state, "error": error}, next_at=at, leg=leg,
    )  # fmt: skip


def success_delivery(leg: Leg, on: Occasion) -> Delivery:
    """Tell Celery's result backend of a leg that no worker ran."""
    return Delivery(
        id=on.new_id(), kind=DeliveryKind.RESULT, intent_id=leg.intent_id, leg_id=leg.id, run=leg.run,
        body={"state": "SUCCESS"}, next_at=on.now, leg=leg,
    )  # fmt: skip


def rest_delivery(
    intent: Intent, state: str, error: JsonDict, on: Occasion, *, errbacks: Sequence[str] = ()
) -> Delivery:
    """Tell Celery's result backend of every leg that ended with its intent.

    errbacks: those of them whose errbacks are called, as Celery calls those of a chord's body.
    """
    body = present(state=state, error=error, errbacks=list(errbacks))
    return Delivery(id=on.new_id(), kind=DeliveryKind.RESULT, intent_id=intent.id, body=body, next_at=on.now)


def cancel_children(waits: Sequence[Wait], by: str | None, on: Occasion) -> list[Delivery]:
    """Nobody waits for these child intents any more."""
    return [
        Delivery(
            id=on.new_id(), kind=DeliveryKind.CANCEL, intent_id=w.intent_id, next_at=on.now,
            body=present(intent_id=w.job_id, reason=f"intent {w.intent_id} waits for it no longer", by=by),
        )
        for w in waits
        if w.kind is WaitKind.AGENT and w.job_id
    ]  # fmt: skip


def notice_delivery(intent: Intent, wait: Wait, kind: str, to: Sequence[str], on: Occasion) -> Delivery:
    return Delivery(
        id=on.new_id(), kind=DeliveryKind.NOTICE, intent_id=intent.id, leg_id=wait.leg_id, next_at=on.now,
        body=present(
            kind=kind, wait_id=wait.id, to=list(to), title=wait.title, type=intent.type,
            number=wait.reminders or None, timeout_at=text_of(wait.timeout_at), at=text_of(on.now),
        ),
    )  # fmt: skip


def dead_notice(intent: Intent, error: JsonDict, on: Occasion) -> Delivery:
    """For whoever watches over the intents: addressed to nobody, so it goes to the log and the channel."""
    return Delivery(
        id=on.new_id(), kind=DeliveryKind.NOTICE, intent_id=intent.id, next_at=on.now,
        body={
            "kind": "dead_letter", "title": f"{intent.type} cannot go on [{error['code']}]",
            "reason": str(error["message"])[:500], "type": intent.type, "at": text_of(on.now),
        },
    )  # fmt: skip


def dead_letter(intent: Intent, kind: str, error: JsonDict, on: Occasion, *, leg_id: str | None = None) -> DeadLetter:
    return DeadLetter(
        id=on.new_id(), kind=kind, intent_id=intent.id, leg_id=leg_id, at=on.now,
        code=str(error["code"]), reason=str(error["message"]),
    )  # fmt: skip


def text_of(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def present(**fields: object) -> JsonDict:
    return {k: v for k, v in fields.items() if v is not None and v != []}


def closed_wait(
    wait: Wait,
    status: WaitStatus,
    now: datetime,
    *,
    outcome: str | None,
    answered_by: str | None,
    comment: str | None = None,
    data: str | None = None,
) -> Wait:
    """The wait as it is once closed."""
    return replace(
        wait,
        status=status,
        outcome=outcome,
        answered_by=answered_by,
        comment=comment,
        data=data,
        closed_at=now,
        due_at=None,
    )
