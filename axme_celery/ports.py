"""What a ledger, a tracker and a sender are to the verbs; and ``Runtime``, which holds one of each.

The verbs know only this page. ``ledger/`` and ``tracker/`` implement it, the
doors wire it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from .config import Settings
from .model import (
    Change,
    Checkpoint,
    DeadLetter,
    Delivery,
    EarlyAnswer,
    Event,
    Fence,
    Intent,
    JsonDict,
    Lease,
    Leg,
    LegRecord,
    Progress,
    Timer,
    Wait,
    WaitRecord,
    Work,
)


class Ledger(Protocol):
    """The SQL truth. One method writes what concerns an intent; the outbox has two more."""

    def now(self, *, fresh: bool = False) -> datetime:
        """The ledger's own clock: never ahead of the database's. ``fresh`` asks the database again."""

    def commit(self, *changes: Change, connection: Any = None) -> tuple[Change, ...]:
        """Write all changes in one transaction and return them as written, or write none.

        Raises ``StaleChange`` when one was decided on what no longer holds.

        A lost reply is cleared up here: it looks for its own write before it says anything.
        With ``connection`` (the caller's SQLAlchemy connection) it writes there and commits nothing.
        """

    def transaction(self, checkpoint: Callable[[Any], Checkpoint], fence: Fence) -> Checkpoint:
        """Open a transaction, call with its connection, and commit what that wrote together with the checkpoint it returns."""

    # reads
    def intent(self, intent_id: str) -> Intent | None: ...
    def intent_by_key(self, key: str, connection: Any = None) -> Intent | None: ...
    def intent_of_leg(self, leg_id: str, connection: Any = None) -> Intent | None: ...
    def intents(self, filters: JsonDict, after: tuple[datetime, str] | None, limit: int) -> list[Intent]: ...
    def leg_record(self, leg_id: str, *, history: bool = True) -> LegRecord | None: ...
    def legs(self, intent_id: str) -> list[Leg]: ...
    def checkpoints(self, intent_id: str) -> list[Checkpoint]: ...
    def waits(self, intent_id: str) -> list[Wait]: ...
    def checkpoint(self, leg_id: str, name: str, nth: int) -> Checkpoint | None: ...
    def wait(self, wait_id: str) -> WaitRecord | None: ...
    def tool_wait(self, tool: str, job_id: str) -> WaitRecord | None: ...
    def early_answer(self, tool: str, job_id: str) -> EarlyAnswer | None: ...
    def events(self, intent_id: str, since: int = 0, limit: int = 1000) -> list[Event]: ...
    def inbox(self, owners: Sequence[str], after: tuple[datetime, str] | None, limit: int) -> list[Wait]: ...
    def dead_letters(self, state: str | None, after: str | None, limit: int) -> list[DeadLetter]: ...
    def dead_letters_of(self, intent_id: str) -> list[DeadLetter]: ...
    def dead_letter(self, dead_letter_id: str) -> DeadLetter | None: ...

    # what the sweep asks
    def due_waits(self, until: datetime, limit: int) -> list[Timer]: ...
    def due_intents(self, until: datetime, limit: int) -> list[Timer]: ...
    def wait_records(self, wait_ids: Sequence[str]) -> list[WaitRecord]: ...
    def running(self, leases: Sequence[Lease] | None, limit: int) -> list[Lease]:
        """Of these leases (or of all, when None) the ones whose leg is RUNNING that very run."""

    def unstarted_legs(self, until: datetime, limit: int) -> list[Leg]: ...
    def unmatched_early_answers(self, limit: int) -> list[EarlyAnswer]: ...
    def prunable(self, ended_before: datetime, limit: int) -> list[Intent]: ...
    def count_prunable(self, ended_before: datetime) -> int: ...
    def prune(self, intent_ids: Sequence[str]) -> int: ...

    # the outbox
    def outbox_due(self, until: datetime, limit: int, hold_seconds: float) -> list[Delivery]:
        """Deliveries due by then, hidden from other relays for ``hold_seconds``."""

    def outbox_by_ids(self, delivery_ids: Sequence[str]) -> list[Delivery]: ...
    def outbox_settle(
        self, sent: Sequence[str], failed: Sequence[Delivery] = (), dead: Sequence[tuple[Delivery, DeadLetter]] = ()
    ) -> None:
        """Remove what was sent, put back what failed with its next moment, file what ran out of tries."""

    def close(self) -> None: ...


class Tracker(Protocol):
    """The index of leases, due times and live notices. May be lost at any moment: that costs lateness only."""

    def hold(self, leases: Sequence[Lease], seconds: float) -> None: ...
    def release(self, leases: Sequence[Lease]) -> None: ...
    def seed(self, leases: Sequence[Lease], seconds: float) -> None: ...
    def lapsed(self, limit: int) -> list[Lease]: ...
    def schedule(self, timers: Sequence[Timer]) -> None: ...
    def refill(self, timers: Sequence[Timer]) -> None: ...
    def unschedule(self, timers: Sequence[tuple[str, str]]) -> None: ...
    def take(self, until: datetime, hold_seconds: float, limit: int) -> list[Timer]: ...
    def tell(self, seqs: Mapping[str, int], ended: Sequence[Lease] = ()) -> None: ...
    def listen(self, intent_id: str, timeout_seconds: float, after: int | None = None) -> bool: ...
    def put_progress(self, leg_id: str, done: float, total: float | None, note: str | None) -> None: ...
    def progress(self, leg_ids: Sequence[str]) -> dict[str, Progress]: ...
    def tick(self, sweeper: str) -> None: ...
    def ticks(self) -> dict[str, datetime]: ...
    def lock(self, name: str, owner: str, seconds: float) -> bool: ...
    def eviction_policy(self) -> str | None: ...
    def ping(self) -> None: ...
    def clear(self) -> None: ...
    def close(self) -> None: ...


class Codec(Protocol):
    """Values to JSON text and back, within limits."""

    def encode(self, value: Any, *, what: str, limit_bytes: int, setting: str) -> str: ...
    def decode(self, text: str) -> Any: ...


#: Sends one delivery, or raises.
Sender = Callable[[Delivery], None]


class Relay(Protocol):
    """Takes what a commit put in the outbox and sends it soon, without holding up the caller."""

    def send(self, deliveries: Sequence[Delivery]) -> None: ...
    def send_if_committed(self, delivery_ids: Sequence[str]) -> None:
        """These were written in a caller's transaction: send them soon after it commits, if it does."""

    def tell(self, changes: Sequence[Change], ended: Sequence[Lease] = ()) -> None:
        """Let the tracker know of these committed changes and ended runs, in the background: a hung Redis holds nobody up."""

    def settled(self, delivery_ids: Sequence[str]) -> None:
        """These need no sending any more; remove them when convenient."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Everything a verb needs, wired once per application by a door."""

    ledger: Ledger
    tracker: Tracker
    relay: Relay
    settings: Settings
    codec: Codec
    #: A new UUIDv7.
    new_id: Callable[[], str]
    #: (cron expression, zone, after) -> the next moment.
    next_cron: Callable[[str, str | None, datetime], datetime]
    #: (JSON Schema or model) -> the schema as a dict; refuses a schema that cannot work.
    check_schema: Callable[[Any], JsonDict]
    #: (schema, data): refuses data that does not fit.
    check_form: Callable[[JsonDict, Any], None]
    #: True once this worker was asked to stop: legs go back to the queue at their next checkpoint.
    stopping: Callable[[], bool]
    #: Seconds since this worker's leases were last renewed.
    lease_age_seconds: Callable[[], float]
    #: (Celery signature) -> the work it stands for; refuses what cannot be carried.
    read_work: Callable[[Any], Work]
    #: Sleep, for retries inside a step.
    sleep: Callable[[float], None]
    #: Kept in a leg's ``worker``: "host:pid".
    worker_name: Callable[[], str]


__all__ = ["Codec", "Ledger", "Relay", "Runtime", "Sender", "Tracker"]
