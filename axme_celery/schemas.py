"""Registered schemas: what payloads of a type must look like, checked when an intent of that type is created."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from .errors import BadInput, NotFound
from .hooks import Schema
from .model import JsonDict
from .ports import Runtime

#: How a registered type is written: dotted words and a version.
_TYPE = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+\.v[0-9]+")
MODES = ("strict", "backward", "warn")


def put(rt: Runtime, semantic_type: str, schema: Any, *, mode: str, owner: str | None, active: bool = True) -> Schema:
    """Register the schema of a type for an owner, in place of the one before.

    mode: "strict" and "backward" refuse a payload that does not fit, "warn" lets it pass; "backward" also refuses a new
          schema that requires what the one before did not.

    Raises BadInput for what is no JSON Schema, or a type or mode that is none.
    """
    if not isinstance(semantic_type, str) or len(semantic_type) > 255 or not _TYPE.fullmatch(semantic_type):
        raise BadInput(f"semantic_type is {str(semantic_type)[:80]!r}; write it like 'intent.analytics.export.v1'")
    if mode not in MODES:
        raise BadInput(f"compatibility_mode is {str(mode)[:40]!r}; it is one of {', '.join(MODES)}")
    if not isinstance(schema, dict):
        raise BadInput("schema_json must be an object")
    checked = rt.check_schema(schema)
    text = rt.codec.encode(
        checked, what="schema_json", limit_bytes=rt.settings.payload_bytes, setting="axme_payload_bytes"
    )
    before = rt.ledger.hooks.schema(owner, semantic_type)
    if before is not None and mode == "backward":
        added = sorted(_required(checked) - _required(json.loads(before.schema_json)))
        if added:
            raise BadInput(
                f"this schema requires {', '.join(added)}, which the one before did not; use another version"
            )
    digest = hashlib.sha256(json.dumps(checked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    now = rt.ledger.now()
    made = Schema(
        owner=owner or "", semantic_type=semantic_type, schema_json=text, schema_hash=digest, compatibility_mode=mode,
        schema_ref=f"registry://{owner or 'house'}/{semantic_type}@{digest[:12]}", active=active,
        created_at=now if before is None else before.created_at, updated_at=now,
    )  # fmt: skip
    rt.ledger.hooks.put_schema(made)
    return made


def get(rt: Runtime, semantic_type: str, *, owner: str | None) -> Schema:
    """The schema of a type: the owner's own, or the whole house's. Raises NotFound."""
    found = rt.ledger.hooks.schema(owner, semantic_type) or rt.ledger.hooks.schema(None, semantic_type)
    if found is None:
        raise NotFound("schema", semantic_type)
    return found


def check_payload(rt: Runtime, kind: str, payload: JsonDict, *, owner: str | None) -> None:
    """Raises BadInput for a payload that does not fit its type's registered schema."""
    found = rt.ledger.hooks.schema(owner, kind) or (rt.ledger.hooks.schema(None, kind) if owner else None)
    if found is None or not found.active or found.compatibility_mode == "warn":
        return
    rt.check_form(json.loads(found.schema_json), payload)


def _required(schema: JsonDict) -> set[str]:
    required = schema.get("required")
    return {each for each in required if isinstance(each, str)} if isinstance(required, list) else set()
