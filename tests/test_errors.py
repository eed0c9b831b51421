"""The exceptions: one base to catch, one family not to, and words that say what to do next."""

from __future__ import annotations

import inspect
import json
import pickle
from datetime import UTC, datetime

import pytest
from celery import Celery
from celery.backends.base import Backend

import axme_celery
from axme_celery import AxmeError, BadInput, LegInterrupt, errors
from axme_celery.failure import describe, revive
from axme_celery.scenarios import ScenarioFailed

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


#: Each error, how its words begin, and what it carries.
ERRORS = [
    (
        errors.TooLarge("payload", 9, 5, "axme_payload_bytes"),
        "payload is 9 bytes, over the limit of 5; raise axme_payload_bytes",
        {"what": "payload", "size_bytes": 9, "limit_bytes": 5},
    ),
    (
        errors.KeyConflict("k", "i-1"),
        "key 'k' already belongs to intent i-1, which was submitted with other work; use another key",
        {"key": "k", "intent_id": "i-1"},
    ),
    (
        errors.NotFound("intent", "i-1"),
        "no intent i-1 in this ledger; check the id, and that this process uses the same axme_ledger_url",
        {"what": "intent", "id": "i-1"},
    ),
    (
        errors.NotFound("step", "'x' of intent i-1", hint="recorded there: a#1"),
        "no step 'x' of intent i-1 in this ledger; recorded there: a#1",
        {"what": "step"},
    ),
    (
        errors.WaitClosed("w-1", "ANSWERED", NOON, "ana"),
        "wait w-1 was already answered by ana at 2026-10-05 12:00:07Z; nothing was changed",
        {"wait_id": "w-1", "status": "ANSWERED", "closed_at": NOON, "closed_by": "ana"},
    ),
    (
        errors.WaitClosed("w-1", "EXPIRED", None, None),
        "wait w-1 was already expired; nothing was changed",
        {"status": "EXPIRED", "closed_at": None, "closed_by": None},
    ),
    (
        errors.WaitClosed("w-1", "CANCELED", NOON, "ana", kept=True),
        "wait w-1 was already canceled by ana at 2026-10-05 12:00:07Z; the report is kept for a wait that opens later",
        {"status": "CANCELED", "kept": True},
    ),
    (
        errors.IntentEnded("i-1", "COMPLETED", NOON),
        "intent i-1 ended COMPLETED at 2026-10-05 12:00:07Z; an ended intent never changes",
        {"intent_id": "i-1", "status": "COMPLETED", "ended_at": NOON},
    ),
    (
        errors.ShownChanged("w-1", None, "a" * 64),
        "what wait w-1 shows has changed since it was opened: it is aaaaaaaaaaaa... now",
        {"wait_id": "w-1", "expected": None, "current": "a" * 64},
    ),
    (
        errors.NotAllowed("ana has voted", "voted"),
        "ana has voted",
        {"why": "voted"},
    ),
    (
        errors.LinkInvalid("closed"),
        "what this link leads to is closed",
        {"why": "closed"},
    ),
    (
        errors.HandledByQueue("i-1"),
        "intent i-1 is run by Celery tasks, which complete it; cancel it or fail it",
        {"intent_id": "i-1"},
    ),
    (
        errors.StaleGeneration("i-1", 3, 4),
        "intent i-1 has policy generation 4, not 3; read it again",
        {"generation": 4},
    ),
    (
        errors.OutsideIntent("wait_for_time()"),
        "wait_for_time() works only inside a leg of an intent; call the task with .delay()",
        {},
    ),
    (
        errors.IntentFailed("i-1", "ValueError", "no month"),
        "intent i-1: no month [ValueError]",
        {"intent_id": "i-1", "code": "ValueError", "message": "no month"},
    ),
    (
        errors.WaitTimedOut("w-1", "Publish?", NOON),
        "nobody answered 'Publish?' by 2026-10-05 12:00:07Z (wait w-1)",
        {"wait_id": "w-1", "code": "wait_timeout"},
    ),
    (
        errors.ToolFailed("warehouse", "j-1", {"code": 5}),
        "warehouse job j-1 failed: {'code': 5}",
        {"tool": "warehouse", "job_id": "j-1", "error": {"code": 5}, "code": "tool_failed"},
    ),
    (
        errors.AgentFailed("i-2", {"code": "x"}),
        "agent's intent i-2 did not complete",
        {"intent_id": "i-2", "error": {"code": "x"}, "code": "agent_failed"},
    ),
    (
        errors.StepInterrupted("pay", 2, 3),
        "step 'pay' (call 2) was started in run 3 and its outcome is unknown",
        {"name": "pay", "nth": 2, "run": 3, "code": "step_interrupted"},
    ),
    (
        errors.StepFailed("pay", "too large"),
        "step 'pay': too large",
        {"name": "pay", "code": "step_failed"},
    ),
    (
        ScenarioFailed("check", "rejected", "ana answered 'rejected'"),
        "step 'check': ana answered 'rejected'",
        {"code": "rejected"},
    ),
]
#: Those that say only what they are given.
PLAIN = [each("words") for each in ALL.values() if issubclass(each, AxmeError) and each._words is None]
#: One of each at least.
EXAMPLES = [*(error for error, _, _ in ERRORS), *PLAIN, *(
    each("i-1", "code", "words") for each in (errors.IntentNotCompleted, errors.IntentCanceled, errors.IntentTimedOut)
)]  # fmt: skip


@pytest.mark.parametrize(("error", "says", "carries"), ERRORS, ids=[says for _, says, _ in ERRORS])
def test_an_error_says_what_happened_to_what_and_what_to_do(error, says, carries):
    """And carries what a handler needs."""
    said = str(error)

    assert said.startswith(says)
    assert {name: getattr(error, name) for name in carries} == carries


BACKEND = Backend(Celery(set_as_current=False), serializer="json")


def pickled(error):
    """As a pool's child hands it to its parent, and a result backend with pickle keeps it."""
    return pickle.loads(pickle.dumps(error))


def as_json(error):
    """As Celery's result backend keeps it: by the arguments of its class."""
    return BACKEND.exception_to_python(BACKEND.decode(BACKEND.encode(BACKEND.prepare_exception(error))))


def as_plain_json(error):
    """As a result backend whose serializer knows no moments keeps it."""
    return BACKEND.exception_to_python(json.loads(json.dumps(BACKEND.prepare_exception(error))))


def test_there_is_an_example_of_every_error():
    """So that the tests below hold all of them."""
    assert {type(error) for error in EXAMPLES} >= {each for each in ALL.values() if issubclass(each, AxmeError)}


@pytest.mark.parametrize("way", [pickled, as_json, as_plain_json])
@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_that_leaves_a_task_comes_back_as_itself(error, way):
    """``AsyncResult.get()`` raises the class its handler names, saying the same and with the same attributes."""
    again = way(error)

    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


@pytest.mark.parametrize("error", [e for e in EXAMPLES if not hasattr(e, "error")], ids=repr)
def test_an_error_that_leaves_the_ledger_for_celery_comes_back_as_itself(error):
    """Of a leg that Celery's own result was not stored for, from the arguments the ledger has kept."""
    again = as_json(revive(json.loads(json.dumps(describe(error)))))

    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_an_error_recorded_with_its_words_alone_still_says_them():
    """Steps that were recorded so by an earlier version are raised again as they were."""
    recorded = {"exception": "axme_celery.errors:StepFailed", "args": ["step 'pay': no"], "message": "step 'pay': no"}

    again = revive({**recorded, "attributes": {"name": "pay"}})

    assert (type(again), str(again), again.name) == (errors.StepFailed, "step 'pay': no", "pay")


def test_an_error_of_many_words_comes_back_from_the_ledger_too():
    """What fails quotes whole statements and pages; as much of it as is kept names the same class."""
    error = errors.IntentFailed("i-1", "ProgrammingError", "no such table " * 500)

    again = revive(json.loads(json.dumps(describe(error, attributes=True))))

    assert (type(again), str(again), again.code) == (errors.IntentFailed, str(error), "ProgrammingError")
