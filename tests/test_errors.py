"""The exceptions: one base to catch, one family not to, and words that say what to do next."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime

import pytest

import axme_celery
from axme_celery import AxmeError, BadInput, LegInterrupt, errors

NOON = datetime(2026, 10, 5, 12, 0, 7, tzinfo=UTC)
ALL = {name: each for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, BaseException)}


def test_every_error_is_an_axme_error_and_every_interrupt_is_none():
    """``except AxmeError`` catches all; ``except Exception`` lets a leg leave its body."""
    interrupts = {name for name, each in ALL.items() if issubclass(each, LegInterrupt)}

    assert interrupts == {"LegInterrupt", "Suspended", "LeaseLost", "HandedBack", "Drifted"}
    assert all(issubclass(each, AxmeError) for name, each in ALL.items() if name not in interrupts)
    assert not any(issubclass(ALL[name], Exception) for name in interrupts)


def test_every_refusal_is_a_bad_input_and_a_value_error():
    """A web view can answer 400 to all of them."""
    refusals = {name for name, each in ALL.items() if issubclass(each, BadInput)}

    assert refusals == {"BadInput", "BadSetting", "NotJson", "TooLarge", "UnsupportedWork"}
    assert issubclass(BadInput, ValueError)


def test_every_error_a_user_may_meet_is_public():
    """What is raised to users can be imported from the package; what is not never leaves it."""
    internal = {"StaleChange", "Suspended", "LeaseLost", "HandedBack", "Drifted"}

    public = {name for name in ALL if hasattr(axme_celery, name)}

    assert set(ALL) - public == internal


@pytest.mark.parametrize(
    ("error", "words", "attributes"),
    [
        (errors.TooLarge("payload", 9, 5, "axme_payload_bytes"), ["payload is 9 bytes", "limit of 5", "axme_payload_bytes"],
         {"what": "payload", "size_bytes": 9, "limit_bytes": 5}),
        (errors.KeyConflict("k", "i-1"), ["'k'", "i-1", "use another key"], {"key": "k", "intent_id": "i-1"}),
        (errors.NotFound("intent", "i-1"), ["no intent i-1", "axme_ledger_url"], {"what": "intent", "id": "i-1"}),
        (errors.WaitClosed("w-1", "ANSWERED", NOON, "ana"), ["w-1", "answered by ana at 2026-10-05 12:00:07Z", "nothing was changed"],
         {"wait_id": "w-1", "status": "ANSWERED", "closed_at": NOON, "closed_by": "ana"}),
        (errors.WaitClosed("w-1", "EXPIRED", None, None), ["w-1 was already expired;"], {"closed_by": None}),
        (errors.IntentEnded("i-1", "COMPLETED", NOON), ["i-1 ended COMPLETED at 2026-10-05", "never changes"], {"status": "COMPLETED"}),
        (errors.OutsideIntent("wait_for_time()"), ["wait_for_time() works only inside a leg", ".delay()"], {}),
        (errors.IntentFailed("i-1", "ValueError", "no month"), ["i-1", "no month", "[ValueError]"], {"code": "ValueError", "message": "no month"}),
        (errors.WaitTimedOut("w-1", "Publish?", NOON), ["'Publish?'", "by 2026-10-05 12:00:07Z", "w-1"], {"code": "wait_timeout"}),
        (errors.ToolFailed("warehouse", "j", {"code": 5}), ["warehouse job j failed", "5"], {"error": {"code": 5}, "code": "tool_failed"}),
        (errors.AgentFailed("i-2", {"code": "x"}), ["i-2 did not complete"], {"intent_id": "i-2", "code": "agent_failed"}),
        (errors.StepInterrupted("pay", 2, 3), ["'pay' (call 2)", "run 3", "check the outside system"], {"nth": 2, "code": "step_interrupted"}),
        (errors.StepFailed("pay", "too large"), ["step 'pay': too large"], {"name": "pay", "code": "step_failed"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)  # fmt: skip
def test_an_error_says_what_happened_to_what_and_what_to_do(error, words, attributes):
    """And carries what a handler needs."""
    said = str(error)

    assert [each for each in words if each not in said] == []
    assert {name: getattr(error, name) for name in attributes} == attributes
