"""Links in notices: from a mail to the page of one wait, for one person, without a login.

A link's secret is 256 random bits. It is kept nowhere: the ledger has its SHA-256, and says for which wait, which
recipient and which outcomes it is good, and whether to decide or only to look. Looking at it changes nothing, however
often and whoever does (mail scanners open every link). An answer by it uses it up in the same transaction. It loses its
meaning when the wait closes, and shows nothing any more once the wait is somebody else's.

A link leads to ``<axme_base_url>/a/<secret>``.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from . import answer as answers
from . import lifecycle
from .desk import Link, LinkState
from .errors import BadInput, LinkInvalid, NotFound
from .model import Change, Intent, WaitKind, WaitRecord, WaitStatus
from .ports import Runtime

#: How a secret begins, so that scanners and people recognise one that leaked.
PREFIX = "axa_"
#: Where links lead to, below ``axme_base_url``.
PATH = "/a/"
#: A link is good for no longer than this, however long its wait; each reminder brings a new one.
LONGEST = timedelta(days=30)
PURPOSES = ("decide", "view")


@dataclass(frozen=True)
class Linked:
    """What a link leads to."""

    link: Link
    record: WaitRecord
    #: Why nothing can be decided by it now: "used", "closed", "view_only", or why its recipient may not; None: it can.
    hindrance: str | None


def issue(
    rt: Runtime, wait_id: str, recipient: str, *, purpose: str = "decide", outcomes: Sequence[str] | None = None
) -> str:
    """A new link's secret, this once. Never write it to a log.

    recipient: one the wait is for; who answers by the link answers as them.
    purpose:   "decide", or "view".
    outcomes:  what may be answered by it; all of the wait's, unless given.

    Raises NotFound, BadInput for a wait that is for no person, is closed, or is not for this recipient.
    """
    record = rt.ledger.wait(wait_id)
    if record is None:
        raise NotFound("wait", wait_id)
    wait = record.wait
    if purpose not in PURPOSES:
        raise BadInput(f"purpose is {purpose!r}; use 'decide' or 'view'")
    if wait.kind is not WaitKind.HUMAN or wait.status is not WaitStatus.OPEN or recipient not in wait.to:
        raise BadInput(f"wait {wait_id} is not open for {recipient!r}")
    allowed = tuple(wait.request["outcomes"] if outcomes is None else outcomes)
    if not set(allowed) <= set(wait.request["outcomes"]):
        raise BadInput(f"outcomes are {allowed!r}; wait {wait_id} has {', '.join(wait.request['outcomes'])}")
    secret, now = PREFIX + secrets.token_urlsafe(32), rt.ledger.now()
    link = Link(
        hash=_hash(secret), wait_id=wait.id, intent_id=wait.intent_id, recipient=recipient, purpose=purpose,
        outcomes=allowed if purpose == "decide" else (), created_at=now, expires_at=now + LONGEST,
    )  # fmt: skip
    rt.ledger.commit(Change(links=((None, link),)))
    return secret


def url(rt: Runtime, secret: str) -> str | None:
    """Where the link leads to; None without ``axme_base_url``."""
    base = rt.settings.base_url
    return None if base is None else f"{base.rstrip('/')}{PATH}{secret}"


def look_up(rt: Runtime, secret: str) -> Linked:
    """What a link leads to. Changes nothing.

    Raises LinkInvalid for what is no link, one that has run out, and one whose wait is somebody else's now: the same
    for all of them.
    """
    link = rt.ledger.desks.link(_hash(secret)) if secret.startswith(PREFIX) else None
    if link is None or link.state is LinkState.REVOKED or link.expires_at <= rt.ledger.now():
        raise LinkInvalid("unknown")
    record = rt.ledger.wait(link.wait_id)
    if record is None:
        raise LinkInvalid("unknown")
    return Linked(link, record, _hindrance(link, record))


def answer(
    rt: Runtime,
    secret: str,
    outcome: str,
    *,
    comment: str | None = None,
    data: Any = None,
    expected_hash: str | None = None,
) -> Intent:
    """Answer the link's wait as its recipient, and use the link up; both or neither.

    The same answer again is told that it stands. Raises LinkInvalid, and what ``answer`` raises.
    """
    linked = look_up(rt, secret)
    link = linked.link
    if link.purpose != "decide":
        raise LinkInvalid("view_only")
    if outcome not in link.outcomes:
        raise BadInput(f"outcome {outcome!r} is not one of this link's: {', '.join(link.outcomes)}")
    return answers.answer(
        rt, link.wait_id, outcome, by=link.recipient, comment=comment, data=data, groups=(),
        expected_hash=expected_hash, via="link", link=link,
    )  # fmt: skip


def _hindrance(link: Link, record: WaitRecord) -> str | None:
    if record.wait.status is not WaitStatus.OPEN:
        return "closed"
    if link.state is not LinkState.OPEN:
        return "used"
    if link.purpose != "decide":
        return "view_only"
    refusal = lifecycle.may_answer(record.wait, (), link.recipient)
    return None if refusal is None else refusal.code


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


__all__ = ["PATH", "Linked", "answer", "issue", "look_up", "url"]
