"""An intent as its submitter holds it: a snapshot, and the ways to look again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from . import submit
from .errors import IntentCanceled, IntentFailed, IntentTimedOut, NotFound, TrackerUnavailable
from .graph import Join
from .model import Checkpoint, Event, Intent, JsonDict, Leg, Progress, Status, Wait
from .ports import Runtime

#: A listener looks at the ledger at least this often, told or not.
LOOK_SECONDS = 1.0


class IntentHandle:
    """A snapshot of one intent. ``refresh()`` takes a new one."""

    def __init__(self, rt: Runtime, record: Intent) -> None:
        self._rt = rt
        self._record = record

    def __repr__(self) -> str:
        return f"<Intent {self.id} {self.type} {self.status} seq={self.seq}>"

    @property
    def id(self) -> str:
        return self._record.id

    @property
    def type(self) -> str:
        return self._record.type

    @property
    def status(self) -> Status:
        return self._record.status

    @property
    def waiting_reason(self) -> str | None:
        return self._record.waiting_reason

    @property
    def seq(self) -> int:
        return self._record.seq

    @property
    def key(self) -> str | None:
        return self._record.key

    @property
    def tags(self) -> tuple[str, ...]:
        return self._record.tags

    @property
    def requester(self) -> str | None:
        return self._record.requester

    @property
    def correlation_id(self) -> str | None:
        return self._record.correlation_id

    @property
    def replay_of(self) -> str | None:
        return self._record.replay_of

    @property
    def deadline_at(self) -> datetime | None:
        return self._record.deadline_at

    @property
    def created_at(self) -> datetime:
        return self._record.created_at

    @property
    def updated_at(self) -> datetime:
        return self._record.updated_at

    @property
    def ended_at(self) -> datetime | None:
        return self._record.ended_at

    @property
    def payload(self) -> Any:
        """What was submitted: {"task", "args", "kwargs"}, unless a payload was given."""
        return self._rt.codec.decode(self._record.payload)

    @property
    def result(self) -> Any:
        """The result, once COMPLETED; else None."""
        return None if self._record.result is None else self._rt.codec.decode(self._record.result)

    @property
    def error(self) -> JsonDict | None:
        """{"code", "message", ...} of an intent that ended otherwise."""
        return self._record.error

    @property
    def url(self) -> str | None:
        """Its page, where ``axme_base_url`` is set."""
        base = self._rt.settings.base_url
        return None if base is None else f"{base.rstrip('/')}/intents/{self.id}"

    def refresh(self) -> IntentHandle:
        """Take a new snapshot, in place. Raises NotFound when it was pruned."""
        record = self._rt.ledger.intent(self.id)
        if record is None:
            raise NotFound("intent", self.id)
        self._record = record
        return self

    def wait(self, timeout: float | None = None) -> Any:
        """Its result, as soon as it has one.

        Raises IntentFailed, IntentCanceled or IntentTimedOut when it ended otherwise, TimeoutError when it has not
        ended after ``timeout`` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while not self.refresh().status.is_final:
            left = LOOK_SECONDS if until is None else min(LOOK_SECONDS, until - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"intent {self.id} is still {self.status.value} after {timeout:g} seconds")
            if until is None:
                self._rt.before_waiting(self.id, self.seq)
            self.listen(left)
        return self._outcome()

    def events(self, since: int = 0) -> list[Event]:
        """Its history after seq ``since``, in order."""
        found: list[Event] = []
        while page := self._rt.ledger.events(self.id, since, 1000):
            found += page
            since = page[-1].seq
        return found

    def follow(self, since: int = 0) -> Iterator[Event]:
        """Its history after seq ``since``, and then live, until it has ended."""
        while True:
            final = self.refresh().status.is_final
            for event in self.events(since):
                yield event
                since = event.seq
            if final and since >= self.seq:
                return
            self._rt.before_waiting(self.id, self.seq)
            self.listen(LOOK_SECONDS)

    def legs(self) -> list[Leg]:
        """Its legs, in the order of its canvas."""
        return self._rt.ledger.legs(self.id)

    def joins(self) -> list[Join]:
        """Where legs of its pipeline come together, in the order of its canvas."""
        return self._rt.ledger.joins(self.id)

    def steps(self) -> list[Checkpoint]:
        """The recorded steps of its legs, in the order they were first asked for."""
        return self._rt.ledger.checkpoints(self.id)

    def waits(self) -> list[Wait]:
        """Its waits, open and closed, in the order they were opened."""
        return self._rt.ledger.waits(self.id)

    def progress(self) -> dict[str, Progress]:
        """How far its legs say they are, by leg id. Kept in the tracker only; may be empty."""
        try:
            return self._rt.tracker.progress([leg.id for leg in self.legs()])
        except TrackerUnavailable:
            return {}

    def cancel(self, reason: str, by: str | None = None) -> IntentHandle:
        """End it as CANCELED. Raises IntentEnded when it has ended already."""
        self._record = submit.cancel(self._rt, self.id, reason=reason, by=by)
        return self

    def listen(self, seconds: float) -> None:
        """Rest until it may have moved on, or for so long."""
        try:
            self._rt.tracker.listen(self.id, seconds, self.seq)
        except TrackerUnavailable:
            time.sleep(min(seconds, 0.2))

    def _outcome(self) -> Any:
        if self.status is Status.COMPLETED:
            return self.result
        error = self.error or {}
        ended = {Status.CANCELED: IntentCanceled, Status.TIMED_OUT: IntentTimedOut}.get(self.status, IntentFailed)
        raise ended(self.id, str(error.get("code", "unknown")), str(error.get("message", self.status.value)))
