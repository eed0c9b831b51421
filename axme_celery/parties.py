"""Who takes part from outside Celery: agents, their addresses, and what lies in their mailboxes.

An address is ``agent://org/workspace/name``; two parts and a bare name are addresses too. It is kept in one form, with
its scheme, so that whoever writes it with or without is the same agent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from .errors import BadInput

SCHEME = "agent://"
#: How long an address may be, with its scheme.
LONGEST = 383
_PART = r"[A-Za-z0-9][A-Za-z0-9._@+~-]*"
_ADDRESS = re.compile(rf"{_PART}(?:/{_PART}){{0,7}}")
_PATTERN = re.compile(r"[A-Za-z0-9._@+~/*?\[\]-]+")

#: How an agent is told of its intents.
MODES = ("stream", "poll", "http", "inbox", "internal")


def address(given: object, what: str = "address") -> str:
    """An agent's address in its one form. Raises BadInput."""
    if isinstance(given, str):
        bare = given.removeprefix(SCHEME).strip("/")
        if len(bare) + len(SCHEME) <= LONGEST and _ADDRESS.fullmatch(bare):
            return SCHEME + bare
    shown = repr(given)
    raise BadInput(
        f"{what} is {shown if len(shown) <= 80 else shown[:77] + '...'}; it is an agent's address such as "
        f"'agent://org/workspace/name' (letters, digits and . _ @ + ~ - in each part, at most {LONGEST} characters)"
    )


def is_address(task: str) -> bool:
    """Whether what a leg names is an agent's address, and no Celery task."""
    return task.startswith(SCHEME)


@dataclass(frozen=True, slots=True)
class Policy:
    """Whom an agent may send to, or receive from."""

    #: "open" (everybody), "allowlist", "denylist" or "closed" (nobody).
    mode: str = "open"
    #: Addresses, also as patterns: "agent://acme/*".
    entries: tuple[str, ...] = ()

    @classmethod
    def read(cls, kept: dict[str, Any]) -> Policy:
        """As the ledger keeps it."""
        return cls(kept["mode"], tuple(kept["entries"]))

    def allows(self, other: str | None) -> bool:
        """Whether this one is among whom it allows. ``None``: somebody who is no agent."""
        listed = other is not None and any(fnmatchcase(other, entry) for entry in self.entries)
        return {"open": True, "allowlist": listed, "denylist": not listed}.get(self.mode, False)


def policy(mode: object, entries: object = ()) -> Policy:
    """A policy, checked. Raises BadInput."""
    if mode not in ("open", "allowlist", "denylist", "closed"):
        raise BadInput(f"mode is {str(mode)[:40]!r}; it is open, allowlist, denylist or closed")
    if not isinstance(entries, list | tuple) or len(entries) > 1000:
        raise BadInput("entries is a list of at most 1000 addresses or patterns")
    kept = []
    for entry in entries:
        bare = entry.removeprefix(SCHEME) if isinstance(entry, str) else ""
        if not bare or len(bare) > LONGEST or not _PATTERN.fullmatch(bare):
            raise BadInput(f"entry {str(entry)[:80]!r} is no address or pattern such as 'agent://acme/*'")
        kept.append(SCHEME + bare)
    return Policy(str(mode), tuple(dict.fromkeys(kept)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Agent:
    """Somebody outside Celery who is sent intents."""

    address: str
    owner: str | None = None
    display_name: str | None = None
    #: "active", "suspended" (is handed nothing) or "deleted".
    status: str = "active"
    #: One of MODES. "http": each of its intents is also pushed to ``callback_url``.
    delivery_mode: str = "stream"
    callback_url: str | None = None
    #: Number of the last thing put into its mailbox.
    cursor: int = 0
    send: Policy = field(default_factory=Policy)
    receive: Policy = field(default_factory=Policy)
    created_at: datetime
    updated_at: datetime
    #: When it last listened or asked.
    seen_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One run of a leg, lying in an agent's mailbox until somebody takes it."""

    agent: str
    #: The agent's own count: what its listeners resume from.
    seq: int
    intent_id: str
    leg_id: str
    run: int
    at: datetime


@dataclass(frozen=True, slots=True)
class HandOut:
    """An offer that was taken: the intent is this listener's until the lease ends."""

    offer: Offer
    #: As it is now, handed out.
    intent: Any
    leg: Any


@dataclass(frozen=True, slots=True)
class Addressed:
    """Work for whoever has this address: the task bound to it, or an agent outside Celery."""

    address: str
    payload: Any = None
    type: str | None = None
    #: How often it is handed out before it fails as ``delivery_failed``.
    max_attempts: int | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that came before under the same key, and what was answered; nothing while that is under way."""

    body_hash: str
    status: int | None
    answer: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """Something written about an intent that is no event of its life: a reply in its thread."""

    id: str
    intent_id: str
    event_type: str
    actor: str | None
    details: dict[str, Any]
    at: datetime


__all__ = [
    "LONGEST", "MODES", "SCHEME", "Addressed", "Agent", "Answered", "HandOut", "Message", "Offer", "Policy",
    "address", "is_address", "policy",
]  # fmt: skip
