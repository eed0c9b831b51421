"""The nouns: frozen records of what the ledger holds, and ``Change``, the one way to alter it.

A record is what a row says at one moment. Nothing here reads a clock, a store
or a setting. Values that came from users (payload, result, a step's value) are
kept as the JSON text they were checked and stored as; small dicts of our own
(details, errors, requests) are plain JSON-able dicts.

Source: AXP Intent Lifecycle v1 for statuses, waiting reasons and event names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from .desk import Link
from .graph import Join
from .texts import folded

JsonDict = dict[str, Any]


class Status(StrEnum):
    """Where an intent stands."""

    CREATED = "CREATED"
    SUBMITTED = "SUBMITTED"
    DELIVERED = "DELIVERED"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    IN_PROGRESS = "IN_PROGRESS"
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    TIMED_OUT = "TIMED_OUT"

    @property
    def is_final(self) -> bool:
        """True for the four ends, which never change."""
        return self in FINAL


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELED, Status.TIMED_OUT})


class WaitKind(StrEnum):
    """Whom an intent waits for."""

    HUMAN = "HUMAN"
    TOOL = "TOOL"
    AGENT = "AGENT"
    TIME = "TIME"

    @property
    def waiting_reason(self) -> str:
        """AXP's word for it on a WAITING intent."""
        return f"WAITING_FOR_{self.value}"


class WaitStatus(StrEnum):
    """A wait closes once."""

    OPEN = "OPEN"
    ANSWERED = "ANSWERED"
    EXPIRED = "EXPIRED"
    CANCELED = "CANCELED"


class LegStatus(StrEnum):
    """Where a leg stands."""

    PENDING = "PENDING"  # its turn in the pipeline has not come yet
    QUEUED = "QUEUED"  # to be run by whichever worker gets its message
    RUNNING = "RUNNING"  # a worker claimed it and holds its lease
    WAITING = "WAITING"  # at rest; nothing holds it
    PARKED = "PARKED"  # cannot go on without an operator; see ``Leg.parked``
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        """True when the leg will not run again."""
        return self in {LegStatus.DONE, LegStatus.FAILED, LegStatus.CANCELED}


class Recorded(StrEnum):
    """What a checkpoint says about its step."""

    STARTED = "STARTED"  # at_most_once: began, end unknown
    DONE = "DONE"
    FAILED = "FAILED"  # its result could not be kept; it does not run again


class DeliveryKind(StrEnum):
    """What leaves the house through the outbox."""

    LEG = "LEG"  # publish a leg's Celery message
    RESULT = "RESULT"  # tell Celery's result backend of an end no worker saw
    NOTICE = "NOTICE"  # tell people, through the notifiers
    COMPLETION = "COMPLETION"  # a child intent ended: answer its parent's wait
    CANCEL = "CANCEL"  # a parent ended: cancel its child intent
    POLL = "POLL"  # ask about a tool's job: run the wait's poll signature
    FANOUT = "FANOUT"  # events were written: make a webhook delivery of each for every subscription that wants it


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """The promise: one row, alive until its status is final."""

    id: str
    #: What kind of intent: the task's name unless the submitter said otherwise.
    type: str
    status: Status
    #: WAITING_FOR_HUMAN, _TOOL, _AGENT or _TIME; set exactly while WAITING.
    waiting_reason: str | None = None
    #: Number of the last event. Every change of the intent makes it higher: it is also the fence of changes.
    seq: int = 0
    #: The submitter's own key, unique in the ledger.
    key: str | None = None
    #: SHA-256 of the work, to tell the same submission from another under one key.
    work_hash: str = ""
    #: JSON text.
    payload: str = "{}"
    #: JSON text; set when COMPLETED, or when all but what was called of it is.
    result: str | None = None
    #: {"code", "message", ...}; set when FAILED, CANCELED or TIMED_OUT, or when only what was called of it goes on.
    error: JsonDict | None = None
    deadline_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    requester: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    #: URL told of every end.
    notify: str | None = None
    tags: tuple[str, ...] = ()
    #: The wait this intent answers when it ends: it is somebody's ``wait_for_agent``.
    parent_wait_id: str | None = None
    #: The intent this one repeats from its finished work (replay, fork).
    replay_of: str | None = None
    #: Who sees it over HTTP: a key with an owner sees its own intents only. None: the whole house's.
    owner: str | None = None
    #: The agent that sent it, and the address it was sent to.
    from_agent: str | None = None
    to_agent: str | None = None
    #: Who has it in hand: an agent's address; after a transfer another one than ``to_agent``.
    handler: str | None = None
    #: What was asked besides the work: human task, reminders, controls, policy and its generation.
    terms: JsonDict | None = None
    #: True where people or agents write about it to each other: it is a thread of their inboxes.
    threaded: bool = False
    #: W3C trace context it was submitted in: {"traceparent", "tracestate"}.
    trace: JsonDict | None = None
    #: How many legs that its tasks called have not ended: until then it does not end by itself.
    called_open: int = 0
    #: Hash of the last event: the head of the audit chain.
    head_hash: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leg:
    """One Celery task of an intent; its id is the Celery task id for its whole life."""

    id: str
    intent_id: str
    task: str
    #: The Celery signature as a dict: what is published at every run.
    signature: JsonDict
    status: LegStatus = LegStatus.QUEUED
    #: Which execution: the fencing token. One higher at every dispatch after a claim.
    run: int = 1
    #: Runs that failed or died, plus the one under way.
    attempts: int = 0
    max_attempts: int = 5
    #: "host:pid" of the last claim.
    worker: str | None = None
    #: Random, new at every claim and settle: how a writer knows its own write after a lost reply.
    token: str = ""
    #: While QUEUED: when its message is presumed lost and published again.
    due_at: datetime | None = None
    #: How often the message of this run was published again.
    resends: int = 0
    #: True when checkpoints or waits exist, so that a first run need not look.
    has_history: bool = False
    #: "park" or "continue": what to do when the code no longer matches what was recorded.
    on_drift: str = "park"
    #: Highest run for which an operator accepted drift.
    drift_accepted_run: int = 0
    #: Why it is PARKED, in words.
    parked: str | None = None
    #: JSON text; set when DONE.
    result: str | None = None
    error: JsonDict | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    #: True when a chord of Celery's own, not of a plan, waits for it.
    in_chord: bool = False
    #: The leg whose task called this one while it ran; None for the work the intent was submitted with.
    called_by: str | None = None
    #: Where in the canvas it was compiled from: "1.header[3]"; "" when it is the whole work.
    node: str = ""
    #: Its place among the legs of its intent.
    position: int = 0
    #: The leg or join whose end is its turn, and by which way out of a wait ("" is the usual one).
    after: str | None = None
    turn: str = ""
    #: The join that counts it, and which member it is there.
    join_id: str | None = None
    join_index: int = 0
    #: The join that everything after it comes to in the end.
    within: str | None = None
    #: How many legs start when it is DONE.
    followers: int = 0
    #: What holds for its turn: "takes" a result before its arguments, "countdown", "eta", "expires"; and for its end:
    #: "link" and "link_error", signatures that become intents of their own.
    plan: JsonDict = field(default_factory=dict)

    @property
    def is_last(self) -> bool:
        """True when its end is the intent's."""
        return self.called_by is None and self.join_id is None and self.followers == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A step's stored result, keyed by (leg, step name, n-th call of that name)."""

    leg_id: str
    name: str
    nth: int
    #: Place among all steps and waits of the leg, from 0, in the order first asked for.
    position: int
    #: The run that recorded it; 0 when it was brought along from the intent this one repeats.
    run: int
    recorded: Recorded = Recorded.DONE
    #: JSON text: the result, or what went wrong when FAILED.
    value: str = "null"
    at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMark:
    """That a step was recorded: its ``Checkpoint`` without the value, of which there may be megabytes."""

    leg_id: str
    name: str
    nth: int
    position: int
    run: int
    recorded: Recorded = Recorded.DONE
    at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Where an intent rests, keyed like a step by (leg, name, nth)."""

    id: str
    intent_id: str
    leg_id: str
    name: str
    nth: int
    position: int
    #: The run that opened it; 0 when it was brought along, closed, from the intent this one repeats.
    run: int
    kind: WaitKind
    status: WaitStatus = WaitStatus.OPEN
    #: One line for people: the question, the tool's job, the moment.
    title: str
    #: What was asked, by kind: task type, context, form, outcomes, poll signature, ...
    request: JsonDict = field(default_factory=dict)
    #: Who may answer (people and groups); shown in their inboxes.
    to: tuple[str, ...] = ()
    #: TOOL: which tool and job. AGENT: "intent" and the child intent's id.
    tool: str | None = None
    job_id: str | None = None
    opened_at: datetime
    #: When it times out; for TIME, when it wakes.
    timeout_at: datetime | None = None
    #: Next reminder.
    remind_at: datetime | None = None
    reminders: int = 0
    escalate_at: datetime | None = None
    escalated_at: datetime | None = None
    #: Rungs of the ladder that have been climbed.
    escalations: int = 0
    #: When the fallback was asked, the first timeout having passed.
    fell_back_at: datetime | None = None
    #: TOOL: silent until then is dead.
    heartbeat_at: datetime | None = None
    #: TOOL: next time to ask.
    poll_at: datetime | None = None
    #: The earliest of the moments above; None when closed. What the sweep looks for.
    due_at: datetime | None = None
    #: [{"by", "outcome", "comment", "at"}]: one per person, counted against the quorum.
    votes: tuple[JsonDict, ...] = ()
    #: [{"by", "to", "reason", "at"}]: who left the answer to whom.
    delegations: tuple[JsonDict, ...] = ()
    #: HUMAN: when an answer is wanted; past it the wait is overdue, though still open.
    wanted_at: datetime | None = None
    #: HUMAN: SHA-256 of what the person is shown, as it was when the wait opened.
    payload_hash: str | None = None
    outcome: str | None = None
    answered_by: str | None = None
    comment: str | None = None
    #: JSON text: form data, the tool's result, the agent's result.
    data: str | None = None
    closed_at: datetime | None = None

    @property
    def excluded(self) -> frozenset[str]:
        """People and groups who may not answer, as folded names."""
        return frozenset(folded(name) for name in self.request.get("not_by", ()))

    @property
    def done(self) -> frozenset[str]:
        """People who have answered or given it away, as folded names."""
        return frozenset(folded(each["by"]) for each in (*self.votes, *self.delegations))


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One line of an intent's history; ``seq`` counts from 1 without gaps."""

    intent_id: str
    seq: int
    type: str
    status: Status
    waiting_reason: str | None = None
    at: datetime
    actor: str | None = None
    leg_id: str | None = None
    details: JsonDict = field(default_factory=dict)
    #: Chain: hash of the event before, and of this one. Filled in by the ledger.
    prev_hash: str = ""
    hash: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One outbox row: something that must leave, and its tries."""

    id: str
    kind: DeliveryKind
    intent_id: str
    leg_id: str | None = None
    run: int = 0
    body: JsonDict = field(default_factory=dict)
    #: Not before this moment; moved on at every failed try.
    next_at: datetime
    attempts: int = 0
    last_error: str | None = None
    #: Kind LEG: the leg to publish. Not stored; the ledger joins it in when it reads the outbox.
    leg: Leg | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlyAnswer:
    """A tool's completion that came before its wait was opened; kept until the wait opens."""

    tool: str
    job_id: str
    #: JSON text of {"result": ...} or {"error": ...}.
    answer: str
    at: datetime
    #: The wait that consumed it.
    wait_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """What cannot go on, kept with its reason until someone replays or discards it."""

    id: str
    #: "intent" (failed, timed out), "leg" (ran out of attempts, parked) or "delivery".
    kind: str
    intent_id: str
    leg_id: str | None = None
    delivery_id: str | None = None
    code: str
    reason: str
    at: datetime
    #: OPEN, REPLAYED or DISCARDED.
    state: str = "OPEN"
    #: The new intent, when REPLAYED.
    replayed_as: str | None = None
    closed_by: str | None = None
    closed_at: datetime | None = None
    #: In the words of whoever closed it.
    closed_reason: str | None = None


class Fence(NamedTuple):
    """By which claim a writer holds a leg.

    The run alone would not do: a claim does not wait for the disk, and a database that crashes may forget it. The same
    run is then claimed by another, while the first one's worker may still be at it.
    """

    leg_id: str
    run: int
    #: The claim's own.
    token: str


class Rest(NamedTuple):
    """What is still open of an intent that ends: its legs and joins are CANCELED, however many they are."""

    intent_id: str
    at: datetime
    error: JsonDict | None = None
    #: Whether legs that its tasks called end with it.
    called_too: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """All that one decision writes, committed together or not at all.

    It says what it was decided on, and the ledger refuses it (``StaleChange``)
    when that no longer holds:

    - ``intent`` is written where the stored seq still is ``before``;
    - a leg pair (was, now) is written where status, run and token still are as in ``was``, a wait or join pair where its
      status is;
    - ``fence`` demands that this claim still is the RUNNING one: for checkpoints.
    """

    intent: Intent | None = None
    #: The seq the decision was made on; 0 for a new intent.
    before: int = 0
    #: As loaded, so that only changed columns are written; None for a new intent.
    was: Intent | None = None
    events: tuple[Event, ...] = ()
    legs: tuple[tuple[Leg | None, Leg], ...] = ()
    waits: tuple[tuple[Wait | None, Wait], ...] = ()
    fence: Fence | None = None
    checkpoints: tuple[Checkpoint, ...] = ()
    outbox: tuple[Delivery, ...] = ()
    early: tuple[EarlyAnswer, ...] = ()
    #: Links issued (None, link), and used up (as loaded, as it is now).
    links: tuple[tuple[Link | None, Link], ...] = ()
    dead: tuple[DeadLetter, ...] = ()
    #: A dead letter closed by this: (id, state, replayed_as, closed_by, closed_reason).
    closes: tuple[tuple[str, str, str | None, str | None, str | None], ...] = ()
    #: Pipelines: joins made or passed, and those of which one more member has arrived.
    joins: tuple[tuple[Join | None, Join], ...] = ()
    counts: tuple[str, ...] = ()
    #: (join, how many members it has so far): it gets one more.
    grows: tuple[tuple[str, int], ...] = ()
    #: Everything else of the intent ends with this.
    rest: Rest | None = None
    #: (from, to): what was recorded of one leg is another's from here on.
    moves: tuple[tuple[str, str], ...] = ()
    #: Filled in by the ledger: of ``counts``, the joins that now have all their members.
    reached: tuple[str, ...] = ()
    #: False where losing the write in a database crash harms nothing: the commit need not wait for the disk.
    durable: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is to be done, as a door read it from a Celery signature."""

    task: str
    #: The signature as a JSON-able dict, with its task id and options.
    signature: JsonDict
    leg_id: str
    #: True when the caller chose the leg id: the same one twice is the same intent.
    named: bool = False
    #: JSON text of {"task", "args", "kwargs"}: the intent's payload unless another is given.
    payload: str
    #: Tells this work from any other.
    work_hash: str
    #: Not before this moment (countdown, eta).
    start_at: datetime | None = None
    deadline_seconds: float | None = None
    max_attempts: int = 5
    on_drift: str = "park"
    #: The intent's type: the task's name unless the task says otherwise.
    type: str = ""
    #: True when a chord of Celery's own waits for it.
    in_chord: bool = False
    #: URL told of the intent's end, unless the submitter names one.
    notify: str | None = None
    #: A pipeline's legs and joins; the fields above are then those of its first task.
    legs: tuple[Leg, ...] = ()
    joins: tuple[Join, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's right to run a leg: which leg, which run."""

    leg_id: str
    run: int


@dataclass(frozen=True, slots=True)
class Timer:
    """A moment at which a wait, a leg or an intent must be looked at."""

    #: "wait", "leg" or "intent".
    kind: str
    id: str
    #: Aware UTC, by the ledger's clock.
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a leg says it is; kept in the tracker only."""

    done: float
    total: float | None
    note: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class LegRecord:
    """A leg with all that was recorded of it, read together."""

    intent: Intent
    leg: Leg
    checkpoints: tuple[Checkpoint, ...] = ()
    waits: tuple[Wait, ...] = ()


@dataclass(frozen=True, slots=True)
class JoinRecord:
    """A join with its intent, read together."""

    intent: Intent
    join: Join


@dataclass(frozen=True, slots=True)
class WaitRecord:
    """A wait with its leg and intent, read together."""

    intent: Intent
    leg: Leg
    wait: Wait


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided: the value of ``wait_for_human``."""

    outcome: str
    by: str | None
    comment: str | None
    #: Form data, as given.
    data: Any
    decided_at: datetime | None
    #: [{"by", "outcome", "comment", "at"}]: everybody's, where several were needed.
    votes: tuple[JsonDict, ...] = ()

    @property
    def approved(self) -> bool:
        """True for the outcomes that say yes (approved, confirmed, override_approved)."""
        return self.outcome in {"approved", "confirmed", "override_approved"}

    @property
    def changes_requested(self) -> bool:
        """True when they want to see it again, changed; ``comment`` says how."""
        return self.outcome == "changes_requested"
