"""What this house can do, and the registered schemas of payloads."""

from __future__ import annotations

import json
import re

from flask import Response

from ... import schemas
from ...durations import utc_iso
from ...hooks import Schema
from ...model import JsonDict
from ..house import house
from . import blueprint
from .problems import Problem
from .repeats import writes
from .requests import Fields, body, reply
from .rights import Role, need

CAPABILITIES = (
    "intents.create", "intents.events", "intents.stream", "intents.resolve", "intents.resume", "intents.controls",
    "intents.policy", "agents.stream", "agents.poll", "inbox", "human_tasks", "approvals", "webhooks", "deliveries",
    "scenarios", "schemas", "mcp", "durable_waits",
)  # fmt: skip
#: AXP has types look like this here, though elsewhere it allows more.
_INTENT_TYPE = re.compile(r"intent\.[a-z0-9_]+\.v1")


@blueprint.get("/capabilities")
def get_capabilities() -> Response:
    """What can be asked of this house, and the types its own tasks serve."""
    need()
    bound = [kind for kind in house().axme.bindings.types if _INTENT_TYPE.fullmatch(kind)]
    return reply({
        "ok": True, "capabilities": list(CAPABILITIES),
        # Any type is taken; this one says so where no task is bound to a type of its own.
        "supported_intent_types": bound or ["intent.any.v1"],
    })  # fmt: skip


@blueprint.post("/schemas")
@writes
def put_schema() -> JsonDict:
    """Register the JSON Schema that payloads of a type must fit."""
    actor, fields = need(Role.OPERATOR), Fields(body())
    if (fields.line("scope", longest=16) or "tenant") != "tenant":
        raise Problem(403, "policy_denied", "scope core belongs to the protocol; register under tenant")
    fields.line("schema_ref", longest=600)
    made = schemas.put(
        house().rt, fields.line("semantic_type", required=True) or "", fields.object("schema_json", required=True),
        mode=fields.line("compatibility_mode", longest=16, required=True) or "", owner=actor.owner,
        active=fields.flag("active", True),
    )  # fmt: skip
    return {"ok": True, "schema": _shown(made)}


@blueprint.get("/schemas/<semantic_type>")
def get_schema(semantic_type: str) -> Response:
    """A type's registered schema."""
    found = schemas.get(house().rt, semantic_type, owner=need().owner)
    return reply({"ok": True, "schema": {**_shown(found), "schema_json": json.loads(found.schema_json)}})


def _shown(one: Schema) -> JsonDict:
    return {
        "semantic_type": one.semantic_type, "schema_ref": one.schema_ref, "schema_hash": one.schema_hash,
        "compatibility_mode": one.compatibility_mode, "scope": "tenant", "owner_agent": one.owner or None,
        "active": one.active, "created_at": utc_iso(one.created_at), "updated_at": utc_iso(one.updated_at),
    }  # fmt: skip
