"""Scenarios: a bundle's steps, carried out as one durable task of our own, ``axme.scenario``.

Each step is a wait or a step of that task's one leg, so a scenario survives what any intent survives; its history is
the intent's. Agents are given their steps as child intents, people are asked as by ``wait_for_human``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import agents, leg, notifiers, submit
from .bundle import Provision, Scenario, read
from .context import progress
from .durations import moment
from .errors import AgentFailed, AxmeError, BadInput, WaitTimedOut
from .model import Decision, Intent, JsonDict
from .notifiers import Notice
from .outbound import check_url
from .parties import Addressed
from .step import step
from .submit import Submission
from .wait import wait_for_agent, wait_for_human, wait_for_time

if TYPE_CHECKING:
    from .extension import Axme

TASK = "axme.scenario"
#: Steps done in one scenario, again and again counted: it may go in circles, but not for ever.
MOST_DONE = 1000

_NO = frozenset({"rejected", "denied", "declined", "failed", "changes_requested", "override_rejected"})
_YES = frozenset({"approved", "confirmed", "override_approved", "assigned", "submitted", "provided", "completed"})


class ScenarioFailed(AxmeError):
    """A step of a scenario failed, and no other step is there for that."""

    def __init__(self, step_id: str, code: str, message: str) -> None:
        super().__init__(step_id, code, message)
        #: An intent that ends by this fails with this code.
        self.code = code

    @staticmethod
    def _words(step_id: str, code: str, message: str) -> str:
        return f"step {step_id!r}: {message}"


class _StepFailed(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Applied:
    """What came of applying a bundle."""

    intent: Intent
    scenario: Scenario
    #: (role, address, whether it was made known just now).
    agents: list[tuple[str, str, bool]]
    #: True: this key had been applied before, and its intent came back.
    is_repeat: bool


def apply(
    axme: Axme, bundle: object, *, owner: str | None = None, by: str | None = None, key: str | None = None
) -> Applied:
    """Make a bundle's agents known and start its scenario. Kept when this returns.

    key: the bundle's own ``idempotency_key`` unless given. The same key and bundle: the first intent comes back.

    Raises BadInput with everything that is wrong with the bundle, KeyConflict.
    """
    scenario = validate(axme, bundle)
    if scenario.errors:
        raise BadInput("this scenario cannot be applied: " + "; ".join(scenario.errors))
    rt = axme.runtime
    if key is None and isinstance(bundle, dict):
        key = bundle.get("idempotency_key")
    text = rt.codec.encode(
        scenario.payload, what="intent.payload", limit_bytes=rt.settings.payload_bytes, setting="axme_payload_bytes"
    )
    known = None if key is None else rt.ledger.intent_by_key(key)
    signature = axme.app.signature(TASK, args=(scenario.program, scenario.payload))
    submission = Submission(
        work=axme.read_work(signature), key=key, type=scenario.intent_type, payload=text, owner=owner, requester=by,
        deadline_seconds=_until(axme, scenario.deadline_at), tags=(f"scenario:{scenario.id}"[:128],),
    )  # fmt: skip
    provided = [(one.role, one.address, _provide(axme, one, owner)) for one in scenario.agents]
    (intent,) = submit.submit(rt, [submission])
    return Applied(intent, scenario, provided, known is not None)


def validate(axme: Axme, bundle: object) -> Scenario:
    """Read a bundle and hold it to this house, without doing anything: its ``errors`` and ``warnings`` say what is wrong."""
    scenario = read(bundle)
    checks: list[Callable[[], Any]] = [
        lambda one=each: axme.runtime.check_schema(one["form"])  # type: ignore[misc]
        for each in scenario.steps
        if each.get("form") is not None
    ]
    checks += [lambda one=each: _check_agent(axme, one) for each in scenario.agents]  # type: ignore[misc]
    checks.append(lambda: _until(axme, scenario.deadline_at))
    for check in checks:
        try:
            check()
        except BadInput as wrong:
            if str(wrong) not in scenario.errors:
                scenario.errors.append(str(wrong))
    return scenario


def _until(axme: Axme, deadline_at: str | None) -> float | None:
    if deadline_at is None:
        return None
    left = (moment(deadline_at, "intent.deadline_at") - axme.runtime.ledger.now()).total_seconds()
    if left <= 0:
        raise BadInput(f"intent.deadline_at is {deadline_at}, which has passed")
    return left


def _is_known(axme: Axme, one: Provision) -> bool:
    known = axme.runtime.ledger.mailboxes.agent(one.address)
    return known is not None or axme.bindings.task_for(Addressed(one.address)) is not None


def _check_agent(axme: Axme, one: Provision) -> None:
    if one.callback_url is not None:
        check_url(one.callback_url)
    if not one.create_if_missing and not _is_known(axme, one):
        raise BadInput(
            f"agent {one.address} of role {one.role!r} is not known here, and the bundle says not to create it"
        )


def _provide(axme: Axme, one: Provision, owner: str | None) -> bool:
    """Make an agent known; True when it was not."""
    rt = axme.runtime
    if _is_known(axme, one):
        return False
    agents.register(
        rt, one.address, owner=owner, display_name=one.display_name, delivery_mode=one.delivery_mode,
        callback_url=one.callback_url,
    )  # fmt: skip
    return True


# -- carrying it out -----------------------------------------------------------------


def run(program: JsonDict, payload: JsonDict) -> JsonDict:
    """The body of ``axme.scenario``: its steps, one after the other. Returns what each came to."""
    steps: dict[str, JsonDict] = {each["id"]: each for each in program["steps"]}
    done: dict[str, Any] = {}
    at: str | None = program["entry"]
    for number in range(MOST_DONE):
        if at is None:
            return {"scenario_id": program["scenario_id"], "steps": done}
        here = steps[at]
        progress(number, max(len(steps), number + 1), at)
        try:
            done[at] = _do(program, here, payload, done)
            at = here["on_success"]
        except _StepFailed as failed:
            done[at] = {"failed": failed.code, "message": str(failed)}
            at = here["on_failure"]
            if at is None:
                raise ScenarioFailed(here["id"], failed.code, str(failed)) from None
    raise ScenarioFailed(str(at), "endless", f"the scenario did {MOST_DONE} steps and has not ended")


def _do(program: JsonDict, here: JsonDict, payload: JsonDict, done: JsonDict) -> Any:
    kind = here["kind"]
    if kind in ("delay", "timeout"):
        wait_for_time(here["seconds"])
        if kind == "timeout":
            raise _StepFailed("wait_timeout", f"its {here['seconds']:g} seconds are over")
        return {"waited_seconds": here["seconds"]}
    found: Any = None
    if kind == "agent":
        found = _ask_agent(program, here, payload, done)
    elif kind != "human" and not here.get("asks"):
        _notify(program, here)
        return {"notified": here["to"]}
    if here.get("asks"):
        answered = _ask_person(here, payload, done, found)
        return answered if kind != "agent" else {"result": found, "approval": answered}
    return found


def _ask_agent(program: JsonDict, here: JsonDict, payload: JsonDict, done: JsonDict) -> Any:
    given = {
        **payload, **here["input"],
        "scenario": {"scenario_id": program["scenario_id"], "step_id": here["id"], "results": done},
    }  # fmt: skip
    for left in range(here["retries"], -1, -1):
        try:
            return wait_for_agent(here["address"], given, timeout=here["timeout"])
        except AgentFailed as failed:
            code, words = "agent_failed", str(failed)
        except WaitTimedOut as late:
            code, words = "wait_timeout", str(late)
        if left:
            wait_for_time(here["retry_delay"])
    raise _StepFailed(code, words)


def _ask_person(here: JsonDict, payload: JsonDict, done: JsonDict, found: Any) -> JsonDict:
    context = {"description": here["description"], "payload": payload, "results": done, "result": found}
    escalate, every = here["escalate_to"], here["remind_every"]
    try:
        decision = wait_for_human(
            here["title"], to=here["to"], type=here["type"], outcomes=here["outcomes"], form=here["form"],
            context={name: value for name, value in context.items() if value}, timeout=here["timeout"],
            remind_every=every, max_reminders=here["max_reminders"], require_comment=here["require_comment"],
            # After the last reminder; without reminders, when the time is over.
            escalate_to=escalate if escalate and every else None, fallback=escalate if escalate and not every else None,
        )  # fmt: skip
    except WaitTimedOut as late:
        raise _StepFailed("wait_timeout", str(late)) from None
    if not _agreed(here, decision):
        said = f": {decision.comment}" if decision.comment else ""
        code = "rejected" if decision.outcome in _NO | _YES else decision.outcome
        raise _StepFailed(code, f"{decision.by} answered {decision.outcome!r}{said}")
    return {"outcome": decision.outcome, "by": decision.by, "comment": decision.comment, "data": decision.data}


def _agreed(here: JsonDict, decision: Decision) -> bool:
    """Whether the answer says yes: the usual words do, and the first of the step's own, unless its form says no."""
    if isinstance(decision.data, dict) and decision.data.get("approved") is False:
        return False
    if decision.outcome in _NO:
        return False
    return decision.outcome in _YES or decision.outcome == (here["outcomes"] or [None])[0]


def _notify(program: JsonDict, here: JsonDict) -> None:
    running = leg.required("a notification")
    rt, intent = running.rt, running.intent
    base = rt.settings.base_url

    def tell() -> None:
        notice = Notice(
            id=f"{intent.id}:{here['id']}", kind="message", intent_id=intent.id, wait_id=None, to=tuple(here["to"]),
            title=(here.get("subject") or here["title"]), text=here.get("body") or here["description"] or "",
            url=f"{base.rstrip('/')}/intents/{intent.id}" if base else None, at=rt.ledger.now(),
        )  # fmt: skip
        for notify in notifiers.load(rt.settings.notifiers):
            notify(notice, rt.settings)

    step(name=f"notify:{here['id']}", retries=3, backoff=10.0)(tell)()
