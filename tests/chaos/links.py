"""The pipeline that is killed: a chain in a group in a chord, with a person's wait in the middle.

Every task notes what it is called with, does one recorded step, and returns something random, so that a second
execution cannot pass for the first. Lines of its legs (``ev``): P, a leg's body started with ``args``; Q, its step ran.
"""

from __future__ import annotations

import json
import os
from typing import Any

from celery import chain, chord, group
from celery.canvas import Signature

from axme_celery import step, wait_for_human
from axme_celery.leg import required

from .witness import digest, note

LINK = "chaos.link"


@step
def token(tag: str) -> str:
    running = required("a pipeline's leg")
    note("Q", intent=running.intent.id, leg=running.leg.id, run=running.leg.run)
    return f"{tag}:{os.urandom(4).hex()}"


def link(*args: Any, tag: str) -> str:
    """One task of the pipeline."""
    running = required("a pipeline's leg")
    where = {"intent": running.intent.id, "leg": running.leg.id, "run": running.leg.run}
    note("P", **where, args=digest_of(list(args)))
    return token(tag)


def canvas(task: Any) -> Signature:
    """A chord of a link, a chain with a question in its middle, and a chain with a group in it; and a link after it."""
    asked = chain(task.s(1, tag="b1"), wait_for_human.s("Go on?", to="ana", on_reject="continue"), task.s(tag="b2"))
    split = chain(task.s(tag="c1"), group(task.s(2, tag="c2"), task.s(3, tag="c3")), task.s(tag="c4"))
    return chain(chord([task.s(tag="a"), asked, split], task.s(tag="body")), task.s(tag="last"))


def digest_of(value: Any) -> str:
    """Of a value that may hold moments, as the ledger reads and writes them."""
    return digest(json.loads(json.dumps(value, default=lambda moment: _moment(moment))))


def _moment(value: Any) -> dict[str, str]:
    return {"__type__": "datetime", "__value__": value.isoformat()}
