"""Writes that may be repeated: under the same Idempotency-Key the first answer comes back, byte for byte."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable
from datetime import timedelta

from flask import Response, g, request

from ...codec import canonical_hash
from ...errors import AxmeError
from ...model import JsonDict
from ...texts import line
from ...wire import text_of
from ..house import current_actor, house
from .problems import Problem
from .requests import body

#: Whoever answers a request has it for so long; then it is taken for dead.
HOLD = timedelta(seconds=10)
#: How long a second request under one key waits for the first one's answer: longer than a dead one is waited for.
PATIENCE_SECONDS = 12.0


def writes(view: Callable[..., JsonDict]) -> Callable[..., Response]:
    """Decorate a view that changes something and returns an object: its answer is kept under the request's key."""
    return _writes(view, None)


def writes_results(view: Callable[..., JsonDict]) -> Callable[..., Response]:
    """The same, with room in the body for a result."""
    return _writes(view, "result_bytes")


def _writes(view: Callable[..., JsonDict], room: str | None) -> Callable[..., Response]:
    @functools.wraps(view)
    def answered(*args: object, **kwargs: object) -> Response:
        settings = house().axme.settings
        given = body(None if room is None else max(settings.payload_bytes, getattr(settings, room)) + 4096)
        key = request.headers.get("Idempotency-Key")
        if not key:
            return _response(text_of(view(*args, **kwargs)))
        return _once(line(key, "Idempotency-Key"), given, lambda: view(*args, **kwargs))

    return answered


def request_key() -> str | None:
    """A key for the ledger that stands for this very request's Idempotency-Key; None where it has none."""
    found: str | None = g.get("axme_repeat")
    return None if found is None else f"http:{found}"


def _once(key: str, given: JsonDict, view: Callable[[], JsonDict]) -> Response:
    exchange, ledger = house().rt.ledger.exchange, house().rt.ledger
    actor = current_actor()
    asked = [actor.id if actor else "", actor.owner if actor else "", request.method, request.path, key]
    request_id = hashlib.sha256(text_of(asked).encode()).hexdigest()
    body_hash = canonical_hash([given, sorted(request.args.items(multi=True))])
    g.axme_repeat = request_id
    until, pause = time.monotonic() + PATIENCE_SECONDS, 0.05
    while True:
        now = ledger.now()
        known = exchange.begin(request_id, body_hash, now, now + HOLD)
        if known is None:
            break
        if known.body_hash != body_hash:
            raise Problem(409, "idempotency_conflict", "idempotency key reused with different payload")
        if known.status is not None:
            return _response(known.answer or "{}", replayed=True)
        if time.monotonic() > until:
            raise Problem(
                409, "idempotency_in_progress", "a request under this key is still being answered", retryable=True,
                headers={"Retry-After": "1"},
            )  # fmt: skip
        time.sleep(pause)
        pause = min(0.5, pause * 1.5)
    try:
        text = text_of(view())
    except BaseException:
        # Refused, it changed nothing: the same key may come again with what was meant.
        _drop(request_id)
        raise
    exchange.finish(request_id, 200, text)
    return _response(text)


def _drop(request_id: str) -> None:
    try:
        house().rt.ledger.exchange.drop(request_id)
    except AxmeError:
        return


def _response(text: str, *, replayed: bool = False) -> Response:
    response = Response(text, 200, mimetype="application/json")
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response
