"""Agents outside Celery: who they are, how they are told, whom they talk to."""

from __future__ import annotations

from flask import Response
from werkzeug.exceptions import MethodNotAllowed

from ... import agents, subscriptions
from ...durations import utc_iso
from ...errors import BadInput, NotFound
from ...model import JsonDict
from ...parties import SCHEME, Agent, Policy
from ...parties import policy as checked_policy
from ...who import Actor
from ..house import house
from . import blueprint
from .repeats import writes
from .requests import Fields, body, query_int, query_line, reply
from .rights import Role, need, needs_voice, voice
from .streams import resolved


@blueprint.get("/agents")
def list_agents() -> Response:
    """Known agents, by address."""
    actor = need()
    limit = query_int("limit", 50, least=1, most=200, clip=True)
    org, workspace = query_line("org_id"), query_line("workspace_id")
    prefix = SCHEME + "".join(f"{part}/" for part in (org, workspace) if part) if org else ""
    found = house().rt.ledger.mailboxes.agents(actor.owner, prefix, query_line("cursor"), limit)
    cursor = found[-1].address if len(found) == limit else None
    return reply({"ok": True, "agents": [shown(one) for one in found], "next_cursor": cursor})


@blueprint.get("/agents/<path:agent>", merge_slashes=False)
def get_agent(agent: str) -> Response:
    """One agent."""
    return reply({"ok": True, "agent": shown(_known(agent, need()))})


@blueprint.put("/agents/<path:agent>", merge_slashes=False)
@writes
def put_agent(agent: str) -> JsonDict:
    """Make an agent known, or change it: its name, how it is told (``delivery_mode``, ``callback_url``), its status."""
    actor, fields = need(Role.APPROVER), Fields(body())
    if agent.endswith(("/intents", "/intents/stream")):
        # What an agent takes its intents from, and no agent of that name.
        raise MethodNotAllowed(["GET"])
    where = resolved(agent, actor)
    needs_voice(actor, where)
    _refuse_strangers(where, actor)
    mode, url = fields.line("delivery_mode", longest=16), fields.line("callback_url", longest=2048)
    if mode == "http" and url is None:
        known = house().rt.ledger.mailboxes.agent(where)
        if known is None or known.callback_url is None:
            raise BadInput("delivery_mode http needs a callback_url")
    made = agents.register(
        house().rt, where, owner=actor.owner, display_name=fields.line("display_name"), delivery_mode=mode,
        callback_url=url, status=fields.line("status", longest=16),
    )  # fmt: skip
    found: JsonDict = {"ok": True, "agent": shown(made)}
    if made.callback_url is not None:
        # Whoever speaks for the agent must be able to check what it is sent.
        found["callback_secret"] = subscriptions.subscription_of_url(
            house().rt, made.callback_url, owner=made.owner
        ).secret
    return found


@blueprint.get("/agents/<path:agent>/policy", merge_slashes=False)
def get_agent_policy(agent: str) -> Response:
    """Whom an agent sends to and receives from."""
    return reply(_policies(_known(agent, need())))


@blueprint.put("/agents/<path:agent>/policy", merge_slashes=False)
@writes
def put_agent_policy(agent: str) -> JsonDict:
    """Say whom an agent may send to and receive from: ``send`` and ``receive``, each ``{"mode", "entries"}``."""
    actor, fields = need(Role.OPERATOR), Fields(body())
    where = resolved(agent, actor)
    needs_voice(actor, where)
    _refuse_strangers(where, actor)
    given = {side: _policy(found) for side in ("send", "receive") if (found := fields.object(side)) is not None}
    if not given:
        raise BadInput('give send or receive, each {"mode": "allowlist", "entries": ["agent://acme/*"]}')
    made = agents.register(house().rt, where, owner=actor.owner, send=given.get("send"), receive=given.get("receive"))
    return _policies(made)


def _policy(given: JsonDict) -> Policy:
    return checked_policy(given.get("mode"), given.get("entries") or [])


def _known(agent: str, actor: Actor) -> Agent:
    """The agent, where it exists for them. Raises NotFound."""
    found = house().rt.ledger.mailboxes.agent(resolved(agent, actor))
    if found is None or found.status == "deleted" or not (actor.sees(found.owner) or voice(actor) == found.address):
        raise NotFound("agent", agent)
    return found


def _refuse_strangers(where: str, actor: Actor) -> None:
    known = house().rt.ledger.mailboxes.agent(where)
    if known is not None and known.seen_at is not None and not actor.sees(known.owner) and voice(actor) != where:
        raise NotFound("agent", where)


def shown(agent: Agent) -> JsonDict:
    """An agent as clients read it."""
    return {
        "address": agent.address,
        "service_account_id": agent.address,
        "service_account_name": agent.address.rpartition("/")[2],
        "display_name": agent.display_name,
        "status": agent.status,
        "delivery_mode": agent.delivery_mode,
        "callback_url": agent.callback_url,
        "cursor": agent.cursor,
        "last_seen_at": None if agent.seen_at is None else utc_iso(agent.seen_at),
        "created_at": utc_iso(agent.created_at),
        "updated_at": utc_iso(agent.updated_at),
    }


def _policies(agent: Agent) -> JsonDict:
    def one(policy: Policy) -> JsonDict:
        return {"mode": policy.mode, "entries": list(policy.entries)}

    return {"ok": True, "address": agent.address, "send": one(agent.send), "receive": one(agent.receive)}
