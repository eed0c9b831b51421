"""``Axme(app)``: the extension. Wires ledger, tracker and relay to one Celery application.

Making it does no I/O and starts nothing. The ledger and the tracker connect on
first use, per process; a fork is safe at any time.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from celery import Celery, shared_task
from celery.canvas import Signature

from . import (
    agents,
    answer,
    beat,
    callbacks,
    calling,
    codec,
    foresee,
    forms,
    leg,
    notices,
    notifiers,
    outbound,
    results,
    signals,
    submit,
    trace,
    waitcalls,
    work,
)
from .beats import occasion
from .begin import Submission
from .bindings import Bindings
from .calls import Calls
from .canvas import Reader
from .chords import Chords
from .config import Settings
from .cron import next_moment
from .durations import Duration, seconds
from .errors import BadInput, IntentEnded, NotFound
from .handle import IntentHandle
from .ids import uuid7
from .keeper import Keeper
from .lifecycle import Occasion
from .model import Change, Delivery, DeliveryKind, Intent, JsonDict, Leg, Wait, Work
from .parties import SCHEME, Addressed, address
from .people import People
from .ports import Ledger, Relay, Runtime, Sender, Tracker
from .relay import RelayThread
from .shared import WorkerState
from .texts import line
from .tracker import open_tracker


class Axme(People):
    """Durable intents for a Celery application.

    app:       the Celery application; may be given later with ``init_app``.
    settings:  override ``axme_*`` configuration, without the prefix: ``Axme(app, lease_seconds=5)``.
    """

    def __init__(self, app: Celery | None = None, **settings: Any) -> None:
        self._overrides = settings
        self._settings: Settings | None = None
        self._runtime: Runtime | None = None
        self._relay: RelayThread | None = None
        self._lock = threading.RLock()
        os.register_at_fork(after_in_child=self._renew_lock)
        self.worker = WorkerState()
        #: Which tasks serve which addresses and types.
        self.bindings = Bindings()
        self.keeper = Keeper(self)
        self.calls = Calls(self)
        self._app: Celery | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Celery) -> None:
        """Attach to the application. Twice is once."""
        if self._app is app:
            return
        if self._app is not None:
            raise BadInput(f"this Axme belongs to app {self._app.main!r} already; make another for {app.main!r}")
        if getattr(app, "axme", None) is not None:
            raise BadInput(f"app {app.main!r} has an Axme already; use app.axme")
        self._app = app
        app.axme = self
        self.calls.install(app)
        beat.register(self, app)
        waitcalls.register(self, app)
        signals.connect(self)

    @property
    def app(self) -> Celery:
        """The Celery application. Raises BadInput before ``init_app``."""
        if self._app is None:
            raise BadInput("this Axme has no Celery app yet; call axme.init_app(app)")
        return self._app

    @property
    def settings(self) -> Settings:
        """All ``axme_*`` settings, read once. Raises BadSetting."""
        if self._settings is None:
            self._settings = self.read_settings()
        return self._settings

    @property
    def names_tasks(self) -> bool:
        """Whether ``axme_tasks`` is given, be the settings in order or not."""
        conf = self.app.conf
        return bool(self._overrides.get("tasks") or conf.get("axme_tasks") or conf.get("AXME_TASKS"))

    def read_settings(self, **overrides: Any) -> Settings:
        """The settings as the application's configuration has them now, but for these. Raises BadSetting."""
        conf = self.app.conf
        return Settings.read(conf, conf.broker_url, **{**self._overrides, **overrides})

    # -- tasks -----------------------------------------------------------------------

    def task(
        self,
        *args: Any,
        deadline: Duration | None = None,
        max_attempts: int | None = None,
        type: str | None = None,
        notify: str | None = None,
        on_drift: str = "park",
        **options: Any,
    ) -> Any:
        """Register a Celery task whose calls are intents. Takes every option of ``@app.task`` besides.

        deadline:      an intent of it not ended after this long ends TIMED_OUT.
        max_attempts:  runs that may die with their worker before it is given up; ``axme_max_attempts`` unless given.
                       Exceptions are Celery's affair: ``autoretry_for`` and ``self.retry`` work, within ``max_retries``.
        type:          the intent's type; the task's name unless given.
        notify:        a URL that is told of the end of each of its intents, unless its submitter names another.
        on_drift:      "park" an intent whose code changed under it, or "continue".
        """
        if on_drift not in ("park", "continue"):
            raise BadInput(f"on_drift is {on_drift!r}; use 'park' or 'continue'")
        if max_attempts is not None and (isinstance(max_attempts, bool) or not 1 <= int(max_attempts) <= 1000):
            raise BadInput(f"max_attempts is {max_attempts!r}; it is a number from 1 to 1000")
        if deadline is not None and seconds(deadline, "deadline") <= 0:
            raise BadInput("deadline must be longer than nothing")
        if notify is not None:
            outbound.check_url(notify)
        base = options.pop("base", None)
        options["base"] = signals.LegTask if base is None else _leg_task_of(base)
        options |= {
            "axme_deadline": deadline, "axme_max_attempts": max_attempts, "axme_type": type, "axme_on_drift": on_drift,
            "axme_notify": notify,
        }  # fmt: skip
        if self._app is None:
            return shared_task(*args, **options)
        # It belongs to this app: on another, which Celery would also give it to, there is no ledger to keep it in.
        return self._app.task(*args, **{"shared": False, **options})

    def agent(self, at: str) -> Any:
        """Decorate a task: intents sent to this ``agent://`` address run it, with their payload as its one argument."""
        return self.bindings.agent(at)

    def handles(self, type: str) -> Any:
        """Decorate a task: intents of this type, sent over HTTP, run it, with their payload as its one argument."""
        return self.bindings.handles(type)

    # -- from outside ------------------------------------------------------------------

    def submit(
        self,
        work: Any,
        *,
        key: str | None = None,
        type: str | None = None,
        payload: Any = None,
        deadline: Duration | None = None,
        notify: str | None = None,
        requester: str | None = None,
        correlation_id: str | None = None,
        tags: Sequence[str] = (),
        connection: Any = None,
    ) -> IntentHandle:
        """Keep an intent and return it; when this returns it cannot be lost any more.

        work:        a Celery signature of one task, ordinary or ``@axme.task``; a chain, group or chord of them; or an
                     ``agent://`` address, whose agent (the task bound to it, or one that listens over HTTP) is given the
                     payload.
        key:         your own name for it. The same key and work: the first intent comes back; other work: KeyConflict.
        deadline:    not ended after this long, it ends TIMED_OUT.
        payload:     what it is about, shown and audited; the task's arguments unless given.
        notify:      a URL that is told of its end, by a signed webhook, tried for days.
        connection:  your SQLAlchemy connection to the ledger's database: the intent is written in your transaction,
                     and starts when that commits.

        Raises BadInput and its kinds for what is refused, LedgerUnavailable when the ledger cannot be reached.
        """
        one = self._submission(
            work, key=key, type=type, payload=payload, deadline=deadline, notify=notify, requester=requester,
            correlation_id=correlation_id, tags=tags,
        )  # fmt: skip
        return self._submit([one], connection)[0]

    def submit_many(self, works: Iterable[Any], *, connection: Any = None) -> list[IntentHandle]:
        """Keep many intents in one transaction, all or none, and publish them in one pass.

        Each is a signature, or a mapping with ``work`` and any arguments of ``submit`` by name.
        """
        submissions = [
            self._submission(**one) if isinstance(one, Mapping) and "work" in one else self._submission(one)
            for one in works
        ]
        return self._submit(submissions, connection) if submissions else []

    def intent(self, id: str) -> IntentHandle:
        """The intent of this id. Raises NotFound."""
        record = self.runtime.ledger.intent(id)
        if record is None:
            raise NotFound("intent", id)
        return IntentHandle(self.runtime, record)

    def intents(
        self,
        *,
        status: str | Sequence[str] | None = None,
        type: str | None = None,
        tag: str | None = None,
        key: str | None = None,
        requester: str | None = None,
        waiting_reason: str | None = None,
        correlation_id: str | None = None,
        created_since: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[IntentHandle]:
        """Intents that fit all of these, newest first; read page by page as you iterate."""
        filters = {
            "status": status, "type": type, "tag": tag, "key": key, "requester": requester,
            "waiting_reason": waiting_reason, "correlation_id": correlation_id, "created_since": created_since,
        }  # fmt: skip
        after: tuple[datetime, str] | None = None
        left = limit
        while left is None or left > 0:
            page = self.runtime.ledger.intents(filters, after, min(100, left or 100))
            for record in page:
                yield IntentHandle(self.runtime, record)
            if len(page) < min(100, left or 100):
                return
            after = (page[-1].created_at, page[-1].id)
            left = None if left is None else left - len(page)

    def complete_tool(self, tool: str, job_id: str, result: Any = None, error: Any = None) -> None:
        """A tool's report that its job is done or has failed. It may come before its wait opens, and may be repeated."""
        answer.complete_tool(self.runtime, tool, job_id, result, error)

    def complete_agent(self, id: str, result: Any = None, error: Any = None, *, by: str) -> IntentHandle:
        """An outside agent's intent ends: COMPLETED with this result, or FAILED with this error (a dict, or words).

        For agents that do not come by HTTP. The first answer ends it. Raises HandledByQueue for an intent that Celery
        tasks run, IntentEnded, NotFound.
        """
        return self._handle(agents.answered(self.runtime, id, result=result, error=error, by=by))

    def transfer(self, id: str, to: str, *, by: str, reason: str | None = None) -> IntentHandle:
        """Give an intent that is with an outside agent to another one, from its beginning. Raises BadInput, IntentEnded."""
        return self._handle(agents.transfer(self.runtime, id, to=to, by=by, reason=reason))

    def callback_url(self, tool: str, job_id: str) -> str:
        """The address at which a tool reports this job, with the token for it; good before anybody waits.

        Raises BadSetting without ``axme_base_url`` and ``axme_secret_key``.
        """
        return callbacks.url(self.settings, tool, job_id)

    def heartbeat_tool(self, tool: str, job_id: str, progress: float | None = None) -> None:
        """A tool's sign of life; ``progress`` is a share from 0 to 1."""
        answer.heartbeat_tool(self.runtime, tool, job_id, progress)

    def cancel(self, id: str, reason: str, by: str | None = None) -> IntentHandle:
        """End an intent as CANCELED. Raises IntentEnded when it has ended already."""
        return self._handle(submit.cancel(self.runtime, id, reason=reason, by=by))

    def replay(self, id: str, by: str | None = None) -> IntentHandle:
        """Start a dead letter, or an intent that did not complete, as a new intent that keeps its finished work."""
        return self._handle(submit.replay(self.runtime, id, by=by))

    def fork(self, id: str, before: str, by: str | None = None) -> IntentHandle:
        """A new intent with another's recorded work up to a step or wait ("name", or "name#2" for its second call)."""
        return self._handle(submit.fork(self.runtime, id, before=before, by=by))

    def unpark(self, id: str, by: str, *, accept_drift: bool = False) -> IntentHandle:
        """Let an intent whose leg is parked go on: with the code as it is (``accept_drift``), or after a roll-back."""
        return self._handle(submit.unpark(self.runtime, id, accept_drift=accept_drift, by=by))

    def drain(self, seconds: float = 5.0, *, webhooks: bool = False) -> bool:
        """Wait until this process has sent what it committed. What is not sent by then, the sweep sends.

        webhooks: also wait for every webhook that is due, whoever committed it.
        """
        return self._relay is None or self._relay.drain(seconds, webhooks=webhooks)

    def close(self) -> None:
        """Close this process's connections. The next use opens them again."""
        if self._runtime is not None:
            self._runtime.ledger.close()
            self._runtime.tracker.close()

    # -- wiring ------------------------------------------------------------------------

    @property
    def runtime(self) -> Runtime:
        """What the verbs work with; made at first use. Raises LedgerUnavailable, BadSetting."""
        if self._runtime is None:
            with self._lock:
                if self._runtime is None:
                    self._runtime = self._wire()
        return self._runtime

    @property
    def senders(self) -> Mapping[DeliveryKind, Sender]:
        """How each kind of delivery leaves."""
        return {
            DeliveryKind.LEG: self._send_leg,
            DeliveryKind.RESULT: self._send_result,
            DeliveryKind.NOTICE: self._send_notice,
            DeliveryKind.COMPLETION: self._send_completion,
            DeliveryKind.CANCEL: self._send_cancel,
            DeliveryKind.POLL: self._send_poll,
        }

    def read_work(self, given: Any) -> Work:
        """The work a signature stands for, or what is sent to an address, checked."""
        rt = self.runtime
        if isinstance(given, str) and given.startswith(SCHEME):
            given = Addressed(address(given))
        if isinstance(given, Addressed):
            bound = self.bindings.task_for(given)
            if bound is None:
                return work.agent_work(rt.codec, rt.settings, given)
            given = self.app.signature(bound, args=({} if given.payload is None else given.payload,))
        return work.read_work(self.app, rt.codec, rt.settings, rt.ledger.now(), given)

    def read_canvas(self, given: Any) -> Work:
        """The work a canvas stands for: one call, what is sent to an address, or a pipeline compiled to its legs."""
        if isinstance(given, str | Addressed):
            return self.read_work(given)
        rt = self.runtime
        return Reader(self.app, rt.codec, rt.settings, occasion(rt), rt.open_node).read(given)

    def read_called(self, given: Any) -> Work:
        """The work of a callback together with the result it is given: larger by that than what may be submitted."""
        rt = self.runtime
        room_bytes = rt.settings.payload_bytes + rt.settings.result_bytes
        settings = replace(rt.settings, payload_bytes=room_bytes)
        return Reader(self.app, rt.codec, settings, occasion(rt), rt.open_node).read(given)

    def call(self, task: Any, signature: Signature) -> Any:
        """``.delay()`` of an ``@axme.task``: submit, and return the AsyncResult of its leg, with ``intent_id``."""
        read = self.read_work(signature)
        running = leg.current()
        if running is not None:
            # A body that runs again finds the intent it made.
            read = calling.placed(running, read)
        (intent,) = submit.submit(self.runtime, [Submission(work=read, trace=trace.carried())])
        result = task.AsyncResult(read.leg_id)
        result.intent_id = intent.id
        return result

    def adopt(self, signature: Signature) -> JsonDict:
        """Make an intent of a message that came without one, of a task that is ours; the header it should have had."""
        read = self.read_work(signature)
        record = self.runtime.ledger.leg_record(read.leg_id, history=False)
        if record is not None:
            return {"intent": record.intent.id, "run": record.leg.run}
        kept = submit.keep_call(self.runtime, Submission(work=read, trace=trace.carried()))
        if kept.row is not None:
            # Its message is here; it need not be sent.
            self.runtime.relay.settled([kept.row.id])
        return {"intent": kept.intent.id, "run": 1}

    def _wire(self) -> Runtime:
        # Here, so that a process that only names tasks (celery --help, a web app's import) does not load SQLAlchemy.
        from .ledger import SqlLedger

        settings = self.settings
        ledger = SqlLedger(settings.ledger_url, secret=settings.secret_key)
        tracker = open_tracker(settings.redis_url, ledger.id, ledger.engine)
        self._relay = RelayThread(lambda: self.runtime, self.senders)
        return self.assemble(settings, ledger, tracker, self._relay)

    def assemble(self, settings: Settings, ledger: Ledger, tracker: Tracker, relay: Relay) -> Runtime:
        """A runtime of these stores, with everything else as this application has it."""
        return Runtime(
            ledger=ledger,
            tracker=tracker,
            relay=relay,
            settings=settings,
            codec=codec,
            new_id=uuid7,
            next_cron=next_moment,
            check_schema=forms.check_schema,
            check_form=forms.check_form,
            stopping=self.worker.stopping,
            lease_age_seconds=self.worker.lease_age_seconds,
            read_work=self.read_canvas,
            read_called=self.read_called,
            open_node=self._open_node,
            sleep=time.sleep,
            before_waiting=lambda intent_id, seq: None,
            keep_chords=Chords(self.app).keep,
            worker_name=lambda: f"{socket.gethostname()}:{os.getpid()}",
        )

    def _open_node(self, intent: Intent, leg: Leg, given: Any, on: Occasion) -> tuple[Wait, Sequence[Change]]:
        return foresee.open_node(self.runtime, intent, leg, given, on)

    @contextmanager
    def lent(self, runtime: Runtime) -> Iterator[None]:
        """Work with this runtime and its settings meanwhile, then with one's own again: for tests."""
        own = self._runtime, self._settings
        self._runtime, self._settings = runtime, runtime.settings
        try:
            yield
        finally:
            self._runtime, self._settings = own

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()

    def _handle(self, record: Intent) -> IntentHandle:
        return IntentHandle(self.runtime, record)

    def _submit(self, submissions: Sequence[Submission], connection: Any) -> list[IntentHandle]:
        rt = self.runtime
        found = submit.submit(rt, submissions, connection)
        return [IntentHandle(rt, intent) for intent in found]

    def _submission(
        self,
        work: Any,
        *,
        key: str | None = None,
        type: str | None = None,
        payload: Any = None,
        deadline: Duration | None = None,
        notify: str | None = None,
        requester: str | None = None,
        correlation_id: str | None = None,
        tags: Sequence[str] = (),
    ) -> Submission:
        rt = self.runtime
        if isinstance(work, str) and work.startswith(SCHEME):
            work = Addressed(address(work), payload, type)
        for what, value in (("key", key), ("type", type), ("requester", requester), ("correlation_id", correlation_id)):
            if value is not None:
                line(value, what)
        if not isinstance(tags, list | tuple | set | frozenset) or len(tags) > 50:
            raise BadInput(f"tags is {str(tags)[:80]!r}; give a list of at most 50 texts")
        for tag in tags:
            line(tag, "a tag", longest=128)
        if notify is not None:
            outbound.check_url(notify, self.settings.webhook_allow_cidrs)
        span = None
        if deadline is not None:
            span = seconds(deadline, "deadline")
            if span <= 0:
                raise BadInput(f"deadline is {deadline!r}; it must be longer than nothing")
        text = None
        if payload is not None:
            text = rt.codec.encode(
                payload, what="payload", limit_bytes=rt.settings.payload_bytes, setting="axme_payload_bytes"
            )
        return Submission(
            work=self.read_canvas(work), key=key, type=type, payload=text, deadline_seconds=span, notify=notify,
            requester=requester, correlation_id=correlation_id, tags=tuple(dict.fromkeys(tags)), trace=trace.carried(),
        )  # fmt: skip

    # -- senders -----------------------------------------------------------------------

    def _send_leg(self, delivery: Delivery) -> None:
        leg = delivery.leg
        if agents.offer(self.runtime, delivery):
            return
        if leg is not None and leg.run == delivery.run:
            work.publish(self.app, leg, finish=bool(delivery.body.get("finish")))

    def _send_result(self, delivery: Delivery) -> None:
        results.tell(self, delivery)

    def _send_notice(self, delivery: Delivery) -> None:
        notice = self.notice(delivery)
        if notice is not None:
            for notify in notifiers.load(self.settings.notifiers):
                notify(notice, self.settings)

    def notice(self, delivery: Delivery) -> notifiers.Notice | None:
        """What a delivery tells people; None when it has nothing to tell them any more."""
        return notices.notice(self.runtime, delivery)

    def _send_completion(self, delivery: Delivery) -> None:
        child = self.runtime.ledger.intent(delivery.intent_id)
        if child is not None:
            answer.child_ended(self.runtime, delivery.body["wait_id"], child)

    def _send_cancel(self, delivery: Delivery) -> None:
        try:
            submit.cancel(
                self.runtime, delivery.body["intent_id"], reason=delivery.body["reason"], by=delivery.body.get("by")
            )
        except (IntentEnded, NotFound):
            return

    def _send_poll(self, delivery: Delivery) -> None:
        record = self.runtime.ledger.wait(delivery.body["wait_id"])
        asked = None if record is None else record.wait.request.get("poll")
        if asked is None:
            return
        options = {k: v for k, v in (asked.get("options") or {}).items() if k in ("queue", "exchange", "routing_key")}
        routed = self.app.amqp.router.route(options, asked["task"], (), {}, self.app.tasks.get(asked["task"]))
        where = {k: routed[k] for k in ("queue", "exchange", "routing_key") if k in routed}
        expires = record.wait.request["poll_every_seconds"] if record is not None else None
        self.app.send_task(beat.POLL_TASK, (delivery.body["wait_id"],), expires=expires, ignore_result=True, **where)


def _leg_task_of(base: Any) -> type:
    if issubclass(base, signals.LegTask):
        return base  # type: ignore[no-any-return]
    return type(base.__name__, (signals.LegTask, base), {"abstract": True})
