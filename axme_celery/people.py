"""What people and operators do with waits, as ``Axme`` offers it: answer, delegate, reassign, extend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from . import answer, bulk, handover, inbox
from .durations import Duration
from .handle import IntentHandle
from .ports import Runtime


class People(ABC):
    """The part of ``Axme`` that is for people. Everywhere ``wait`` is a wait, its id, or the id of an intent with
    exactly one open human wait.

    ``by`` is who does it. Your own code vouches for them. Where a caller only knows who somebody is, it gives their
    ``groups`` too (perhaps none): then they must be among those the wait is for.
    """

    @property
    @abstractmethod
    def runtime(self) -> Runtime:
        """What the verbs work with."""

    def answer(
        self,
        wait: Any,
        outcome: str,
        *,
        by: str,
        comment: str | None = None,
        data: Any = None,
        groups: Collection[str] | None = None,
        expected_hash: str | None = None,
        via: str | None = None,
    ) -> IntentHandle:
        """A person's answer to a human wait. The first committed answer wins.

        expected_hash: ``wait.payload_hash`` as it was when the person was shown the wait.
        via:           how you know who they are; kept in the history.

        Raises WaitClosed (who and when) for a closed wait, NotAllowed, ShownChanged when they saw something else than
        what the wait shows now, BadInput.
        """
        return self._handled(
            answer.answer(
                self.runtime, _id(wait), outcome, by=by, comment=comment, data=data, groups=groups,
                expected_hash=expected_hash, via=via,
            )
        )  # fmt: skip

    def answer_many(
        self,
        waits: Sequence[Any],
        outcome: str,
        *,
        by: str,
        comment: str | None = None,
        groups: Collection[str] | None = None,
    ) -> list[bulk.Row]:
        """One answer to many waits of one kind that were opened with ``bulk=True``; each is decided on its own.

        Returns a row for each, in order, with what became of it: ``error`` is None where the answer was taken.
        Raises BadInput for waits of several kinds, for more than 200, or twice the same.
        """
        return bulk.answer(self.runtime, [_id(w) for w in waits], outcome, by=by, comment=comment, groups=groups)

    def delegate(
        self, wait: Any, to: str, *, by: str, reason: str | None = None, groups: Collection[str] | None = None
    ) -> IntentHandle:
        """Who may answer leaves that to somebody else, and cannot answer any more.

        Raises WaitClosed, NotAllowed (they may not answer, or may not delegate to this one), BadInput.
        """
        return self._handled(handover.delegate(self.runtime, _id(wait), to, by=by, reason=reason, groups=groups))

    def reassign(self, wait: Any, to: str | Sequence[str], *, by: str, reason: str | None = None) -> IntentHandle:
        """Put others in the place of everybody the wait is for: an operator's verb. Raises WaitClosed, NotAllowed, BadInput."""
        return self._handled(handover.reassign(self.runtime, _id(wait), to, by=by, reason=reason))

    def extend(
        self,
        wait_or_intent: Any,
        duration: Duration | None = None,
        *,
        until: datetime | str | None = None,
        by: str,
        reason: str | None = None,
    ) -> IntentHandle:
        """Put off a wait's timeout, or an intent's deadline, by ``duration`` or ``until`` a moment.

        Raises WaitClosed or IntentEnded when it is too late, BadInput where there is no timeout or deadline.
        """
        return self._handled(
            handover.extend(self.runtime, _id(wait_or_intent), duration, until=until, by=by, reason=reason)
        )

    def inbox(
        self,
        by: str | None = None,
        *,
        groups: Collection[str] = (),
        type: str | None = None,
        task_type: str | None = None,
        tag: str | None = None,
        overdue: bool = False,
        sort: str = "due",
        closed: bool = False,
        after: str | None = None,
        limit: int = 50,
    ) -> inbox.Page:
        """The open waits that somebody may answer, overdue ones first: one page, with ``items`` and ``next``.

        by, groups: whose; everybody's, without.
        type, tag:  only of intents of this type, with this tag.
        task_type:  only of this kind ("approval", "form", ...).
        overdue:    only those whose answer was wanted before now.
        sort:       "due" (overdue first, then as they are wanted), "opened" (oldest first) or "newest".
        closed:     those that have closed instead, last closed first.
        after:      ``next`` of the page before.
        limit:      at most so many, up to 200.

        Raises BadInput.
        """
        wanted = inbox.query(
            self.runtime, by, groups, type=type, task_type=task_type, tag=tag, overdue=overdue, sort=sort, closed=closed
        )
        return inbox.page(self.runtime, wanted, after=after, limit=limit)

    def _handled(self, record: Any) -> IntentHandle:
        return IntentHandle(self.runtime, record)


def _id(thing: Any) -> str:
    return thing if isinstance(thing, str) else str(thing.id)
