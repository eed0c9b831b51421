"""Scenarios: apply a bundle, or only say what is wrong with it."""

from __future__ import annotations

from flask import Response

from ... import scenarios
from ...durations import utc_iso
from ...model import JsonDict, Status
from ..house import house
from . import blueprint
from .problems import Problem
from .repeats import request_key, writes
from .requests import body, reply
from .rights import Role, need


@blueprint.post("/scenarios/apply", endpoint="apply_scenario")
@blueprint.post("/scenarios/bundle", endpoint="apply_bundle")
@writes
def apply_scenario() -> JsonDict:
    """Make a bundle's agents known and start its scenario. Kept when this is answered."""
    actor, here, given = need(Role.APPROVER), house(), body()
    checked = scenarios.validate(here.axme, given)
    if checked.errors:
        raise Problem(
            422, "schema_invalid", "this scenario cannot be applied: " + "; ".join(checked.errors),
            details={"errors": checked.errors, "warnings": checked.warnings},
        )  # fmt: skip
    # The bundle's own key is of this actor alone: two owners may use the same words.
    own = given.get("idempotency_key")
    key = request_key() or (None if own is None else f"scenario:{actor.owner or ''}:{own}"[:255])
    done = scenarios.apply(here.axme, given, owner=actor.owner, by=actor.id, key=key)
    intent, made = done.intent, done.agents
    first = next((step for step in done.scenario.steps if step["id"] == done.scenario.entry), {})
    pending = first.get("address") or ", ".join(first.get("to", ())) or str(first.get("kind", ""))
    return {
        "ok": True,
        "intent_id": intent.id,
        "scenario_id": done.scenario.id,
        # AXP has no word here for one that is kept and not begun.
        "status": "DELIVERED" if intent.status in (Status.CREATED, Status.SUBMITTED) else intent.status.value,
        "pending_with": pending,
        "workflow_compile_id": done.scenario.compile_id,
        "compile_id": done.scenario.compile_id,
        "idempotent": done.is_repeat,
        "agents": [{"role": role, "address": address, "created": is_new} for role, address, is_new in made],
        "agents_provisioned": [
            {"address": address, "agent_address": address} for _, address, is_new in made if is_new
        ],
        "warnings": done.scenario.warnings,
        "deadline_at": None if intent.deadline_at is None else utc_iso(intent.deadline_at),
        "created_at": utc_iso(intent.created_at),
    }  # fmt: skip


@blueprint.post("/scenarios/validate")
def validate_scenario() -> Response:
    """What keeps a bundle from being run, and what may not be as expected. Changes nothing."""
    need(Role.APPROVER)
    found = scenarios.validate(house().axme, body())
    return reply({"ok": True, "valid": not found.errors, "errors": found.errors, "warnings": found.warnings})


@blueprint.get("/tool-registry/macros")
def list_macros() -> Response:
    """Named pieces of scenarios: there are none here, bundles write their steps."""
    need()
    return reply({"ok": True, "macros": []})
