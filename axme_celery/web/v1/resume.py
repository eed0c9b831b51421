"""``/resume`` in the five forms published clients send it.

``task_result`` (or an ``outcome``) is a person's answer to what the intent waits for. ``action`` ends the intent as
its agent's word. Anything else goes on: what the body holds beside is the result, and where it holds nothing the
present step is approved.
"""

from __future__ import annotations

from typing import Any

from ... import agents, answer
from ...errors import BadInput, IntentEnded
from ...model import Intent, JsonDict, Status, Wait, WaitKind, WaitStatus
from ...who import Actor
from ..house import house
from . import blueprint
from .intents import error_of, shown
from .problems import Problem
from .repeats import writes_results
from .requests import Fields, body
from .rights import Role, answers_for, find, may_decide, need, needs_decider

#: Names of the body that say how to go on, and are no result.
_CONTROLS = frozenset(
    {
        "action", "reason", "actor", "expected_policy_generation", "approve_current_step", "internal_scheduler",
        "task_result", "outcome", "owner_agent",
    }
)  # fmt: skip
_COMPLETE = frozenset({"complete", "completed", "done", "success"})
_FAIL = frozenset({"fail", "failed", "error"})
_APPROVE, _REJECT = frozenset({"approve", "approved"}), frozenset({"reject", "rejected"})


@blueprint.post("/intents/<intent_id>/resume")
@writes_results
def resume_intent(intent_id: str) -> JsonDict:
    """Go on with an intent: a person's answer, an agent's result, or simply further."""
    actor, fields, given = need(Role.APPROVER), Fields(body()), body()
    intent = find(intent_id, actor)
    expected = fields.integer("expected_policy_generation", least=0)
    fields.line("actor")
    reason = fields.text("reason", longest=2000)
    agents.check_generation(intent, expected)
    action = (fields.line("action", longest=64) or "").lower()
    if given.get("task_result") is not None or (given.get("outcome") is not None and not action):
        return _applied(_answered(actor, intent, _task_result(given), reason))
    if action in _APPROVE | _REJECT:
        return _applied(_answered(actor, intent, {"approved": action in _APPROVE}, reason))
    if action in _COMPLETE | _FAIL:
        needs_decider(actor, intent)
        return _applied(_ended(actor, intent, given, reason, failed=action in _FAIL, expected=expected))
    if action and action not in ("continue", "resume"):
        raise BadInput("action must be complete, fail, approve, reject or continue")
    return _went_on(actor, intent, given, fields, reason, expected)


def _went_on(
    actor: Actor, intent: Intent, given: JsonDict, fields: Fields, reason: str | None, expected: int | None
) -> JsonDict:
    if intent.status.is_final:
        raise IntentEnded(intent.id, intent.status.value, intent.ended_at)
    approve, says_so = fields.flag("approve_current_step", True), "approve_current_step" in given
    waiting = open_human_wait(intent)
    if waiting is not None and says_so:
        return _applied(_answered(actor, intent, {"approved": approve}, reason))
    result = {k: v for k, v in given.items() if k not in _CONTROLS}
    if waiting is not None:
        raise Problem(
            409, "waiting_for_human", f"intent {intent.id} waits for a person: {waiting.title}; answer with task_result",
            details={"wait_id": waiting.id},
        )  # fmt: skip
    if not may_decide(actor, intent):
        needs_decider(actor, intent)
    if result:
        return _applied(_ended(actor, intent, given, reason, failed=False, expected=expected))
    if not approve:
        return _applied(_ended(actor, intent, given, reason or "not approved", failed=True, expected=expected))
    if intent.status is Status.WAITING:
        return _applied(intent, applied=False, reason="nothing_to_approve")
    return _applied(agents.begin(house().rt, intent.id, by=actor.id, expected_generation=expected))


def _ended(
    actor: Actor, intent: Intent, given: JsonDict, reason: str | None, *, failed: bool, expected: int | None
) -> Intent:
    rest = {k: v for k, v in given.items() if k not in _CONTROLS}
    rt, holder = house().rt, actor.agent or actor.id
    if not failed:
        return agents.complete(rt, intent.id, result=rest, by=actor.id, holder=holder, expected_generation=expected)
    error = rest.pop("error", None)
    described = error if isinstance(error, dict) else {"message": error} if isinstance(error, str) else {}
    extra = {"details": rest} if rest else {}
    return agents.complete(
        rt,
        intent.id,
        error=error_of({**extra, **described}, reason),
        by=actor.id,
        holder=holder,
        expected_generation=expected,
    )


# -- people's answers ----------------------------------------------------------------------


def _task_result(given: JsonDict) -> JsonDict:
    found = given.get("task_result")
    if found is None:
        found = {k: v for k, v in given.items() if k not in _CONTROLS}
    if not isinstance(found, dict):
        raise BadInput("task_result must be an object with an outcome")
    if given.get("outcome") is not None:
        found = {"outcome": given["outcome"], **found}
    return found


def _answered(actor: Actor, intent: Intent, result: JsonDict, reason: str | None) -> Intent:
    wait = _the_wait(intent)
    return decide(actor, wait, result, reason)


def decide(actor: Actor, wait: Wait, result: JsonDict, reason: str | None = None) -> Intent:
    """A person's answer to a wait, as clients write it. Raises what ``answer`` raises."""
    fields = Fields(result, "task_result.")
    comment = fields.text("comment", longest=4000) or reason
    outcome = _outcome(fields, result, wait)
    data = _data(wait, result)
    if wait.request.get("evidence_required") and wait.status is WaitStatus.OPEN and outcome not in _refusals(wait):
        evidence = (data or {}).get("evidence") if isinstance(data, dict) else None
        if not evidence:
            raise BadInput("this task asks for evidence: give task_result.data.evidence")
    return answer.answer(
        house().rt, wait.id, outcome, by=actor.id, comment=comment, data=data, groups=answers_for(actor),
        via=actor.via,
    )  # fmt: skip


def _outcome(fields: Fields, result: JsonDict, wait: Wait) -> str:
    named = fields.line("outcome", longest=64)
    if named is not None:
        return named
    if "approved" in result:
        return outcome_for(wait, yes=fields.flag("approved", True))
    outcomes: list[str] = wait.request["outcomes"]
    if len(outcomes) == 1:
        return outcomes[0]
    raise BadInput(f"task_result.outcome is required: one of {', '.join(outcomes)}")


def outcome_for(wait: Wait, *, yes: bool) -> str:
    """The outcome that says yes, or no. Raises BadInput where the wait has none that says no."""
    outcomes: list[str] = wait.request["outcomes"]
    if yes:
        return outcomes[0]
    refusals = _refusals(wait)
    if not refusals:
        raise BadInput(f"this task cannot be refused; its outcomes are {', '.join(outcomes)}")
    return "rejected" if "rejected" in refusals else refusals[0]


def _refusals(wait: Wait) -> list[str]:
    outcomes: list[str] = wait.request["outcomes"]
    found: list[str] = wait.request.get("refusals") or outcomes[1:]
    return found


def _data(wait: Wait, result: JsonDict) -> Any:
    """What was filled in: under ``data``, or beside the outcome; of the two, what fits the form."""
    flat = {k: v for k, v in result.items() if k not in ("outcome", "comment", "approved", "data")}
    within = result.get("data")
    form = wait.request.get("form")
    if form is None:
        return within if within is not None else (flat or None)
    if within is None:
        return flat or None
    if flat:
        try:
            house().rt.check_form(form, within)
        except BadInput:
            return flat
    return within


def open_human_wait(intent: Intent) -> Wait | None:
    """The person's wait an intent rests on, if it does."""
    if intent.waiting_reason != WaitKind.HUMAN.waiting_reason:
        return None
    waits = house().rt.ledger.waits(intent.id)
    return next((w for w in waits if w.kind is WaitKind.HUMAN and w.status is WaitStatus.OPEN), None)


def _the_wait(intent: Intent) -> Wait:
    try:
        wait_id = answer.human_wait(house().rt, intent.id)
    except BadInput as none:
        raise Problem(409, "not_waiting_for_human", str(none)) from None
    record = house().rt.ledger.wait(wait_id)
    assert record is not None
    return record.wait


def _applied(intent: Intent, *, applied: bool = True, reason: str | None = None) -> JsonDict:
    current = house().rt.ledger.intent(intent.id) or intent
    found: JsonDict = {
        "ok": True, "applied": applied, "policy_generation": agents.generation(current), "intent": shown(current),
    }  # fmt: skip
    return found if reason is None else {**found, "reason": reason}
