"""The tables: which event may follow which status; and ``Story``, which moves an intent by them.

A missing entry in ``MOVES`` is an illegal move. Nothing else in the package
sets an intent's status.

Source: AXP Intent Lifecycle v1, with TIMED_OUT reachable from every open status.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..errors import IntentEnded, StaleChange
from ..model import Change, Event, Intent, Status


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a decision may know of the world: the moment, fresh ids, and one setting."""

    #: The ledger's present time.
    now: datetime
    #: A new UUIDv7.
    new_id: Callable[[], str]
    #: After this long a queued leg nobody started is published again.
    requeue: timedelta


_ENDS = {
    "intent.failed": Status.FAILED,
    "intent.canceled": Status.CANCELED,
    "intent.timed_out": Status.TIMED_OUT,
    "intent.delivery_failed": Status.FAILED,
}

#: status -> event -> status. A missing entry is an illegal move.
MOVES: dict[Status, dict[str, Status]] = {
    Status.CREATED: {"intent.submitted": Status.SUBMITTED, **_ENDS},
    Status.SUBMITTED: {
        "intent.delivered": Status.DELIVERED,
        "intent.in_progress": Status.IN_PROGRESS,
        "intent.waiting": Status.WAITING,
        **_ENDS,
    },
    Status.DELIVERED: {
        "intent.acknowledged": Status.ACKNOWLEDGED,
        "intent.in_progress": Status.IN_PROGRESS,
        "intent.waiting": Status.WAITING,
        **_ENDS,
    },
    Status.ACKNOWLEDGED: {"intent.in_progress": Status.IN_PROGRESS, "intent.waiting": Status.WAITING, **_ENDS},
    Status.IN_PROGRESS: {"intent.waiting": Status.WAITING, "intent.completed": Status.COMPLETED, **_ENDS},
    Status.WAITING: {"intent.in_progress": Status.IN_PROGRESS, "intent.waiting": Status.WAITING, **_ENDS},
    Status.COMPLETED: {},
    Status.FAILED: {},
    Status.CANCELED: {},
    Status.TIMED_OUT: {},
}

#: Events that are worth a line but move nothing; legal in every open status.
NOTES = frozenset(
    {
        "intent.human_task_assigned",
        "intent.voted",
        "intent.reminder",
        "intent.escalated",
        "intent.delegated",
        "intent.reassigned",
        "intent.extended",
        "intent.timeout",
        "intent.wait_opened",
        "intent.wait_closed",
        "intent.leg_lost",
        "intent.leg_retried",
        "intent.leg_replaced",
        "intent.leg_added",
        "intent.leg_called",
        "intent.called_ended",
        "intent.work_done",
        "intent.work_failed",
        "intent.handed_back",
        "intent.handed_out",
        "intent.transfer",
        "intent.message_sent",
        "intent.controls_changed",
        "intent.policy_changed",
        "intent.parked",
        "intent.unparked",
    }
)

#: Statuses of an intent of which nothing has run yet.
UNSTARTED = frozenset({Status.SUBMITTED, Status.DELIVERED, Status.ACKNOWLEDGED})


class Story:
    """An intent being moved: collects events and advances status and seq by the table."""

    def __init__(self, intent: Intent, now: datetime) -> None:
        self.was, self.now, self.intent = intent, now, intent
        self.events: list[Event] = []

    def tell(
        self,
        type: str,
        *,
        actor: str | None = None,
        leg_id: str | None = None,
        waiting_reason: str | None = None,
        **details: object,
    ) -> None:
        status = self.intent.status
        if type in NOTES:
            if status.is_final:
                raise IntentEnded(self.intent.id, status.value, self.intent.ended_at)
            reason = self.intent.waiting_reason
        else:
            moved = MOVES[status].get(type)
            if moved is None:
                if status.is_final:
                    raise IntentEnded(self.intent.id, status.value, self.intent.ended_at)
                raise StaleChange(f"{type} may not follow {status.value} (intent {self.intent.id})")
            status, reason = moved, waiting_reason
        seq = self.intent.seq + 1
        self.events.append(
            Event(
                intent_id=self.intent.id,
                seq=seq,
                type=type,
                status=status,
                waiting_reason=reason,
                at=self.now,
                actor=actor,
                leg_id=leg_id,
                details={k: v for k, v in details.items() if v is not None},
            )
        )
        ended_at = self.now if status.is_final else None
        self.intent = replace(
            self.intent, status=status, waiting_reason=reason, seq=seq, updated_at=self.now, ended_at=ended_at,
            threaded=self.intent.threaded or type == "intent.human_task_assigned",
        )  # fmt: skip

    def change(self, **rows: object) -> Change:
        """A Change of this intent, with the other rows given."""
        return Change(
            intent=self.intent,
            was=self.was,
            before=self.was.seq,
            events=tuple(self.events),
            **rows,  # type: ignore[arg-type]
        )
