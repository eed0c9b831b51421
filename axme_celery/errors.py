"""Every exception of the package: what happened, to what, and what to do next.

Catch ``AxmeError``. Do not catch ``LegInterrupt``: it is how a leg leaves its
task body (to wait, to be handed on, because it was canceled), and it is a
``BaseException`` so that a task's own ``except Exception`` cannot swallow it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

#: How long the words made of arguments are at most: as much as the ledger keeps of any exception's words and arguments,
#: so that one made again from there says the same.
WORDS_CHARACTERS = 2000


class AxmeError(Exception):
    """The one base to catch.

    ``args`` are what the class is made of, as plain values: a pool's child, Celery's result backend and the ledger hand
    an exception on as its class and these, and it is made again by them. The words are made of them when asked for.
    """

    #: The words for these arguments; None says them as they are.
    _words: ClassVar[Callable[..., str] | None] = None

    def __str__(self) -> str:
        try:
            return self._words(*self.args)[:WORDS_CHARACTERS] if self._words else super().__str__()
        except TypeError:
            # Kept by an earlier version, whose only argument was the words.
            return super().__str__()


def _iso(moment: datetime | str | None) -> str | None:
    """As text, which every serializer can keep."""
    return moment.isoformat() if isinstance(moment, datetime) else moment


def _moment(given: datetime | str | None) -> datetime | None:
    return datetime.fromisoformat(given) if isinstance(given, str) else given


def _said(preposition: str, given: datetime | str | None) -> str:
    moment = _moment(given)
    return f" {preposition} {moment:%Y-%m-%d %H:%M:%S}Z" if moment else ""


# -- refusals: what was asked for cannot be accepted, and nothing was stored --


class BadInput(AxmeError, ValueError):
    """An argument is refused; the message names it, the limit and the way out."""


class BadSetting(BadInput):
    """An ``axme_*`` setting is unknown or has a value that cannot work."""


class NotJson(BadInput):
    """A payload, result or answer cannot be kept as JSON."""


class TooLarge(BadInput):
    """A payload or result is over its limit.

    Raise the limit named in the message, or store the data elsewhere and pass a reference.
    """

    def __init__(self, what: str, size_bytes: int, limit_bytes: int, setting: str) -> None:
        super().__init__(what, size_bytes, limit_bytes, setting)
        #: What was too large, in words that name it ("result of step 'fetch'").
        self.what = what
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes

    @staticmethod
    def _words(what: str, size_bytes: int, limit_bytes: int, setting: str) -> str:
        return (
            f"{what} is {size_bytes} bytes, over the limit of {limit_bytes}; "
            f"raise {setting}, or keep the data elsewhere and pass a reference to it"
        )


class UnsupportedWork(BadInput):
    """``submit`` was given work it cannot carry; the message names the node and why."""


class KeyConflict(AxmeError):
    """The same submit key came with other work; the first intent is untouched."""

    def __init__(self, key: str, intent_id: str) -> None:
        super().__init__(key, intent_id)
        self.key = key
        #: The intent that holds the key.
        self.intent_id = intent_id

    @staticmethod
    def _words(key: str, intent_id: str) -> str:
        return (
            f"key {key!r} already belongs to intent {intent_id}, which was submitted with other work; "
            f"use another key, or submit exactly the same work to get that intent back"
        )


class NotFound(AxmeError, LookupError):
    """No such intent, leg, wait or dead letter in this ledger."""

    def __init__(
        self,
        what: str,
        id: str,
        hint: str = "check the id, and that this process uses the same axme_ledger_url",
    ) -> None:
        super().__init__(what, id, hint)
        self.what = what
        self.id = id

    @staticmethod
    def _words(what: str, id: str, hint: str) -> str:
        return f"no {what} {id} in this ledger; {hint}"


class WaitClosed(AxmeError):
    """An answer came for a wait that is no longer open. Nothing was changed."""

    def __init__(
        self, wait_id: str, status: str, closed_at: datetime | str | None, closed_by: str | None, kept: bool = False
    ) -> None:
        super().__init__(wait_id, status, _iso(closed_at), closed_by, kept)
        #: The wait that was addressed.
        self.wait_id = wait_id
        #: ANSWERED, EXPIRED or CANCELED: how it closed first.
        self.status = status
        #: When it closed, UTC. The late approver is shown this.
        self.closed_at = _moment(closed_at)
        #: Who closed it, where a person or program did.
        self.closed_by = closed_by
        #: True for a tool's report of a job that was given up: should its intent be replayed, it is there.
        self.kept = kept

    @staticmethod
    def _words(wait_id: str, status: str, closed_at: str | None, closed_by: str | None, kept: bool = False) -> str:
        who = f" by {closed_by}" if closed_by else ""
        then = "the report is kept for a wait that opens later" if kept else "nothing was changed"
        return f"wait {wait_id} was already {status.lower()}{who}{_said('at', closed_at)}; {then}"


class NotAllowed(AxmeError):
    """This person may not do this: not answer (asked for it, has voted, is in ``not_by``), not delegate, ..."""

    def __init__(self, message: str, why: str = "not_allowed") -> None:
        super().__init__(message, why)
        #: The cause in a word: "excluded", "voted", "delegated", "not_assigned", "not_delegable", ...
        self.why = why

    @staticmethod
    def _words(message: str, why: str = "") -> str:
        return message


class ShownChanged(AxmeError):
    """What the person was shown is not what they would decide on now. Nothing was changed: show it anew, and ask again."""

    def __init__(self, wait_id: str, expected: str | None, current: str) -> None:
        super().__init__(wait_id, expected, current)
        self.wait_id = wait_id
        #: The hash the answer was given for; None when the wait no longer is what it was opened with.
        self.expected = expected
        #: The hash of what the wait shows now.
        self.current = current

    @staticmethod
    def _words(wait_id: str, expected: str | None, current: str) -> str:
        return (
            f"what wait {wait_id} shows has changed since it was "
            f"{'opened' if expected is None else 'shown'}: it is {current[:12]}... now, "
            f"not {(expected or 'what it was')[:12]}...; nothing was changed, look at it again"
        )


class LinkInvalid(AxmeError):
    """A link in a notice is not good, or not for this. Nothing was changed."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        #: "unknown" (also: revoked, run out), "used", "closed" or "view_only".
        self.why = why

    @staticmethod
    def _words(why: str) -> str:
        return {
            "used": "this link has been used; the answer that was given by it stands",
            "closed": "what this link leads to is closed",
            "view_only": "this link shows and does not decide: sign in to answer",
        }.get(why, "this link is not good, or no longer: sign in, or ask for another")


class IntentEnded(AxmeError):
    """The intent is already in a final state, which never changes."""

    def __init__(
        self,
        intent_id: str,
        status: str,
        ended_at: datetime | str | None,
        hint: str = "an ended intent never changes",
    ) -> None:
        super().__init__(intent_id, status, _iso(ended_at), hint)
        self.intent_id = intent_id
        self.status = status
        self.ended_at = _moment(ended_at)

    @staticmethod
    def _words(intent_id: str, status: str, ended_at: str | None, hint: str) -> str:
        return f"intent {intent_id} ended {status}{_said('at', ended_at)}; {hint}"


class HandledByQueue(AxmeError):
    """Celery tasks are running this intent: nobody outside may say that it is done."""

    def __init__(self, intent_id: str) -> None:
        super().__init__(intent_id)
        self.intent_id = intent_id

    @staticmethod
    def _words(intent_id: str) -> str:
        return f"intent {intent_id} is run by Celery tasks, which complete it; cancel it or fail it, but do not complete it"


class StaleGeneration(AxmeError):
    """The policy was changed by somebody else meanwhile. Nothing was changed."""

    def __init__(self, intent_id: str, expected: int, generation: int) -> None:
        super().__init__(intent_id, expected, generation)
        #: What it is now.
        self.generation = generation

    @staticmethod
    def _words(intent_id: str, expected: int, generation: int) -> str:
        return f"intent {intent_id} has policy generation {generation}, not {expected}; read it again, then decide anew"


class OutsideIntent(AxmeError):
    """A wait or ``current_intent`` was used where no intent's leg is running."""

    @staticmethod
    def _words(what: str) -> str:
        return (
            f"{what} works only inside a leg of an intent; "
            f"call the task with .delay() of an @axme.task, or axme.submit(...), and let a worker run it"
        )


# -- how an intent can end, raised by Intent.wait() and inside a parent's leg --


class IntentNotCompleted(AxmeError):
    """The intent ended without a result."""

    def __init__(self, intent_id: str, code: str, message: str) -> None:
        super().__init__(intent_id, code, message)
        self.intent_id = intent_id
        #: Short machine-readable cause: an exception's class name, "worker_lost", "wait_timeout", "rejected", ...
        self.code = code
        #: The cause in words.
        self.message = message

    @staticmethod
    def _words(intent_id: str, code: str, message: str) -> str:
        return f"intent {intent_id}: {message} [{code}]"


class IntentFailed(IntentNotCompleted):
    """It failed; ``code`` says why."""


class IntentCanceled(IntentNotCompleted):
    """Somebody canceled it."""


class IntentTimedOut(IntentNotCompleted):
    """Its deadline passed."""


# -- raised inside a task's code, which may handle them --


class WaitTimedOut(AxmeError):
    """A wait's timeout passed with no answer and ``on_timeout="fail"``."""

    #: An intent that ends by this fails with this code.
    code = "wait_timeout"

    def __init__(self, wait_id: str, title: str, timeout_at: datetime | str | None) -> None:
        super().__init__(wait_id, title, _iso(timeout_at))
        self.wait_id = wait_id

    @staticmethod
    def _words(wait_id: str, title: str, timeout_at: str | None) -> str:
        return f"nobody answered {title!r}{_said('by', timeout_at)} (wait {wait_id})"


class ToolFailed(AxmeError):
    """The tool reported that its job failed."""

    code = "tool_failed"

    def __init__(self, tool: str, job_id: str, error: Any) -> None:
        super().__init__(tool, job_id, error)
        self.tool = tool
        self.job_id = job_id
        #: What the tool reported, as it reported it.
        self.error = error

    @staticmethod
    def _words(tool: str, job_id: str, error: Any) -> str:
        return f"{tool} job {job_id} failed: {error}"


class AgentFailed(AxmeError):
    """The intent an agent was given did not complete."""

    code = "agent_failed"

    def __init__(self, intent_id: str, error: Any) -> None:
        super().__init__(intent_id, error)
        self.intent_id = intent_id
        self.error = error

    @staticmethod
    def _words(intent_id: str, error: Any) -> str:
        return f"agent's intent {intent_id} did not complete: {error}"


class StepInterrupted(AxmeError):
    """An ``at_most_once`` step was started in an earlier run and its end is unknown.

    It is not run again. Look at the outside system, then carry on or fail.
    """

    code = "step_interrupted"

    def __init__(self, name: str, nth: int, run: int) -> None:
        super().__init__(name, nth, run)
        self.name = name
        self.nth = nth
        self.run = run

    @staticmethod
    def _words(name: str, nth: int, run: int) -> str:
        return (
            f"step {name!r} (call {nth}) was started in run {run} and its outcome is unknown; "
            f"it is at_most_once and is not run again: check the outside system, then handle StepInterrupted"
        )


class StepFailed(AxmeError):
    """A step's result could not be recorded; recorded as failed, so it does not run again."""

    code = "step_failed"

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
        self.name = name

    @staticmethod
    def _words(name: str, message: str) -> str:
        return f"step {name!r}: {message}"


# -- stores --


class LedgerUnavailable(AxmeError):
    """The ledger's database cannot be reached, or refused the write. Nothing half-done: try again."""


class LedgerNotMigrated(LedgerUnavailable):
    """The ledger's tables are missing or of another version: run ``axme-celery migrate``."""


class TrackerUnavailable(AxmeError):
    """The tracker (Redis) cannot be reached. Nothing is lost; the ledger is the truth."""


class StaleChange(AxmeError):
    """What a change was decided on no longer holds. The verb loads and decides again."""


# -- interrupts: how a leg leaves its body --


class LegInterrupt(BaseException):
    """Carries a leg out of its task body. Let it pass: if you see it, a bare ``except`` caught too much."""


class Suspended(LegInterrupt):
    """The leg now waits; it will be called again when the wait has closed."""


class LeaseLost(LegInterrupt):
    """Another run of this leg has taken over, or the intent has ended; this run may record nothing."""


class HandedBack(LegInterrupt):
    """The worker is stopping; the leg goes back to the queue and continues elsewhere. Not an attempt."""


class Drifted(LegInterrupt):
    """The code changed under a waiting intent; the leg is parked before anything new happened."""
