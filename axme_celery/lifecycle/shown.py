"""What a person is shown before they decide, as a hash: what was approved is what runs.

The hash is reckoned when the wait opens and kept with it. It is reckoned again when an answer comes, and when the code
comes back to the closed wait, so that nothing can have been put in the place of what was approved.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ..model import JsonDict


def shown_hash(title: str, request: JsonDict, payload: str) -> str:
    """SHA-256, in hex, of everything a person decides on.

    title, request: the wait's own; of the request its task type, outcomes, context and form.
    payload:        the intent's, as JSON text.
    """
    shown = [title, payload, *(request.get(part) for part in ("task_type", "outcomes", "context", "form"))]
    text = json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_named)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _named(value: Any) -> list[str]:
    # Dates, decimals, UUIDs: what kombu's JSON knows besides JSON's own. The type tells 1 from Decimal(1).
    return [type(value).__name__, value.isoformat() if hasattr(value, "isoformat") else str(value)]
