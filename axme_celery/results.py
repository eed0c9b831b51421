"""Celery's result backend told of ends that no worker saw: legs canceled, lost, never run, and wait nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from celery.app.task import Context
from celery.exceptions import WorkerLostError

from . import failure
from .errors import AxmeError
from .model import Delivery, JsonDict, Leg

if TYPE_CHECKING:
    from .extension import Axme

#: Legs read at a time.
PAGE = 500


def tell(axme: Axme, delivery: Delivery) -> None:
    """Store how this leg ended; or, where the delivery names none, how every leg did that ended with its intent."""
    body = delivery.body
    if delivery.leg_id is not None:
        if delivery.leg is not None:
            _store(axme, delivery.leg, body, call_errbacks=True)
        return
    called = set(body.get("errbacks", ()))
    for leg in _canceled(axme, delivery.intent_id):
        _store(axme, leg, body, call_errbacks=leg.id in called)


def _canceled(axme: Axme, intent_id: str) -> Iterator[Leg]:
    after = ""
    while page := axme.runtime.ledger.canceled_legs(intent_id, after, PAGE):
        yield from page
        after = page[-1].id


def _store(axme: Axme, leg: Leg, body: JsonDict, *, call_errbacks: bool) -> None:
    options = leg.signature.get("options") or {}
    if options.get("ignore_result"):
        return
    backend = axme.app.backend
    request = Context(
        id=leg.id, task=leg.task, args=leg.signature.get("args"), kwargs=leg.signature.get("kwargs"),
        chain=options.get("chain"), chord=options.get("chord"), group=options.get("group_id"),
        errbacks=options.get("link_error") if call_errbacks else None, root_id=options.get("root_id"),
        parent_id=options.get("parent_id"), reply_to=options.get("reply_to"), correlation_id=leg.id,
    )  # fmt: skip
    if body["state"] == "SUCCESS":
        backend.mark_as_done(leg.id, axme.runtime.codec.decode(leg.result or "null"), request=request)
        return
    error = body["error"]
    if body["state"] == "REVOKED":
        backend.mark_as_revoked(leg.id, error["message"], request=request, store_result=True)
        return
    lost = WorkerLostError(error["message"]) if error.get("code") == "worker_lost" else None
    raised = lost or failure.revive(error) or AxmeError(error["message"])
    backend.mark_as_failure(leg.id, raised, request=request, store_result=True)
