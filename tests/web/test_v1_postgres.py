"""The questions the HTTP interface asks of the ledger, asked of PostgreSQL too."""

from __future__ import annotations

import pytest

from axme_celery.ledger.migrate import upgrade
from axme_celery.testing import Stage


@pytest.fixture
def stage(app, postgres_url):
    """The stage on PostgreSQL."""
    upgrade(postgres_url)
    with Stage(app, ledger_url=postgres_url) as stage:
        yield stage


def test_intents_threads_tasks_and_mailboxes(api, create, stage):
    """Every list with every filter it has."""
    asked = create(
        human_task={"title": "?", "assignees": ["ana"]}, to_agent="agent://nobody", reply_to="agent://acme/me"
    )
    sent = create(owner="acme", who="acme-app", role="operator")
    stage.pass_time("1s")
    ana = {"who": "ana", "role": "approver"}

    assert len(api("GET", "/intents?status=pending&to_agent=agent://nobody").json["intents"]) == 1
    page = api("GET", "/intents?limit=1").json
    assert len(api("GET", f"/intents?cursor={page['next_cursor']}").json["intents"]) == 1
    assert [t["thread_id"] for t in api("GET", "/inbox?status=pending", **ana).json["threads"]] == [asked]
    assert api("GET", "/inbox?status=active", **ana).json["threads"] == []
    assert len(api("GET", "/inbox?owner_agent=agent://acme/me&status=pending").json["threads"]) == 1
    assert [c["thread"]["thread_id"] for c in api("GET", "/inbox/changes").json["changes"]] == [asked, sent]
    assert len(api("GET", "/me/tasks", **ana).json["tasks"]) == 1

    bot = {"who": "bot", "role": "approver", "agent": "agent://acme/ops/bot"}
    (told,) = api("GET", "/agents/bot/intents", **bot).json["intents"]
    assert (told["intent_id"], told["seq"]) == (sent, 1)
    assert len(api("GET", "/agents?org_id=acme").json["agents"]) == 1
    headers = {"Idempotency-Key": "k"}
    answers = [api("POST", f"/inbox/{asked}/reply", json={"message": "é"}, headers=headers, **ana) for _ in range(2)]
    assert answers[0].data == answers[1].data and answers[0].status_code == 200
    assert api("POST", f"/inbox/{asked}/messages/delete", json={}, **ana).json["deleted_count"] == 1
    assert api("POST", f"/inbox/{asked}/messages/delete", json={"mode": "both"}).json["deleted_count"] == 1
    stage.pass_time("2m")
    assert api("GET", "/agents/bot/intents?since=1", **bot).json["intents"][0]["delivery_attempt"] == 2
    done = api("POST", f"/intents/{sent}/resume", json={"action": "complete"}, **bot)
    assert done.json["intent"]["status"] == "COMPLETED"
