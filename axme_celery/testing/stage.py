"""The stage: a whole house in one process, for tests of tasks that wait.

The verbs, the ledger, the tracker, the sweep and the leg wrapper are the real
ones. Only the clock stands still until it is moved, the ledger is in memory,
and broker, worker and result backend are lists in this process.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, cast

from celery import Celery
from sqlalchemy import Engine, exists, func, or_, select

from .. import agents, webhook
from ..beats import best_effort, tell_tracker
from ..courier import Call, attempt
from ..deliver import send_all, settle
from ..durations import Duration, seconds
from ..errors import BadInput
from ..extension import Axme
from ..handle import IntentHandle
from ..hooks import HookStatus
from ..ledger import SqlLedger, tables, tables_hooks
from ..model import Change, DeadLetter, Delivery, DeliveryKind, Event, Lease, LegStatus, Wait, WaitStatus
from ..notifiers import Notice
from ..ports import Ledger, Tracker
from ..sweep import (
    AHEAD_TICKS,
    due_timers,
    early_answers,
    full_joins,
    lapsed_leases,
    lost_messages,
    refill,
    undelivered,
    unleased,
)
from ..tracker.clock import to_microseconds, to_moment
from ..tracker.sql import SqlTracker
from ..webhook import Answer
from .death import Fate, Kill, Killed, MortalLedger, MortalTracker
from .inprocess import InProcess

#: As short as a tick may be: a sleeper is woken this near to its moment.
TICK_SECONDS = 0.01
#: What the relay sends itself; what is due later the sweep finds, as in a worker.
RELAY_HORIZON = timedelta(seconds=3)


class Stage:
    """Run an app's intents in this process: ``with Stage(app) as stage:``.

    app:        your Celery app, with its ``Axme(app)``. It needs no broker and no worker; afterwards it is as before.
    ledger_url: an empty ledger elsewhere, where SQLite in memory will not do.
    settings:   override ``axme_*`` settings of the app meanwhile, without the prefix.

    The clock starts at the present and stands still until ``pass_time`` moves it (or a step's backoff, or a lapsing
    lease). Every verb works through ``app.axme`` too; call ``run()`` afterwards. Ordinary tasks that are called
    meanwhile run here as well.
    """

    def __init__(self, app: Celery, *, ledger_url: str = "sqlite://", **settings: Any) -> None:
        axme: Axme | None = getattr(app, "axme", None)
        if axme is None:
            raise BadInput(
                f"app {app.main!r} has no Axme; make one with Axme(app), or return the app that has one from the "
                f"fixture axme_app"
            )
        self.axme = axme
        #: What would have been sent to people, in order.
        self.notices: list[Notice] = []
        #: Every webhook call that would have been made, in order: (URL, body, headers).
        self.webhooks: list[tuple[str, bytes, dict[str, str]]] = []
        #: How receivers answer them; replace it for others than 200.
        self.answer_webhook: Call = lambda url, body, headers: Answer(status=200)
        self._now = datetime.now(UTC)
        self._settings = axme.read_settings(
            **{"tick_seconds": TICK_SECONDS, **settings, "ledger_url": ledger_url, "redis_url": None}
        )
        self._fate = Fate()
        self._ledger = SqlLedger(ledger_url, clock=lambda: self._now, secret=self._settings.secret_key)
        # The tracker has a database of its own, so that it can write while a step's transaction is under way.
        self._index = SqlLedger("sqlite://")
        self._relay = _Relay(self)
        self._worker = InProcess(axme, lambda: self._now)
        self._undo = ExitStack()
        self._thread = threading.get_ident()

    def __enter__(self) -> Stage:
        assert self._ledger.id and self._index.id, "which makes their tables"
        tracker = SqlTracker(lambda: self._index.engines.durable, clock=lambda: self._now)
        runtime = self.axme.assemble(
            self._settings,
            cast(Ledger, MortalLedger(self._ledger, self._fate)),
            cast(Tracker, MortalTracker(tracker, self._fate)),
            self._relay,
        )
        self._undo.enter_context(
            self.axme.lent(replace(runtime, sleep=self._sleep, before_waiting=self._before_waiting))
        )
        self._undo.enter_context(self._worker)
        self._undo.callback(self._ledger.close)
        self._undo.callback(self._index.close)
        self._senders = {**self.axme.senders, DeliveryKind.NOTICE: self._take_notice}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._undo.close()
        if kind is None and self._fate.planned:
            raise AssertionError(f"{self._fate.planned[0]} never happened: no run came to it")

    # -- what a test does ------------------------------------------------------

    def submit(self, work: Any, **details: Any) -> IntentHandle:
        """``axme.submit``, then run until everything rests. Returns the intent as it then is."""
        intent = self.axme.submit(work, **details)
        self.run()
        return intent.refresh()

    def run(self) -> None:
        """Run all there is to run, until every intent waits or has ended."""
        self._until_rest()
        # Whatever is running now is running nowhere: its worker died, and its lease must lapse.
        while self.axme.runtime.ledger.running(None, 1):
            self._move_to(min(_lapses(self._index, self._now)))

    def pass_time(self, duration: Duration) -> None:
        """Let time pass: what falls due meanwhile happens at its moment, in order, and what that wakes runs then."""
        self._until_rest()
        self._move_to(self._now + timedelta(seconds=seconds(duration, "duration")))
        self.run()

    def answer(self, wait: Any, outcome: str, *, by: str, comment: str | None = None, data: Any = None) -> IntentHandle:
        """``axme.answer``: a person's answer to a wait, or to the one open human wait of an intent; then run."""
        intent = self.axme.answer(wait, outcome, by=by, comment=comment, data=data)
        self.run()
        return intent.refresh()

    def complete_tool(self, tool: str, job_id: str, result: Any = None, error: Any = None) -> None:
        """``axme.complete_tool``: a tool's report, also before its wait opens; then run."""
        self.axme.complete_tool(tool, job_id, result, error)
        self.run()

    def complete_agent(self, id: str, result: Any = None, error: Any = None, *, by: str = "agent") -> IntentHandle:
        """``axme.complete_agent``: what an outside agent answers; then run."""
        intent = self.axme.complete_agent(id, result, error, by=by)
        self.run()
        return intent.refresh()

    def kill(self, at_step: str | None = None, *, recorded: bool = False) -> None:
        """The next run that comes there dies with its worker, as by SIGKILL; its lease lapses and the leg runs again.

        at_step:  a step or wait, "name" or "name#2" for its second call; "end" is the end of the body; None is
                  whatever is recorded next. A step's function has run by then.
        recorded: False dies before it is recorded, True just after.

        A death that never happened fails the test when the stage closes.
        """
        named = at_step if at_step in (None, "end") or "#" in str(at_step) else f"{at_step}#1"
        self._fate.planned.append(Kill(named, recorded))

    def lose_messages(self) -> int:
        """Lose every Celery message under way, those included that are about to leave. How many there were."""
        self._publish()
        return self._worker.lose_messages()

    def copy_messages(self) -> None:
        """Have every Celery message under way delivered twice, those included that are about to leave."""
        self._publish()
        self._worker.copy_messages()

    # -- what a test sees --------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The stage's time, aware UTC."""
        return self._now

    @property
    def engine(self) -> Engine:
        """The ledger's database: for ``connection=``, and to read what a ``transaction=True`` step wrote."""
        return self._ledger.engines.durable

    def intent(self, id: str) -> IntentHandle:
        """The intent of this id, as it is now."""
        return self.axme.intent(id)

    def history(self, intent: IntentHandle | str) -> list[Event]:
        """All events of an intent, in order."""
        return self.intent(_id(intent)).events()

    def waits(self, intent: IntentHandle | str) -> list[Wait]:
        """All waits of an intent, open and closed, in the order they were opened."""
        return self.intent(_id(intent)).waits()

    def inbox(self, owner: str) -> list[Wait]:
        """The open waits for this person or group, oldest first."""
        return self.axme.runtime.ledger.inbox([owner], None, 1000)

    def dead_letters(self) -> list[DeadLetter]:
        """The open dead letters, newest first."""
        return self.axme.runtime.ledger.dead_letters("OPEN", None, 1000)

    # -- how it goes on ------------------------------------------------------------

    def _publish(self) -> None:
        while self._relay.flush():
            pass

    def _until_rest(self) -> None:
        while self._relay.flush() or self._run_next() or self._sweep() or self._deliver():
            pass

    def _move_to(self, end: datetime) -> None:
        while (moment := self._next_moment(end)) is not None:
            self._now = moment
            self._until_rest()
        self._now = max(self._now, end)
        self._until_rest()

    def _next_moment(self, end: datetime) -> datetime | None:
        """The next moment, up to the end, at which something is due."""
        due = [self._relay.next_moment(), self._worker.next_moment()]
        due += _next_due(self._ledger, self._now) + _lapses(self._index, self._now)
        return min((moment for moment in due if moment is not None and self._now < moment <= end), default=None)

    def _run_next(self) -> bool:
        self._fate.running = True
        try:
            return self._worker.run_next()
        except Killed:
            return True
        finally:
            self._fate.running = self._fate.dead = False

    def _sweep(self) -> bool:
        rt = self.axme.runtime
        ahead = timedelta(seconds=AHEAD_TICKS * self._settings.tick_seconds)
        if not _is_due(self._ledger, self._now + ahead) and not rt.ledger.unmatched_early_answers(1):
            # Most often there is nothing to do, and a sweep is far more work than to see that.
            return False
        # First, so that what lies beyond the tracker's horizon is found at its moment and not at the next sweep.
        refill(rt)
        unleased(rt)
        done = (
            full_joins(rt)
            + lapsed_leases(rt)
            + agents.lapsed_leases(rt)
            + due_timers(rt)
            + undelivered(rt, self._senders)
        )
        done += lost_messages(rt) + early_answers(rt)
        return done > 0

    def _deliver(self) -> bool:
        """One webhook delivery that is due, if there is any."""
        rt = self.axme.runtime
        if not rt.ledger.hooks.is_due():
            return False
        for parcel in rt.ledger.hooks.turn((), 1, lambda _: 1, TICK_SECONDS):
            answer = attempt(parcel, self._call, self._now)
            settled = webhook.settle(parcel, answer, self._settings.webhook_retry_seconds, self._now, rt.new_id)
            rt.ledger.hooks.turn([settled], 0, lambda _: 0, TICK_SECONDS)
        return True

    def _call(self, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        self.webhooks.append((url, body, headers))
        return self.answer_webhook(url, body, headers)

    def _take_notice(self, delivery: Delivery) -> None:
        notice = self.axme.notice(delivery)
        if notice is not None:
            self.notices.append(notice)

    def _sleep(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)

    def _before_waiting(self, intent_id: str, seq: int) -> None:
        """Run what there is to run. Raises TimeoutError when that has not moved the intent: nobody but the test will."""
        if threading.get_ident() != self._thread:
            return
        if self._fate.running:
            raise TimeoutError(
                f"a task waits for intent {intent_id}, and a stage runs one at a time; have it wait with wait_for_agent(), "
                f"which needs no worker meanwhile"
            )
        self.run()
        intent = self.intent(intent_id)
        if intent.seq == seq:
            raise TimeoutError(
                f"intent {intent_id} is {intent.status.value} and nothing is left to run: on a stage the clock stands still; "
                f"use its pass_time(), answer(), complete_tool() or complete_agent()"
            )

    def _send(self, deliveries: Sequence[Delivery]) -> None:
        settle(self.axme.runtime, send_all(self.axme.runtime, self._senders, deliveries))


class _Relay:
    """The relay without its thread: sends what is due when the stage says so."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._order = itertools.count()
        self._heap: list[tuple[datetime, int, Delivery]] = []

    def send(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.next_at <= self._stage.now + RELAY_HORIZON:
                heapq.heappush(self._heap, (delivery.next_at, next(self._order), delivery))

    def send_if_committed(self, delivery_ids: Sequence[str]) -> None:
        """Nothing: the sweep finds them, once they are there."""

    def tell(self, changes: Sequence[Change], ended: Sequence[Lease] = ()) -> None:
        best_effort(lambda: tell_tracker(self._stage.axme.runtime, changes, ended))

    def settled(self, delivery_ids: Sequence[str]) -> None:
        self._stage.axme.runtime.ledger.outbox_settle(delivery_ids)
        self._heap = [entry for entry in self._heap if entry[2].id not in delivery_ids]
        heapq.heapify(self._heap)

    def deliver(self) -> None:
        """Nothing: the stage looks for itself."""

    def flush(self) -> bool:
        due = []
        while self._heap and self._heap[0][0] <= self._stage.now:
            due.append(heapq.heappop(self._heap)[2])
        if due:
            self._stage._send(due)
        return bool(due)

    def next_moment(self) -> datetime | None:
        return self._heap[0][0] if self._heap else None


def _next_due(ledger: SqlLedger, after: datetime) -> list[datetime]:
    """The next moment of each kind that the ledger knows of."""
    waits, intents, legs, outbox = tables.waits.c, tables.intents.c, tables.legs.c, tables.outbox.c
    leaves_at, hooks = func.coalesce(outbox.held_until, outbox.next_at), tables_hooks.hook_deliveries.c
    questions = (
        select(func.min(waits.due_at)).where(waits.status == WaitStatus.OPEN.value, waits.due_at > after),
        select(func.min(intents.deadline_at)).where(intents.ended_at.is_(None), intents.deadline_at > after),
        select(func.min(legs.due_at)).where(legs.status == LegStatus.QUEUED.value, legs.due_at > after),
        select(func.min(leaves_at)).where(leaves_at > after),
        select(func.min(hooks.next_at)).where(hooks.status == HookStatus.PENDING.value, hooks.next_at > after),
        select(func.min(tables_hooks.subscriptions.c.rests_until)).where(
            tables_hooks.subscriptions.c.rests_until > after
        ),
    )
    with ledger.engines.connect() as connection, connection.begin():
        answers = [connection.scalar(question) for question in questions]
    return [moment for moment in answers if moment is not None]


def _is_due(ledger: SqlLedger, by: datetime) -> bool:
    """Whether the ledger has anything for a sweep to look at by then."""
    waits, intents, legs, outbox = tables.waits.c, tables.intents.c, tables.legs.c, tables.outbox.c
    joins = tables.joins.c
    anything = or_(
        exists().where(waits.status == WaitStatus.OPEN.value, waits.due_at <= by),
        exists().where(intents.ended_at.is_(None), intents.deadline_at <= by),
        exists().where(legs.status == LegStatus.QUEUED.value, legs.due_at <= by),
        exists().where(legs.status == LegStatus.RUNNING.value),
        exists().where(func.coalesce(outbox.held_until, outbox.next_at) <= by),
        exists().where(joins.status == "OPEN", joins.left == 0),
    )
    with ledger.engines.connect() as connection, connection.begin():
        return bool(connection.scalar(select(anything)))


def _lapses(index: SqlLedger, after: datetime) -> list[datetime]:
    """When the next lease lapses."""
    ends_at = tables.tracker.leases.c.ends_at
    with index.engines.connect() as connection, connection.begin():
        found = connection.scalar(select(func.min(ends_at)).where(ends_at > to_microseconds(after)))
    return [] if found is None else [to_moment(found)]


def _id(intent: IntentHandle | str) -> str:
    return intent if isinstance(intent, str) else intent.id
