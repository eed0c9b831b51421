"""Streams: an intent's events as they happen, and an agent's intents as they come.

A frame is ``id``, ``event`` and ``data``, and an empty line. A stream ends by itself after ``wait_seconds`` with
``stream.timeout``; whoever listens comes back with the last number it saw, as ``since`` or ``Last-Event-ID``.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flask import Response, request, session, stream_with_context

from ... import agents, wire
from ...durations import utc_iso
from ...errors import AxmeError, BadInput
from ...model import JsonDict, Status
from ...parties import HandOut, address
from ...who import Actor
from ..house import House, house
from ..live import Full
from ..streams import _give_up_stalled_clients
from . import blueprint
from .problems import Problem
from .requests import query_int, query_line, reply
from .rights import find, need, needs_voice

log = logging.getLogger(__name__)

#: A silent stream says something this often. Only then is an agent noticed that is gone.
BEAT_SECONDS = 2.0
#: Where there is no room to hold a stream open it is answered after so long, so that nobody comes back at full speed.
PAUSE_SECONDS = 1.0
#: So many intents a listener has in its hands at once, unless it asks for more or fewer.
AT_ONCE = 20
#: With its hands full, what it has is looked at so often, to hand it more.
FULL_SECONDS = 0.25
_BEAT = ": still here\n\n"


@blueprint.get("/intents/<intent_id>/events/stream")
def stream_intent(intent_id: str) -> Response:
    """An intent's events after ``since``, and live for ``wait_seconds`` or until it has ended."""
    actor, here = need(), house()
    found = find(intent_id, actor)
    since, seconds = _since(), query_int("wait_seconds", 15, least=1, most=60)

    def frames(held: bool) -> Iterator[str]:
        last = since
        for event in here.live.events(intent_id, since, seconds=seconds if held else 0):
            if event is None:
                yield _BEAT
                continue
            # Only the end is told with something of the intent's: what it was before does for all others.
            intent = here.rt.ledger.intent(intent_id) if event.status.is_final else found
            if intent is None:
                return
            yield _frame(event.seq, event.type, wire.event_text(event, intent))
            last = event.seq
            if event.status.is_final:
                return
        yield _end(last)

    return _streamed(here, actor, frames)


# First: each view below answers OPTIONS too, with what may be done with an agent.
@blueprint.route("/agents/<path:agent>/intents/stream", methods=["OPTIONS"], merge_slashes=False)
@blueprint.route("/agents/<path:agent>/intents", methods=["OPTIONS"], merge_slashes=False)
def agent_intents_options(agent: str) -> Response:
    """What may be done here: not what may be done with an agent, whose path this also looks like."""
    response = reply({"ok": True})
    response.headers["Allow"] = "GET, HEAD, OPTIONS"
    return response


@blueprint.get("/agents/<path:agent>/intents/stream", merge_slashes=False)
def stream_agent(agent: str) -> Response:
    """What is sent to an agent, after its number ``since``, as it comes; it is this listener's, under a lease."""
    actor, here = need(), house()
    where = resolved(agent, actor)
    needs_voice(actor, where)
    since, seconds = _since(), query_int("wait_seconds", 15, least=1, most=60)
    statuses, lease = wanted(), lease_seconds(here)
    most = query_int("max_in_flight", AT_ONCE, least=1, most=100)
    agents.listening(here.rt, where, actor.owner)
    by, environ = actor.agent or actor.id, request.environ

    def frames(held: bool) -> Iterator[str]:
        at, hands, finished = since, _Hands(here, most), False
        window = seconds if held else 0.01
        try:
            yield _BEAT
            for is_due in here.live.mailbox(where, seconds=window, beat_seconds=hands.beat_seconds):
                if hung_up(environ):
                    return
                was_full = hands.full
                while (is_due or was_full) and (room := hands.room()):
                    handed, at = agents.take(
                        here.rt, where, since=at, by=by, owner=owner_of(actor, where), statuses=statuses, limit=room,
                        lease_seconds=lease,
                    )  # fmt: skip
                    hands.kept += handed
                    for one in handed:
                        yield _frame(one.offer.seq, "intent.delivered", wire.text_of(delivered(one)))
                    is_due, was_full = bool(handed), False
                yield _BEAT
            yield _end(at)
            finished = True
        finally:
            if not finished:
                # The line was cut before its time: whoever was at the other end is gone.
                _give_back(here, hands.kept)

    return _streamed(here, actor, frames)


class _Hands:
    """What a listener was handed on one stream and has not finished."""

    def __init__(self, here: House, most: int) -> None:
        self._here, self._most = here, most
        self.kept: list[HandOut] = []
        self.full = False

    def room(self) -> int:
        """How many more it may be handed now."""
        if len(self.kept) >= self._most:
            self.kept = agents.in_hand(self._here.rt, self.kept)
        self.full = len(self.kept) >= self._most
        return self._most - len(self.kept)

    def beat_seconds(self) -> float:
        """How soon to look again."""
        return FULL_SECONDS if self.full else BEAT_SECONDS


@blueprint.get("/agents/<path:agent>/intents", merge_slashes=False)
def poll_agent(agent: str) -> Response:
    """What lies in an agent's mailbox after number ``since``; what is handed out is the asker's, under a lease."""
    actor, here = need(), house()
    where = resolved(agent, actor)
    needs_voice(actor, where)
    limit = query_int("limit", AT_ONCE, least=1, most=100, clip=True)
    if request.method == "HEAD":
        # Who looks at headers only has not taken anything.
        return reply({"ok": True})
    agents.listening(here.rt, where, actor.owner)
    handed, at = agents.take(
        here.rt, where, since=_since(), by=actor.agent or actor.id, owner=owner_of(actor, where), statuses=wanted(),
        limit=limit, lease_seconds=lease_seconds(here),
    )  # fmt: skip
    return reply({"ok": True, "intents": [delivered(one) for one in handed], "next_cursor": at})


# -- agents -------------------------------------------------------------------------------


def resolved(given: str, actor: Actor) -> str:
    """The agent a path names: an address with or without its scheme, or the bare name of the one agent that has it."""
    try:
        found = address(given)
    except BadInput as wrong:
        raise Problem(422, "invalid_agent_address", str(wrong)) from None
    name = found.removeprefix("agent://")
    if "/" in name:
        return found
    if actor.agent is not None and address(actor.agent).endswith(f"/{name}"):
        return address(actor.agent)
    box = house().rt.ledger.mailboxes
    if box.agent(found) is None:
        known = box.named(actor.owner, name)
        if len(known) == 1:
            return known[0]
    return found


def owner_of(actor: Actor, agent: str) -> str | None:
    """Whose intents a listener is handed: everybody's for the agent's own key, else those of its owner."""
    return None if actor.agent is not None and address(actor.agent) == agent else actor.owner


def wanted() -> list[str]:
    """The statuses a listener asks for; none: whatever is open."""
    given = query_line("status")
    if given is None:
        return []
    words = [word.strip().upper() for word in given.split(",") if word.strip()]
    unknown = [word for word in words if word not in Status.__members__ and word != "CANCELLED"]
    if unknown:
        raise BadInput(f"status is a list of {', '.join(Status)}")
    # Nobody is handed what is about to be created: for such readers, what is delivered is new.
    return [*words, *(["DELIVERED"] if {"CREATED", "SUBMITTED"} & set(words) else [])]


def lease_seconds(here: House) -> float:
    """How long what is handed out is the listener's."""
    return float(query_int("lease_seconds", round(here.axme.settings.agent_lease_seconds), least=1, most=86400))


def delivered(one: HandOut) -> JsonDict:
    """What an agent is told of an intent it is handed; ``seq`` is the agent's own count."""
    intent = one.intent
    return {
        "intent_id": intent.id,
        "seq": one.offer.seq,
        "event_type": "intent.delivered",
        "status": Status.DELIVERED.value,
        "at": wire.intent(intent)["updated_at"],
        "intent_type": intent.type,
        "intent_status": intent.status.value,
        "from_agent": intent.from_agent or intent.requester,
        "to_agent": intent.to_agent or one.offer.agent,
        "handler": one.offer.agent,
        "correlation_id": intent.correlation_id,
        "delivery_attempt": one.leg.attempts,
        "lease_until": None if one.leg.due_at is None else utc_iso(one.leg.due_at),
        "payload": wire.plain(intent.payload),
        "trace": intent.trace,
        "details": {"delivery_attempt": one.leg.attempts, "handler": one.offer.agent},
    }


def hung_up(environ: Mapping[str, Any]) -> bool:
    """Whether the other end has closed the connection. False where the server does not let us look."""
    line = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if type(line) is not socket.socket:
        return False
    try:
        look = select.poll()
        look.register(line, select.POLLIN)
        return bool(look.poll(0)) and line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except (BlockingIOError, ValueError):
        return False
    except OSError:
        return True


def _give_back(here: House, mine: list[HandOut]) -> None:
    for one in mine:
        try:
            agents.give_back(here.rt, one, "its listener's connection ended")
        except AxmeError as error:
            # Its lease ends by itself.
            log.info("intent %s stays with a listener that is gone: %s", one.intent.id, error)


# -- frames -------------------------------------------------------------------------------


def _since() -> int:
    """After which number: of the query, or as browsers and others repeat it."""
    repeated = request.headers.get("Last-Event-ID", "").strip()
    default = int(repeated) if repeated.isdecimal() and len(repeated) < 10 else 0
    since = query_int("since", default, least=0, most=2**31 - 1)
    # The published command line counts from the next one on.
    inclusive = request.headers.get("X-Axme-Client", "").startswith("axme-cli/") or request.args.get("inclusive") == "1"
    return max(0, since - 1) if inclusive and since else since


def _frame(number: int, event: str, data: str) -> str:
    return f"id: {number}\nevent: {event}\ndata: {data}\n\n"


def _end(last: int) -> str:
    return f"event: stream.timeout\ndata: {wire.text_of({'ok': True, 'next_seq': last})}\n\n"


def _streamed(here: House, actor: Actor, frames: Callable[[bool], Iterator[str]]) -> Response:
    """A stream that holds a seat; where all are taken it says what there is to say and ends."""
    try:
        seat = here.live.take_seat(actor.id)
    except Full:
        seat = None
    _give_up_stalled_clients()

    def written() -> Iterator[str]:
        for said in frames(seat is not None):
            if said is _BEAT and here.resolver.resolve(here.rt, request, session) is None:
                return  # its key was revoked
            if seat is None and said.startswith("event: stream.timeout"):
                time.sleep(PAUSE_SECONDS)
            yield said

    response = Response(stream_with_context(written()), mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    if seat is not None:
        response.call_on_close(seat.give_back)
    return response
