"""What a person is shown before they decide, as a hash: what was approved is what runs.

The hash is reckoned when the wait opens and kept with it. It is reckoned again when an answer comes, and when the code
comes back to the closed wait, so that nothing can have been put in the place of what was approved.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from ..model import JsonDict, Wait


def shown_hash(title: str, request: JsonDict, payload: str) -> str:
    """SHA-256, in hex, of everything a person decides on.

    title, request: the wait's own; of the request its task type, outcomes, context and form.
    payload:        the intent's, as JSON text.
    """
    shown = [title, payload, *(request.get(part) for part in ("task_type", "outcomes", "context", "form"))]
    text = json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_named)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def shown_with(wait: Wait, payload: str, now: str) -> Wait:
    """The wait of an intent with this payload, in one that says of itself ``now``: what was shown is the same still.

    A wait that shows something else than it was opened with keeps its hash, by which that is found out.
    """
    if wait.payload_hash is None or wait.payload_hash != shown_hash(wait.title, wait.request, payload):
        return wait
    return replace(wait, payload_hash=shown_hash(wait.title, wait.request, now))


def _named(value: Any) -> list[str]:
    # Dates, decimals, UUIDs: what kombu's JSON knows besides JSON's own. The type tells 1 from Decimal(1).
    return [type(value).__name__, value.isoformat() if hasattr(value, "isoformat") else str(value)]
