"""The nouns as JSON documents: what ``--json`` prints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..errors import NotJson

if TYPE_CHECKING:
    from ..handle import IntentHandle
    from ..model import Checkpoint, Leg, Progress
    from ..ports import Codec

#: What an intent says of itself in a list; its payload and result may be large.
_INTENT = (
    "id", "type", "status", "waiting_reason", "seq", "key", "tags", "requester", "correlation_id", "created_at",
    "updated_at", "deadline_at", "ended_at", "replay_of", "error", "url",
)  # fmt: skip


def intent(handle: IntentHandle, *, whole: bool = False) -> dict[str, Any]:
    """An intent; ``whole`` with its payload and result."""
    document = {name: getattr(handle, name) for name in _INTENT}
    if whole:
        document["payload"] = _value(lambda: handle.payload)
        document["result"] = _value(lambda: handle.result)
    return document


def record(noun: Any, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """A noun's fields, as they are."""
    return {f.name: getattr(noun, f.name) for f in dataclasses.fields(noun) if f.name not in without}


def leg(noun: Leg, progress: Progress | None, starts_at: datetime | None) -> dict[str, Any]:
    """A leg, with how far it says it is, and when it starts if that is later."""
    document = record(noun, without=("signature", "token", "result"))
    document["progress"] = None if progress is None else record(progress)
    document["starts_at"] = starts_at
    return document


def step(noun: Checkpoint, codec: Codec) -> dict[str, Any]:
    """A recorded step, with the size of its value as it is stored."""
    return {
        **record(noun, without=("value",)),
        "size_bytes": len(noun.value.encode()),
        "value": stored(noun.value, codec),
    }


def stored(text: str | None, codec: Codec) -> Any:
    """A stored value; one of a type that only the workers know is left as the JSON it is kept as."""
    if text is None:
        return None
    try:
        return codec.decode(text)
    except NotJson:
        return json.loads(text)


def _value(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except NotJson as unreadable:
        return {"unreadable": str(unreadable)}
