"""What every view of the web door has at hand: the project, who asks, and what they may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import current_app, g, request, session

from ..errors import NotFound
from ..model import Intent
from ..who import Actor, Role
from .actor import Resolver
from .live import Hub
from .oidc import Provider

if TYPE_CHECKING:
    from ..extension import Axme
    from ..ports import Runtime

#: Where a Flask application keeps its House.
EXTENSION = "axme-web"


@dataclass(frozen=True)
class House:
    """One project behind the web door."""

    axme: Axme
    resolver: Resolver
    live: Hub
    #: Whose accounts people sign in with, besides keys.
    oidc: Provider | None = None

    @property
    def rt(self) -> Runtime:
        """What the verbs work with."""
        return self.axme.runtime


class SignInNeeded(Exception):
    """Nobody is signed in, and this needs somebody."""


class RoleNeeded(Exception):
    """They are signed in, but their role is too low."""

    def __init__(self, actor: Actor, role: Role) -> None:
        super().__init__(f"{actor.id} is {actor.role}; this needs the role {role}")
        self.actor = actor
        self.role = role


def house() -> House:
    """The project of the request under way."""
    found: House = current_app.extensions[EXTENSION]
    return found


def current_actor() -> Actor | None:
    """Who makes the request; found out once per request."""
    if "axme_actor" not in g:
        here = house()
        g.axme_actor = here.resolver.resolve(here.rt, request, session)
    actor: Actor | None = g.axme_actor
    return actor


def need(role: Role = Role.VIEWER) -> Actor:
    """Who makes the request, if they have this role. Raises SignInNeeded, RoleNeeded."""
    actor = current_actor()
    if actor is None:
        raise SignInNeeded
    if not actor.may(role):
        raise RoleNeeded(actor, role)
    return actor


def visible_intent(intent_id: str, actor: Actor) -> Intent:
    """The intent, if it exists for them. Raises NotFound, the same for one that is not theirs to see."""
    intent = house().rt.ledger.intent(intent_id)
    if intent is None or not actor.sees(getattr(intent, "owner", None)):
        raise NotFound("intent", intent_id)
    return intent
