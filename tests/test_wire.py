"""The wire: one form of an intent and its events, for every door."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

from axme_celery import wait_for_human, wait_for_tool, wire
from axme_celery.model import Status


def shown(stage, intent):
    """The intent's history as the wire has it."""
    record = stage.axme.runtime.ledger.intent(intent.id)
    return [wire.event(told, record) for told in stage.history(intent)]


def test_the_last_event_of_a_completed_intent_has_its_result(stage, axme):
    """Where each published client looks for it; and no other event has one."""

    @axme.task
    def work():
        return {"rows": 47}

    *earlier, last = shown(stage, stage.submit(work.s()))

    assert (last["event_type"], last["status"]) == ("intent.completed", "COMPLETED")
    assert last["result"] == last["details"]["result"] == {"rows": 47}
    assert not any("result" in told or "result" in told["details"] for told in earlier)


def test_a_result_of_nothing_is_told_as_null(stage, axme):
    @axme.task
    def work():
        pass

    last = shown(stage, stage.submit(work.s()))[-1]

    assert (last["result"], last["details"]["result"]) == (None, None)


def test_a_failed_intent_says_why_where_clients_look(stage, axme):
    @axme.task
    def work():
        raise ValueError("no such month")

    last = shown(stage, stage.submit(work.s()))[-1]

    assert last["event_type"] == "intent.failed"
    assert last["error"] == last["details"]["error"]
    assert "no such month" in last["error"]["message"]


def test_an_event_is_the_same_text_whenever_it_is_written(stage, axme):
    """While the intent waits and after it has ended: a webhook tried again sends what was sent before."""

    @axme.task
    def work():
        return wait_for_human("Publish?", to="ana").outcome

    intent = stage.submit(work.s())
    record = stage.axme.runtime.ledger.intent(intent.id)
    before = [wire.event_text(told, record) for told in stage.history(intent)]
    stage.answer(intent, "approved", by="ana")
    record = stage.axme.runtime.ledger.intent(intent.id)
    after = [wire.event_text(told, record) for told in stage.history(intent)]

    assert record.status is Status.COMPLETED
    assert after[: len(before)] == before
    assert not any("\n" in text for text in after)


def test_a_waiting_event_names_whom_it_waits_for(stage, axme):
    @axme.task
    def asks():
        wait_for_human("Publish?", to=["ana", "bo"], type="review")

    @axme.task
    def calls():
        wait_for_tool("warehouse", "job-1")

    told = {each["event_type"]: each for each in shown(stage, stage.submit(asks.s()))}
    waiting, assigned = told["intent.waiting"], told["intent.human_task_assigned"]
    tool = shown(stage, stage.submit(calls.s()))[-1]

    assert waiting["waiting_reason"] == waiting["lifecycle_waiting_reason"] == "WAITING_FOR_HUMAN"
    assert waiting["pending_with"] == {"type": "human", "ref": "ana, bo", "name": "Publish?"}
    assert assigned["human_task"] == {
        "title": "Publish?", "task_type": "review", "assignees": ["ana", "bo"],
        "allowed_outcomes": ["approved", "changes_requested", "rejected"],
    }  # fmt: skip
    assert tool["pending_with"] == {"type": "internal", "ref": "warehouse:job-1", "name": "warehouse job job-1"}


def test_names_without_a_value_are_left_out(stage, axme):
    """Some readers forbid null where a name is optional."""

    @axme.task
    def work():
        return None

    first = shown(stage, stage.submit(work.s()))[0]

    assert first.keys() == {"intent_id", "seq", "event_type", "status", "at", "details"}


def test_values_json_does_not_know_are_written_as_their_usual_text(axme, stage):
    """Readers outside Python get no envelope of Celery's."""
    value = {
        "at": datetime(2026, 10, 31, 17, tzinfo=UTC), "day": date(2026, 10, 31), "cost": Decimal("1.10"),
        "id": UUID(int=7), "raw": b"abc", "list": [datetime(2026, 1, 1, tzinfo=UTC)],
    }  # fmt: skip
    text = axme.runtime.codec.encode(value, what="it", limit_bytes=10_000, setting="none")

    found = wire.plain(text)

    assert "__type__" not in json.dumps(found)
    assert found["at"].startswith("2026-10-31T17:00") and found["day"] == "2026-10-31"
    assert (found["cost"], found["id"]) == ("1.10", "00000000-0000-0000-0000-000000000007")


def test_an_intent_is_written_with_every_name_clients_read(stage, axme):
    """Canonical, and the older names beside it; they agree."""

    @axme.task
    def work(month):
        return wait_for_human("Publish?", to="ana").outcome

    intent = stage.submit(work.s("2026-10"), requester="ops", deadline="1d")
    ledger = axme.runtime.ledger
    waiting = wire.intent(ledger.intent(intent.id), pending={"to": ["ana"], "title": "Publish?"})
    stage.answer(intent, "approved", by="ana")
    done = wire.intent(ledger.intent(intent.id))

    assert waiting["status"] == waiting["lifecycle_status"] == "WAITING"
    assert (waiting["legacy_status"], waiting["pending_with"]["ref"]) == ("blocked", "ana")
    assert (done["legacy_status"], done["result"], "pending_with" in done) == ("done", "approved", False)
    assert done["correlation_id"] == done["intent_id"] == intent.id
    assert done["payload"]["args"] == ["2026-10"]
    assert set(wire.LEGACY_STATUS) == set(Status)
