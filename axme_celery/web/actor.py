"""Who makes a request: shown keys, the host's own login, a trusted proxy's word, or a session opened here."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import keys
from ..errors import BadSetting
from ..model import JsonDict
from ..who import Actor, Key, Role

if TYPE_CHECKING:
    from flask import Request

    from ..config import Settings
    from ..ports import Runtime

__all__ = ["Actor", "Resolver", "Role", "load_actor"]

#: A session ends this long after it was opened, and after this long without a request.
SESSION_SECONDS = 12 * 3600
IDLE_SECONDS = 30 * 60
#: That it is in use is written to the cookie at most so often.
SEEN_SECONDS = 120


class Resolver:
    """Finds out who makes a request. The first that speaks wins: a key, the host, a trusted proxy, the session."""

    def __init__(self, settings: Settings, host: Callable[[Request], Actor | None] | None) -> None:
        self._settings = settings
        self._host = host
        self._proxies = [ipaddress.ip_network(each) for each in settings.proxy_addresses]

    @property
    def knows_somebody(self) -> bool:
        """Whether people can be known without a key."""
        return self._host is not None or bool(self._proxies) or self._settings.oidc_issuer is not None

    def resolve(self, rt: Runtime, request: Request, session: Any) -> Actor | None:
        """The actor; None for nobody. A key that is shown and is no good is nobody, whatever else there is."""
        shown = _shown_key(request)
        if shown is not None:
            key = keys.by_secret(rt, shown)
            return None if key is None else key.actor
        if self._host is not None:
            found = self._host(request)
            if found is not None:
                if not isinstance(found, Actor):
                    raise BadSetting(f"axme_actor returned {type(found).__name__}; return an Actor, or None for nobody")
                return self._raised(found)
        if self._proxies:
            said = self._from_proxy(request)
            if said is not None:
                return self._raised(said)
        return self._from_session(rt, session)

    def opened_with(self, rt: Runtime, secret: str) -> JsonDict | None:
        """What a session keeps that is opened with a key, or with a one-time link; None when it is no good."""
        key = keys.by_secret(rt, secret) or keys.redeem_link(rt, secret)
        if key is None:
            return None
        now = rt.ledger.now().timestamp()
        return {"key": key.id, "since": now, "seen": now}

    def opened_for(self, rt: Runtime, name: str, groups: Sequence[str]) -> JsonDict:
        """What the session keeps of somebody whom the provider of ``axme_oidc_issuer`` vouched for. Raises BadInput."""
        key = keys.create_session(rt, name=name, groups=groups, expires_seconds=SESSION_SECONDS)
        now = key.created_at.timestamp()
        return {"key": key.id, "since": now, "seen": now, "oidc": self._vouched}

    def end_session(self, rt: Runtime, session: Any) -> None:
        """Have a session that no key opened be good no longer, also where its cookie was copied to."""
        kept = session.get("axme")
        key = keys.good(rt, str(kept.get("key"))) if isinstance(kept, dict) else None
        if key is not None and key.is_session:
            keys.revoke(rt, key.id)

    @property
    def _vouched(self) -> list[str | None]:
        return [self._settings.oidc_issuer, self._settings.oidc_client_id]

    def _from_session(self, rt: Runtime, session: Any) -> Actor | None:
        kept = session.get("axme")
        if not isinstance(kept, dict):
            return None
        now = rt.ledger.now()
        key = keys.good(rt, str(kept.get("key"))) if _is_fresh(kept, now) else None
        if key is None or (key.is_session and kept.get("oidc") != self._vouched):
            session.pop("axme", None)
            return None
        if now.timestamp() - float(kept["seen"]) > SEEN_SECONDS:
            session["axme"] = {**kept, "seen": now.timestamp()}
        return self._of_session(key)

    def _of_session(self, key: Key) -> Actor:
        # Not via "key": what a browser sends by itself needs the token against forged requests.
        actor = replace(key.actor, via="session")
        # A key has the role it was made with; of whom the provider vouched for, the house says so now.
        return self._raised(actor) if key.is_session else actor

    def _from_proxy(self, request: Request) -> Actor | None:
        user = request.headers.get(self._settings.proxy_user_header, "").strip()
        if not user or not user.isprintable() or len(user) > 255 or not self._is_proxy(request.remote_addr):
            return None
        groups = request.headers.get(self._settings.proxy_groups_header, "").split(",")
        return Actor(user, frozenset(name for each in groups if (name := each.strip())), via="proxy")

    def _is_proxy(self, address: str | None) -> bool:
        try:
            found = ipaddress.ip_address(address or "")
        except ValueError:
            return False
        return any(found in network for network in self._proxies)

    def _raised(self, actor: Actor) -> Actor:
        """With the highest role that ``axme_roles`` gives them."""
        given = [Role(role) for role, names in self._settings.roles.items() if actor.names.intersection(names)]
        return replace(actor, role=max([actor.role, *given], key=lambda role: role.rank))


def load_actor(path: str) -> Callable[[Request], Actor | None]:
    """The function that ``axme_actor`` names. Raises BadSetting."""
    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        found: Callable[[Request], Actor | None] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadSetting(f"axme_actor is {path!r}, which cannot be loaded: {error}") from error
    if not callable(found):
        raise BadSetting(f"axme_actor is {path!r}, which is no function")
    return found


def _shown_key(request: Request) -> str | None:
    """The key in a request's headers; None when it shows none of ours."""
    if "x-api-key" in request.headers:
        return request.headers["x-api-key"].strip()
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    # Other tokens (a tool's, the host's) are somebody else's to read.
    return secret.strip() if scheme.lower() == "bearer" and secret.strip().startswith(keys.PREFIX) else None


def _is_fresh(kept: dict[str, Any], now: datetime) -> bool:
    try:
        since, seen = (datetime.fromtimestamp(float(kept[name]), now.tzinfo) for name in ("since", "seen"))
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return False
    return now - since < timedelta(seconds=SESSION_SECONDS) and now - seen < timedelta(seconds=IDLE_SECONDS)
