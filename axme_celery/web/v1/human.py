"""A HumanTaskSpec as clients write it, and the wait it becomes."""

from __future__ import annotations

import re

from ...asking import OUTCOMES, question
from ...bundle import ALIKE
from ...errors import BadInput
from ...model import JsonDict, Wait
from ...submit import Gate
from ...texts import assignees
from ...who import Actor
from ..house import house
from .requests import Fields

_YES = frozenset({"approved", "confirmed", "override_approved", "assigned", "submitted", "provided", "completed"})
_NO = frozenset({"rejected", "denied", "declined", "failed", "changes_requested", "override_rejected"})
_OUTCOME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_ -]{0,63}")
_NOT_AN_ASSIGNEE = re.compile(r"[^A-Za-z0-9._%+@:/-]")


def gate(actor: Actor, kind: str, given: JsonDict, terms: JsonDict, *, known: bool) -> Gate:
    """The human task that stands before an intent's work. ``known``: somebody is there to do that work afterwards.

    Raises BadInput.
    """
    fields = Fields(given, "human_task.")
    task_type = fields.line("task_type", longest=64) or "approval"
    like = ALIKE.get(task_type, task_type)
    if like not in OUTCOMES:
        raise BadInput(f"human_task.task_type is one of {', '.join([*OUTCOMES, *ALIKE])}")
    outcomes = fields.lines("allowed_outcomes", longest=64) or list(OUTCOMES[like])
    if len(set(outcomes)) != len(outcomes) or not all(_OUTCOME.fullmatch(each) for each in outcomes):
        raise BadInput("human_task.allowed_outcomes are different words of letters, digits, _ and -")
    every = terms.get("remind_interval_seconds") or terms.get("remind_after_seconds")
    description = fields.text("description", longest=2000)
    asked = question(
        house().rt,
        fields.line("title", longest=255) or kind,
        to=_who(actor, fields),
        type=like,
        context={"description": description} if description else None,
        form=fields.object("form_schema") or fields.object("form"),
        remind_every=every,
        max_reminders=min(100, terms.get("max_reminders", 3)),
        escalate_to=terms.get("escalate_to"),
        # With reminders the last one escalates; without, there is no other moment for it than at once.
        escalate_after=1 if terms.get("escalate_to") and every is None else None,
        require_comment=fields.flag("required_comment", False),
    )
    request = {
        **asked.request,
        "task_type": task_type,
        "outcomes": sorted(outcomes, key=lambda each: each not in _YES),  # the first one is the one that says yes
        "refusals": [each for each in outcomes if each in _NO],
        "evidence_required": fields.flag("evidence_required", False),
        **({} if known else {"then": "complete"}),
        **({"remind_first_seconds": terms["remind_after_seconds"]} if terms.get("remind_after_seconds") else {}),
    }
    return Gate(title=asked.title, to=asked.to, request=request)


def _who(actor: Actor, fields: Fields) -> tuple[str, ...]:
    named = fields.lines("assignees") or [one for one in (fields.line("assignee"),) if one]
    mail = fields.line("notify_email")
    if named:
        return assignees([*named, *([mail] if mail else [])][:20], "human_task.assignees")
    # Nobody was named: whoever asked may answer, or have it answered.
    own = _NOT_AN_ASSIGNEE.sub("-", actor.id).strip("-")[:200] or "anybody"
    return assignees([*([mail] if mail else []), own], "human_task.notify_email")


def spec(wait: Wait) -> JsonDict:
    """A wait as a HumanTaskSpec."""
    asked = wait.request
    context = asked.get("context") or {}
    made: JsonDict = {
        "title": wait.title,
        "description": context.get("description") if isinstance(context, dict) else None,
        "task_type": asked.get("task_type"),
        "allowed_outcomes": asked.get("outcomes"),
        "required_comment": bool(asked.get("require_comment")),
        "assignees": list(wait.to),
        "evidence_required": bool(asked.get("evidence_required")),
        "form_schema": asked.get("form"),
    }
    return {name: value for name, value in made.items() if value is not None}
