"""Celery's own chords that wait for our legs, kept from expiring.

On Redis a chord's count and the results it has so far expire after
``result_chord_expires`` (``result_expires`` before Celery 5.7, a day unless
set), renewed when a member ends. A member that waits for a person for two days
would find nothing to be counted in, and the body would never be called. So the
sweep renews them for as long as a leg in the chord has not ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from celery import Celery
from celery.backends.redis import RedisBackend
from celery.result import AsyncResult, GroupResult

from .model import JsonDict, Leg

log = logging.getLogger(__name__)

#: What Celery keeps of a chord on Redis, behind its group's key: the results so far, how many there must be, who has
#: been counted. Not ".c", the short claim of whoever calls the body.
PARTS = (".j", ".t", ".s", ".d")
#: Renewed when this share of the time has passed.
SHARE = 4


def groups_of(signature: JsonDict) -> list[str]:
    """Ids of the groups whose chord waits for this signature's task, or for what is chained or linked to it."""
    found: dict[str, None] = {}
    for options in _options_within(signature):
        if options.get("chord") and options.get("group_id"):
            found[str(options["group_id"])] = None
    return list(found)


def _options_within(signature: Any) -> Iterator[JsonDict]:
    if isinstance(signature, dict):
        options = signature.get("options")
        if isinstance(options, dict):
            yield options
            for inner in (*(options.get("chain") or ()), *_listed(options.get("link")), options.get("chord")):
                yield from _options_within(inner)


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list | tuple) else (value,)


class Chords:
    """The chords of one application's result backend."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        #: Group id -> when it is to be renewed, monotonic seconds.
        self._next: dict[str, float] = {}

    def keep(self, legs: Sequence[Leg]) -> int:
        """Renew the chords that wait for these legs, those that have not been for a while. Returns how many.

        Best effort: a result backend that is away is asked again by the next sweep.
        """
        backend = self._app.backend
        if not isinstance(backend, RedisBackend):
            return 0
        expires = int(getattr(backend, "chord_expires", backend.expires) or 0)
        if not expires:
            return 0
        now = time.monotonic()
        groups = {group for leg in legs for group in groups_of(leg.signature) if self._next.get(group, 0.0) <= now}
        try:
            for group in groups:
                self._renew(backend, group, expires)
        except Exception as error:  # whatever Redis raises
            log.warning("chords are not renewed, the next sweep tries again: %s", error)
            return 0
        self._next = {group: at for group, at in self._next.items() if at > now}
        self._next |= dict.fromkeys(groups, now + expires / SHARE)
        return len(groups)

    def _renew(self, backend: RedisBackend, group: str, expires: int) -> None:
        longest = max(expires, int(backend.expires or 0))
        with backend.client.pipeline(transaction=False) as pipe:
            for part in PARTS:
                pipe.expire(backend.get_key_for_group(group, part), expires)
            pipe.expire(backend.get_key_for_group(group), longest)
            # Of a header with groups in it Celery keeps the shape, and joins the members' own results.
            for task_id in _members(GroupResult.restore(group, backend=backend, app=self._app)):
                pipe.expire(backend.get_key_for_task(task_id), longest)
            pipe.execute()


def _members(result: Any) -> Iterator[str]:
    if isinstance(result, GroupResult):
        for member in result.results or ():
            yield from _members(member)
    elif isinstance(result, AsyncResult):
        yield str(result.id)
