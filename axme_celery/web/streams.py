"""Live streams over HTTP (Server-Sent Events), and the same for polling.

A stream says only that something happened and its number; the page then fetches what it shows. So what a person may
see is decided where it is shown, and a page that fell behind fetches once.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Callable, Iterable, Iterator

from flask import Blueprint, Response, jsonify, request, session, stream_with_context

from ..who import Actor
from .house import house, need, visible_intent
from .live import inbox_version

blueprint = Blueprint("streams", __name__)

#: A client that takes nothing for so long is given up.
STALLED_SECONDS = 30
#: How long a browser waits before it connects again.
RETRY_MS = 2000


@blueprint.get("/intents/<intent_id>")
def intent(intent_id: str) -> Response:
    """An intent's events after ``Last-Event-ID`` (or ``?since=``), and then live until it has ended."""
    actor = need()
    visible_intent(intent_id, actor)
    since = _number(request.headers.get("Last-Event-ID") or request.args.get("since"))
    return stream(actor, lambda: _said(intent_id, since))


@blueprint.get("/intents/<intent_id>/state")
def intent_state(intent_id: str) -> Response:
    """The same for whoever polls."""
    found = visible_intent(intent_id, need())
    return _state(str(found.seq), {"seq": found.seq, "status": found.status, "ended": found.status.is_final})


@blueprint.get("/inbox")
def inbox() -> Response:
    """The version of one's own inbox, each time it changes."""
    actor = need()
    last = request.headers.get("Last-Event-ID", "")
    return stream(actor, lambda: _inbox_said(house().live.inbox(actor.names, last)))


@blueprint.get("/inbox/state")
def inbox_state() -> Response:
    """The same for whoever polls."""
    version = inbox_version(house().rt, need().names)
    return _state(version, {"version": version})


def stream(actor: Actor, messages: Callable[[], Iterable[str]]) -> Response:
    """A response that goes on as long as there are messages. A seat is taken for it. Raises Full.

    messages:  called once the response goes out; each a whole message of the stream.
    """
    here = house()
    seat = here.live.take_seat(actor.id)
    _give_up_stalled_clients()

    def written() -> Iterator[str]:
        yield f"retry: {RETRY_MS}\n\n"
        for message in messages():
            if message.startswith(":") and here.resolver.resolve(here.rt, request, session) is None:
                return  # signed out, or the key was revoked
            yield message

    response = Response(stream_with_context(written()), mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(seat.give_back)
    return response


def message(event: str, data: object, id: str | None = None) -> str:
    """One message of a stream. JSON has no line breaks, so it is one line."""
    head = "" if id is None else f"id: {id}\n"
    return f"{head}event: {event}\ndata: {json.dumps(data)}\n\n"


#: Something for the line, so that it is kept open and a client that is gone is noticed.
HEARTBEAT = ": still here\n\n"


def _said(intent_id: str, since: int) -> Iterator[str]:
    for event in house().live.events(intent_id, since):
        if event is None:
            yield HEARTBEAT
        else:
            seen = {"seq": event.seq, "type": event.type, "status": event.status, "at": event.at.isoformat()}
            yield message("intent", seen, str(event.seq))
    intent = house().rt.ledger.intent(intent_id)
    if intent is None or intent.status.is_final:
        # Also for a client that has had them all: without this it would come back for ever.
        yield message("end", {"status": None if intent is None else intent.status})


def _inbox_said(versions: Iterable[str | None]) -> Iterator[str]:
    for version in versions:
        yield HEARTBEAT if version is None else message("inbox", {"version": version}, version)


def _state(version: str, document: dict[str, object]) -> Response:
    response = jsonify(document)
    response.set_etag(version)
    response.make_conditional(request)
    return response


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 10 else 0


def _give_up_stalled_clients() -> None:
    """Writing to a client that reads nothing would hold the thread for ever."""
    connection = request.environ.get("gunicorn.socket")
    if isinstance(connection, socket.socket):
        with contextlib.suppress(OSError):
            limit = struct.pack("ll", STALLED_SECONDS, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
