"""Who makes a request, and how much they may do: roles, actors, and the keys that programs (and people) show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

#: How the "hash" of a session's record begins: it has no secret, and no hash of one looks like this.
SESSION_MARK = "session "


class Role(StrEnum):
    """How much somebody may do; each may do what those before it may."""

    VIEWER = "viewer"  # look
    APPROVER = "approver"  # answer what they are asked; submit work
    OPERATOR = "operator"  # cancel, replay, discard, extend, reassign
    ADMIN = "admin"  # answer what nobody else may

    @property
    def rank(self) -> int:
        """0 for the least."""
        return list(Role).index(self)

    def allows(self, needed: Role) -> bool:
        """Whether this role may do what that one may."""
        return self.rank >= needed.rank


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a request. A function named by ``axme_actor`` returns one of these, or None for nobody."""

    #: One line, as it is kept in the history.
    id: str
    groups: frozenset[str] = frozenset()
    role: Role = Role.APPROVER
    #: Only intents of this owner exist for them; None: the whole house.
    owner: str | None = None
    #: How they proved who they are: "host", "proxy", "key", "link".
    via: str = "host"
    #: The agent address this actor may speak for, if it is one.
    agent: str | None = None

    @property
    def names(self) -> frozenset[str]:
        """What a wait's assignees are matched with."""
        return self.groups | {self.id}

    def may(self, role: Role) -> bool:
        """Whether they have at least this role."""
        return self.role.allows(role)

    def sees(self, owner: str | None) -> bool:
        """Whether an intent of this owner exists for them."""
        return self.owner is None or self.owner == owner


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A secret's record. The secret itself is shown once and kept nowhere."""

    id: str
    name: str
    #: SHA-256 of the secret, in hex.
    hash: str
    role: Role
    groups: tuple[str, ...] = ()
    owner: str | None = None
    agent: str | None = None
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    @property
    def is_session(self) -> bool:
        """Whether this is the record of a session that no key opened: there is no secret to show."""
        return self.hash.startswith(SESSION_MARK)

    def is_good(self, now: datetime) -> bool:
        """Neither revoked nor run out."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    @property
    def actor(self) -> Actor:
        """Who shows it: the key's name is who did it, in every history."""
        return Actor(self.name, frozenset(self.groups), self.role, self.owner, "key", self.agent)
