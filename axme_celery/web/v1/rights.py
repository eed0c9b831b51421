"""Who may do what here: whose intents exist for them, whom they speak for, what they may decide."""

from __future__ import annotations

from flask import request

from ...errors import NotAllowed, NotFound
from ...model import Intent
from ...parties import address
from ...who import Actor, Role
from ..house import house, need

__all__ = ["Role", "answers_for", "find", "may_decide", "need", "needs_decider", "needs_voice", "voice"]


def find(intent_id: str, actor: Actor) -> Intent:
    """The intent, where it exists for them: their owner's, or sent to the agent they speak for. Raises NotFound."""
    intent = house().rt.ledger.intent(intent_id)
    if intent is None or not sees(actor, intent):
        raise NotFound("intent", intent_id)
    return intent


def sees(actor: Actor, intent: Intent) -> bool:
    """Whether this intent exists for them."""
    own = voice(actor)
    return actor.sees(intent.owner) or (own is not None and own in spoken_of(intent))


def spoken_of(intent: Intent) -> frozenset[str]:
    """The agents that take part in it."""
    named = (intent.to_agent, intent.handler, intent.from_agent, intent.reply_to)
    return frozenset(_canonical(one) for one in named if one)


def _canonical(given: str) -> str:
    try:
        return address(given)
    except ValueError:
        return given


def voice(actor: Actor) -> str | None:
    """The agent an actor speaks for, in its one form."""
    return None if actor.agent is None else _canonical(actor.agent)


def needs_voice(actor: Actor, agent: str) -> None:
    """Raises NotAllowed unless they speak for this agent: its own key, or an operator's that is no agent's."""
    own = voice(actor)
    if own == agent or (own is None and actor.may(Role.OPERATOR)):
        return
    raise NotAllowed(f"{actor.id} does not speak for {agent}")


def may_decide(actor: Actor, intent: Intent, right: str = "resume") -> bool:
    """Whether they may say how an intent goes on: who handles it, who asked for it, who was granted it, operators."""
    if actor.may(Role.OPERATOR) or (intent.requester == actor.id and actor.may(Role.APPROVER)):
        return True
    own = voice(actor)
    if own is None:
        return False
    handlers = {_canonical(one) for one in (intent.handler or intent.to_agent, intent.from_agent) if one}
    grants = (intent.terms or {}).get("grants") or {}
    granted = grants.get(f"delegate:{own}") or {}
    return own in handlers or right in granted.get("allow", ())


def needs_decider(actor: Actor, intent: Intent, right: str = "resume") -> None:
    """Raises NotAllowed unless ``may_decide``."""
    if not may_decide(actor, intent, right):
        raise NotAllowed(f"{actor.id} neither handles intent {intent.id} nor asked for it, and is no operator")


def answers_for(actor: Actor) -> frozenset[str] | None:
    """The groups a person's answer is held to; None for an admin, who may answer what nobody else may."""
    return None if actor.may(Role.ADMIN) else actor.groups


def narrowed() -> str | None:
    """Whose things were asked for, where the request says so; it can only narrow what the credential allows."""
    given = request.args.get("owner_agent") or request.headers.get("x-owner-agent")
    return given or None
