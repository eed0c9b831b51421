"""A wait passed on to other people, or given more time. It stays open; its history says who did it and why."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from ..errors import BadInput, NotAllowed, WaitClosed
from ..model import Change, Intent, Wait, WaitKind, WaitRecord, WaitStatus
from ..texts import folded
from .moves import Occasion, Story
from .nudges import due
from .outgoing import notice_delivery, present, text_of
from .voters import barred, may_answer


def delegate(
    record: WaitRecord, to: str, *, by: str, names: Collection[str] | None, reason: str | None, on: Occasion
) -> Change:
    """Somebody who may answer leaves that to another. They cannot answer themselves any more.

    Where the wait names them they are replaced; where they are one of a group that it names, the other is added.
    Raises WaitClosed, NotAllowed for who may not give it away and for whom it may not be given to, BadInput.
    """
    wait = record.wait
    open_for_people(wait)
    refusal = may_answer(wait, names, by)
    if refusal is not None:
        raise NotAllowed(f"{by} may not delegate: {refusal.reason}", refusal.code)
    allowed = wait.request.get("delegates", True)
    if allowed is not True and to not in (allowed or ()):
        whom = f"only to {', '.join(allowed)}" if allowed else "to nobody"
        raise NotAllowed(f"wait {wait.id} may be delegated {whom}, not to {to}", "not_delegable")
    if folded(to) in barred(wait) | {folded(by)}:
        raise NotAllowed(f"{to} may not answer wait {wait.id}, so it cannot be delegated to them", "not_delegable")
    if to in wait.to:
        raise BadInput(f"wait {wait.id} is for {to} already; there is nothing to delegate")
    owners = tuple(to if name == by else name for name in wait.to) if by in wait.to else (*wait.to, to)
    given = present(by=by, to=to, reason=reason, at=text_of(on.now))
    passed = replace(wait, to=owners, delegations=(*wait.delegations, given))
    story = Story(record.intent, on.now)
    story.tell(
        "intent.delegated", actor=by, leg_id=wait.leg_id, wait_id=wait.id, to=to, reason=reason,
        pending_with=list(owners),
    )  # fmt: skip
    notice = notice_delivery(story.intent, passed, "delegated", (to,), on)
    return story.change(waits=((wait, passed),), outbox=(notice,))


def reassign(record: WaitRecord, to: tuple[str, ...], *, by: str, reason: str | None, on: Occasion) -> Change:
    """An operator puts others in the place of everybody the wait was for. Votes that were given stay."""
    wait = record.wait
    open_for_people(wait)
    if set(to) == set(wait.to):
        raise BadInput(f"wait {wait.id} is for {', '.join(to)} already")
    if all(folded(name) in barred(wait) for name in to):
        raise NotAllowed(f"none of {', '.join(to)} may answer wait {wait.id}; name somebody who may", "excluded")
    passed = replace(wait, to=to)
    story = Story(record.intent, on.now)
    story.tell(
        "intent.reassigned", actor=by, leg_id=wait.leg_id, wait_id=wait.id, to=list(to), was=list(wait.to),
        reason=reason, pending_with=list(to),
    )  # fmt: skip
    added = tuple(name for name in to if name not in wait.to)
    outbox = (notice_delivery(story.intent, passed, "reassigned", added, on),) if added else ()
    return story.change(waits=((wait, passed),), outbox=outbox)


def extend_wait(record: WaitRecord, until: datetime, *, by: str, reason: str | None, on: Occasion) -> Change:
    """The wait times out later. Raises WaitClosed, BadInput where it has no timeout, or one that is later anyway."""
    wait = record.wait
    if wait.status is not WaitStatus.OPEN:
        raise WaitClosed(wait.id, wait.status.value, wait.closed_at, wait.answered_by)
    if wait.kind is WaitKind.TIME or wait.timeout_at is None:
        raise BadInput(f"wait {wait.id} has no timeout that could be put off: {wait.title}")
    _later(until, wait.timeout_at, f"wait {wait.id}", on)
    wanted = until if wait.wanted_at == wait.timeout_at else wait.wanted_at
    longer = replace(wait, timeout_at=until, wanted_at=wanted)
    longer = replace(longer, due_at=due(longer))
    story = Story(record.intent, on.now)
    story.tell(
        "intent.extended", actor=by, leg_id=wait.leg_id, wait_id=wait.id, timeout_at=text_of(until),
        was=text_of(wait.timeout_at), reason=reason,
    )  # fmt: skip
    return story.change(waits=((wait, longer),))


def extend_intent(intent: Intent, until: datetime, *, by: str, reason: str | None, on: Occasion) -> Change:
    """The intent's deadline is later. Raises IntentEnded, BadInput where it has none, or one that is later anyway."""
    story = Story(intent, on.now)
    story.tell("intent.extended", actor=by, deadline_at=text_of(until), was=text_of(intent.deadline_at), reason=reason)
    if intent.deadline_at is None:
        raise BadInput(f"intent {intent.id} has no deadline that could be put off")
    _later(until, intent.deadline_at, f"intent {intent.id}", on)
    story.intent = replace(story.intent, deadline_at=until)
    return story.change()


def open_for_people(wait: Wait) -> None:
    """Raises BadInput for a wait that is for no person, WaitClosed for a closed one."""
    if wait.kind is not WaitKind.HUMAN:
        raise BadInput(f"wait {wait.id} is for a {wait.kind.value.lower()}, not for a person: {wait.title}")
    if wait.status is not WaitStatus.OPEN:
        raise WaitClosed(wait.id, wait.status.value, wait.closed_at, wait.answered_by)


def _later(until: datetime, than: datetime, what: str, on: Occasion) -> None:
    if until <= max(than, on.now):
        raise BadInput(
            f"{what} ends at {than:%Y-%m-%d %H:%M:%S}Z; it can be extended to a later moment that is still to come, "
            f"not to {until:%Y-%m-%d %H:%M:%S}Z"
        )
