"""Questions to people: every argument of ``wait_for_human``, checked once, for all who ask.

A question is plain JSON, so it can be kept in a plan until the moment it is asked. What its moments are is reckoned
only then (``lifecycle.with_moments``).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import lifecycle
from .durations import Duration, seconds
from .errors import BadInput
from .hours import BusinessHours
from .model import Intent, JsonDict
from .ports import Runtime
from .texts import assignees, line

#: Human task types and the outcomes a person may choose, the one that says yes first.
OUTCOMES: dict[str, tuple[str, ...]] = {
    "approval": ("approved", "rejected"),
    "confirmation": ("confirmed", "denied"),
    "review": ("approved", "changes_requested", "rejected"),
    "assignment": ("assigned", "declined"),
    "form": ("submitted",),
    "clarification": ("provided", "declined"),
    "manual_action": ("completed", "failed"),
    "override": ("override_approved", "rejected"),
}
#: Types whose answer needs words: without them nobody knows afterwards why.
_NEED_COMMENT = frozenset({"clarification", "override"})
_OUTCOME = re.compile(r"[a-z][a-z0-9_]{0,63}")

#: Whom to ask as well, and when: names; (names, after); {"to": names, "after": duration}; or a list of the latter two.
Escalation = str | Sequence[str] | Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """What is asked of whom: the parts of a wait that are known before it opens."""

    title: str
    to: tuple[str, ...]
    #: What was asked, as the wait keeps it.
    request: JsonDict


def question(
    rt: Runtime,
    title: str,
    *,
    to: str | Sequence[str],
    type: str = "approval",
    context: Mapping[str, Any] | None = None,
    form: Any = None,
    outcomes: Sequence[str] | None = None,
    timeout: Duration | None = None,
    on_timeout: str = "fail",
    remind_every: Duration | None = None,
    max_reminders: int = 3,
    escalate_to: Escalation | None = None,
    escalate_after: Duration | None = None,
    fallback: str | Sequence[str] | None = None,
    due: Duration | None = None,
    business_hours: bool | Mapping[str, Any] | None = None,
    quorum: int = 1,
    reject_policy: str = "any",
    not_by: str | Sequence[str] = (),
    delegates: bool | str | Sequence[str] = True,
    require_comment: bool | str | Sequence[str] = False,
    bulk: bool = False,
) -> Question:
    """The arguments of ``wait_for_human``, which says what each means, checked. Raises BadInput."""
    if not isinstance(type, str) or type not in OUTCOMES:
        raise BadInput(f"type {type!r} is no human task type; use one of: {', '.join(OUTCOMES)}")
    allowed = _outcomes(outcomes) if outcomes is not None else OUTCOMES[type]
    if on_timeout != "fail" and on_timeout not in allowed:
        raise BadInput(f"on_timeout is {on_timeout!r}; use 'fail' or one of the outcomes: {', '.join(allowed)}")
    if timeout is None and (on_timeout != "fail"):
        raise BadInput(f"on_timeout is {on_timeout!r}, but there is no timeout; give timeout= as well")
    _whole(quorum, "quorum", 1, 20, "people")
    if reject_policy not in ("any", "quorum"):
        raise BadInput(f"reject_policy is {reject_policy!r}; use 'any' (one no closes the wait) or 'quorum'")
    _whole(max_reminders, "max_reminders", 0, 100, "times")
    request: JsonDict = {
        "task_type": type,
        "outcomes": list(allowed),
        "on_timeout": on_timeout,
        "quorum": quorum,
        **_comments(require_comment, type, allowed),
    }
    if reject_policy != "any":
        request["reject_policy"] = reject_policy
    if context is not None:
        if not isinstance(context, Mapping):
            raise BadInput("context must be a dict: what the person needs to see, by name")
        request["context"] = _json(rt, dict(context), "context")
    if form is not None:
        request["form"] = rt.check_schema(form)
    if not_by:
        request["not_by"] = list(assignees(not_by, "not_by"))
    if not isinstance(delegates, bool):
        request["delegates"] = list(assignees(delegates, "delegates"))
    elif not delegates:
        request["delegates"] = False
    if bulk:
        if form is not None:
            raise BadInput("bulk=True is for questions without a form: who answers many at once fills none in")
        request["bulk"] = True
    if timeout is not None:
        request["timeout_seconds"] = positive(timeout, "timeout")
    if due is not None:
        request["due_seconds"] = positive(due, "due")
    if remind_every is not None:
        request |= {"remind_every_seconds": positive(remind_every, "remind_every"), "max_reminders": max_reminders}
    rungs = _ladder(escalate_to, escalate_after, reminded=remind_every is not None and max_reminders > 0)
    if rungs:
        request["escalation"] = rungs
    if fallback is not None:
        request["fallback"] = list(assignees(fallback, "fallback"))
    hours = _hours(rt, business_hours)
    if hours is not None:
        request["business_hours"] = hours.as_json()
    return Question(line(title, "title"), assignees(to, "to"), request)


def parted(rt: Runtime, intent: Intent, request: JsonDict) -> JsonDict:
    """The request as it must be where ``not_by`` keeps the intent's requester out: without whoever else asked for it.

    An intent goes back to others: to the one that it repeats, and to the one that has begun it (as an agent's work, as a
    callback). Who asked for those keeps out of it as well.

    Raises BadInput where that cannot be seen to: nobody said who it was, or such an intent has been pruned.
    """
    if lifecycle.REQUESTER not in request.get("not_by", ()):
        return request
    others, todo = list[str](), [intent]
    while todo:
        for id in lifecycle.goes_back_to(todo.pop()):
            found = rt.ledger.intent(id)
            if found is None:
                raise BadInput(
                    f'not_by has "requester", but intent {id}, which this one goes back to, is not in this ledger any '
                    f"more; whoever asked for that cannot be kept out of it"
                )
            if found.requester is None:
                raise BadInput(
                    f'not_by has "requester", but intent {id}, which this one goes back to, does not say who that is; '
                    f'give submit(..., requester="ana")'
                )
            others.append(found.requester)
            todo.append(found)
    return request | {"not_by": list(dict.fromkeys([*request["not_by"], *others]))}


def positive(duration: Duration, what: str) -> float:
    """A duration longer than nothing, in seconds. Raises BadInput."""
    span = seconds(duration, what)
    if span <= 0:
        raise BadInput(f"{what} is {duration!r}; it must be longer than nothing")
    return span


# -- one by one ---------------------------------------------------------------------


def _ladder(to: Escalation | None, after: Duration | None, *, reminded: bool) -> list[JsonDict]:
    """The rungs in order, each with whom to ask and how long after the opening; None: after the last reminder."""
    if to is None:
        if after is not None:
            raise BadInput("escalate_after needs somebody: give escalate_to")
        return []
    if isinstance(to, Mapping):
        to = [to]
    if isinstance(to, str) or not any(isinstance(each, tuple | list | Mapping) for each in to):
        names = list(assignees(to, "escalate_to"))
        if after is None and not reminded:
            raise BadInput(
                "escalate_to needs a moment: give escalate_after, or remind_every, whose last one it follows"
            )
        return [{"to": names, "after_seconds": None if after is None else positive(after, "escalate_after")}]
    if after is not None:
        raise BadInput("escalate_to has its own delays; leave escalate_after out")
    if len(to) > 10:
        raise BadInput(f"escalate_to has {len(to)} rungs; ten are the most")
    rungs: list[JsonDict] = []
    for each in to:
        if isinstance(each, Mapping) and set(each) == {"to", "after"}:
            names, delay = each["to"], each["after"]
        elif isinstance(each, tuple | list) and len(each) == 2:
            names, delay = each
        else:
            raise BadInput(
                f'escalate_to has {str(each)[:80]!r}; write rungs like ("cto", "1d") or {{"to": "cto", "after": "1d"}}'
            )
        rungs.append(
            {"to": list(assignees(names, "escalate_to")), "after_seconds": positive(delay, "escalate_to's after")}
        )
    if any(b["after_seconds"] <= a["after_seconds"] for a, b in itertools.pairwise(rungs)):
        raise BadInput("escalate_to must climb: each rung's delay, counted from the opening, is longer than the last")
    return rungs


def _hours(rt: Runtime, given: bool | Mapping[str, Any] | None) -> BusinessHours | None:
    house = rt.settings.business_hours
    if given is False or (given is None and house is None):
        return None
    if given is None or given is True:
        if house is None:
            raise BadInput("business_hours is True, but axme_business_hours is not set; set it, or give the hours here")
        return BusinessHours.read(house, "axme_business_hours")
    return BusinessHours.read(given, "business_hours")


def _comments(required: bool | str | Sequence[str], type: str, allowed: Sequence[str]) -> JsonDict:
    """Which answers need words: all, or these outcomes."""
    if isinstance(required, bool):
        always, some = required, list[str]()
    else:
        always, some = False, [required] if isinstance(required, str) else list(required)
    unknown = [outcome for outcome in some if outcome not in allowed]
    if unknown:
        raise BadInput(f"require_comment has {unknown[0]!r}, which is no outcome of it; use: {', '.join(allowed)}")
    # Nobody can change anything on "please change it".
    some += [outcome for outcome in allowed if outcome == "changes_requested" and outcome not in some]
    return {"require_comment": always or type in _NEED_COMMENT, **({"comment_for": some} if some else {})}


def _outcomes(outcomes: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(outcomes) if isinstance(outcomes, list | tuple) else (outcomes,)
    if not 1 <= len(chosen) <= 20 or not isinstance(outcomes, str | list | tuple):
        raise BadInput(f"outcomes is {outcomes!r}; give 1 to 20 different ones")
    for outcome in chosen:
        if not isinstance(outcome, str) or not _OUTCOME.fullmatch(outcome) or outcome == "fail":
            raise BadInput(f"outcome {outcome!r} is not a lower-case word such as 'approved' (a-z, 0-9, _, at most 64)")
    if len(set(chosen)) != len(chosen):
        raise BadInput(f"outcomes is {outcomes!r}; give 1 to 20 different ones")
    return chosen


def _whole(value: Any, what: str, least: int, most: int, of: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadInput(f"{what} is {value!r}; it is a number from {least} to {most} ({of})")


def _json(rt: Runtime, value: Any, what: str) -> Any:
    """The value as the ledger will give it back."""
    limit = rt.settings.payload_bytes
    return rt.codec.decode(rt.codec.encode(value, what=what, limit_bytes=limit, setting="axme_payload_bytes"))


__all__ = ["OUTCOMES", "Escalation", "Question", "parted", "positive", "question"]
