"""Keys: make, look up, list and revoke the secrets by which programs (and people without a login) are known.

A secret is 256 random bits, so a plain SHA-256 of it is enough: there is nothing to guess. It is shown once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from .errors import BadInput, NotFound
from .ports import Runtime
from .texts import line
from .who import SESSION_MARK, Key, Role

#: How a secret begins, so that scanners and people recognise one that leaked.
PREFIX = "axk_"
#: The same of a link to sign in by once. It is no key: nothing but the sign-in page takes it.
LINK_PREFIX = "axl_"
#: A key's last use is written down at most this often.
USE_SECONDS = 60.0


def create(
    rt: Runtime,
    *,
    name: str,
    role: Role | str = Role.VIEWER,
    groups: Sequence[str] = (),
    owner: str | None = None,
    agent: str | None = None,
    expires_seconds: float | None = None,
) -> tuple[Key, str]:
    """A new key and its secret, this once.

    name:             who will have done what is done with it.
    groups:           the groups whose questions it may answer.
    owner:            the one whose intents exist for it; None: all of them.
    agent:            the agent:// address it speaks for.
    expires_seconds:  how long it is good; None: until it is revoked.

    Raises BadInput.
    """
    return _make(rt, PREFIX, name, role, groups, owner, agent, expires_seconds)


def create_link(
    rt: Runtime, *, name: str, role: Role | str, groups: Sequence[str] = (), expires_seconds: float = 12 * 3600.0
) -> tuple[Key, str]:
    """What a one-time link to sign in carries: it opens one session, which ends when this expires."""
    return _make(rt, LINK_PREFIX, name, role, groups, None, None, expires_seconds)


def create_session(rt: Runtime, *, name: str, groups: Sequence[str], expires_seconds: float) -> Key:
    """The record of a session of somebody whom another vouched for, an approver. It has no secret: nobody gets in with it
    from elsewhere, and to revoke it ends the session. Records of sessions that are over are dropped.

    Raises BadInput.
    """
    key = _record(rt, SESSION_MARK + secrets.token_hex(16), name, Role.APPROVER, groups, None, None, expires_seconds)
    rt.ledger.drop_sessions(key.created_at)
    rt.ledger.put_key(key)
    return key


def by_secret(rt: Runtime, secret: str) -> Key | None:
    """The key of this secret; None when there is none, or it is revoked or has run out."""
    if not secret.startswith(PREFIX):
        return None
    key = rt.ledger.key_by_hash(_hash(secret))
    now = rt.ledger.now()
    if key is None or not key.is_good(now):
        return None
    if key.last_used_at is None or (now - key.last_used_at).total_seconds() > USE_SECONDS:
        key = replace(key, last_used_at=now)
        rt.ledger.touch_key(key.id, now)
    return key


def redeem_link(rt: Runtime, secret: str) -> Key | None:
    """Use up a one-time link: its record the first time, None ever after, and None for what is no such link."""
    if not secret.startswith(LINK_PREFIX):
        return None
    key = rt.ledger.key_by_hash(_hash(secret))
    now = rt.ledger.now()
    if key is None or not key.is_good(now) or not rt.ledger.touch_key(key.id, now, unused=True):
        return None
    return replace(key, last_used_at=now)


def good(rt: Runtime, key_id: str) -> Key | None:
    """The key of this id while it is good: asked at every request of a session it opened."""
    key = rt.ledger.key(key_id)
    return key if key is not None and key.is_good(rt.ledger.now()) else None


def revoke(rt: Runtime, key_id: str) -> Key:
    """Nobody gets in with it any more, from now on. Again is fine. Raises NotFound."""
    key = rt.ledger.key(key_id)
    if key is None:
        raise NotFound("key", key_id)
    if key.revoked_at is None:
        rt.ledger.revoke_key(key_id, rt.ledger.now())
    revoked = rt.ledger.key(key_id)
    assert revoked is not None
    return revoked


def listed(rt: Runtime) -> list[Key]:
    """All of them, newest first, also those that are no longer good."""
    return rt.ledger.keys()


def _make(
    rt: Runtime,
    prefix: str,
    name: str,
    role: Role | str,
    groups: Sequence[str],
    owner: str | None,
    agent: str | None,
    expires_seconds: float | None,
) -> tuple[Key, str]:
    secret = prefix + secrets.token_urlsafe(32)
    key = _record(rt, _hash(secret), name, role, groups, owner, agent, expires_seconds)
    rt.ledger.put_key(key)
    return key, secret


def _record(
    rt: Runtime,
    hash: str,
    name: str,
    role: Role | str,
    groups: Sequence[str],
    owner: str | None,
    agent: str | None,
    expires_seconds: float | None,
) -> Key:
    line(name, "name")
    if str(role) not in list(Role):
        raise BadInput(f"role is {str(role)[:40]!r}; it is one of {', '.join(Role)}")
    if isinstance(groups, str) or len(groups) > 100:
        raise BadInput("groups is a list of at most 100 names")
    for group in groups:
        line(group, "a group")
    for what, value in (("owner", owner), ("agent", agent)):
        if value is not None:
            line(value, what)
    if expires_seconds is not None and expires_seconds <= 0:
        raise BadInput("a key must be good for longer than nothing")
    now = rt.ledger.now()
    return Key(
        id=rt.new_id(), name=name, hash=hash, role=Role(role), groups=tuple(dict.fromkeys(groups)),
        owner=owner, agent=agent, created_at=now,
        expires_at=None if expires_seconds is None else now + timedelta(seconds=expires_seconds),
    )  # fmt: skip


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


__all__ = ["by_secret", "create", "create_link", "create_session", "good", "listed", "redeem_link", "revoke"]
