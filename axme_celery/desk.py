"""What lies on people's desks: the links that lead them to a wait, and what they look for in an inbox."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class LinkState(StrEnum):
    """A link decides once, and not when its wait has closed."""

    OPEN = "OPEN"
    USED = "USED"  # its bearer has answered with it
    REVOKED = "REVOKED"  # the wait is somebody else's now; it shows nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A link in a notice: good for one recipient, one wait, and what it says. Its secret is kept nowhere."""

    #: SHA-256 of the secret, in hex.
    hash: str
    wait_id: str
    intent_id: str
    #: The assignee it was sent to, who answers by it.
    recipient: str
    #: "decide", or "view".
    purpose: str
    #: What may be answered by it.
    outcomes: tuple[str, ...] = ()
    state: LinkState = LinkState.OPEN
    created_at: datetime
    expires_at: datetime
    closed_at: datetime | None = None


#: What an inbox may be sorted by.
SORTS = ("due", "opened", "newest")


@dataclass(frozen=True, kw_only=True)
class InboxQuery:
    """Which waits, in which order."""

    #: A person's id, and all their names (id and groups); no names: everybody's waits, whoever may answer them.
    by: str = ""
    names: frozenset[str] = frozenset()
    #: Only of intents of this type, with this tag, of this owner.
    type: str | None = None
    tag: str | None = None
    owner: str | None = None
    #: Only of this human task type.
    task_type: str | None = None
    #: Only those whose answer was wanted before this moment.
    overdue_at: datetime | None = None
    #: "due": overdue first, then as they are wanted; "opened": oldest first; "newest": newest first.
    sort: str = "due"
    #: Closed ones instead of open ones, last closed first.
    closed: bool = False


__all__ = ["SORTS", "InboxQuery", "Link", "LinkState"]
