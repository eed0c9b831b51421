"""Tools report their jobs: by a token of the job, a signature, or a key; before or after anybody waits."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from standardwebhooks.webhooks import Webhook

from axme_celery import Axme, BadInput, BadSetting, callback_url, wait_for_tool
from axme_celery.callbacks import is_token, token
from axme_celery.testing import Stage
from axme_celery.web import create_app
from tests.doors.project import make_app

from .conftest import SECRET

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def app():
    """A project that is reached under an address, with a tool that signs."""
    return make_app(
        broker_url="amqp://127.0.0.1:1", result_backend="redis://127.0.0.1:1", axme_base_url="https://axme.example",
        axme_secret_key=SECRET, axme_tool_secrets={"signer": WHSEC}, axme_hosts=["localhost"],
    )  # fmt: skip


@pytest.fixture
def waiting(stage, axme):
    """``waiting(tool, job)``: an intent that waits for the tool's job."""

    @axme.task
    def working(tool, job):
        return wait_for_tool(tool, job, heartbeat="1m")

    return lambda tool="warehouse", job="job/1": stage.submit(working.s(tool, job))


@pytest.fixture
def report(web, stage):
    """``report(url, body, headers)``: what a tool does, which has no key."""

    def send(url, body, **headers):
        parts = urlsplit(url)
        path = f"{parts.path}?{parts.query}"
        answer = web.test_client().post(
            path, data=body if isinstance(body, bytes) else json.dumps(body), headers=headers
        )
        stage.run()
        return answer

    return send


def test_a_tool_reports_at_the_address_it_was_given(axme, waiting, report):
    """With a token for this one job: nothing else is needed, and nothing else is let in by it."""
    url = axme.callback_url("warehouse", "job/1")
    intent = waiting()

    assert url.startswith("https://axme.example/v1/tools/warehouse/jobs/job%2F1?token=")
    assert report(url, {"result": {"rows": 3}}).status_code == 200
    assert intent.refresh().result == {"rows": 3}
    assert report(url, {"result": {"rows": 3}}).status_code == 200, "the same again is fine"
    late = report(url, {"result": {"rows": 4}})
    assert (late.status_code, late.json["error"]["code"]) == (409, "already_decided")


def test_a_report_may_come_before_anybody_waits(axme, waiting, report):
    """It is kept, and consumed when the wait opens."""
    assert report(axme.callback_url("warehouse", "job/1"), {"result": 7}).status_code == 200
    assert waiting().result == 7


def test_a_job_is_reported_as_failed_or_alive(axme, waiting, report, stage):
    """By its error, by its status, or by an action."""
    alive = waiting(job="a")
    url = axme.callback_url("warehouse", "a")
    stage.pass_time("50s")
    assert report(url, {"status": "heartbeat", "progress": 0.4}).status_code == 200
    stage.pass_time("50s")
    assert report(url, {"action": "heartbeat"}).status_code == 200
    stage.pass_time("50s")
    assert alive.refresh().status == "WAITING"
    assert report(url, {"error": {"code": "no_disk"}}).status_code == 200
    assert alive.refresh().error["code"] == "tool_failed"
    failed = waiting(job="b")
    report(axme.callback_url("warehouse", "b"), {"action": "fail"})
    assert failed.refresh().status == "FAILED"
    done = waiting(job="c")
    report(axme.callback_url("warehouse", "c"), {"status": "completed"})
    assert done.refresh().status == "COMPLETED"


@pytest.mark.parametrize(
    "sent", [{}, {"status": "odd"}, {"status": "heartbeat", "progress": 3}, {"progress": True}, [1], 3]
)
def test_what_is_no_report_is_refused(axme, waiting, report, sent):
    """And the job goes on being waited for."""
    intent = waiting()
    assert report(axme.callback_url("warehouse", "job/1"), sent).status_code == 422
    assert intent.refresh().status == "WAITING"


def test_a_signed_report_is_let_in(waiting, report):
    """As Standard Webhooks sign it, with the tool's own secret; not when it is changed, old, or another's."""
    intent = waiting("signer", "1")
    body, now = json.dumps({"result": 1}), datetime.now(UTC)
    path = "/v1/tools/signer/jobs/1"

    def signed(at=now, text=body, secret=WHSEC):
        made = Webhook(secret).sign("msg_1", at, text)
        return {"webhook-id": "msg_1", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": made}

    for wrong in (
        signed(text=body + " "), signed(at=now - timedelta(hours=1)), signed(secret="whsec_" + "A" * 32),
        {**signed(), "webhook-signature": ""}, {"webhook-signature": "v1,x"},
    ):  # fmt: skip
        assert report(path, body.encode(), **wrong).status_code == 401
    assert report("/v1/tools/warehouse/jobs/1", body.encode(), **signed()).status_code == 401, "it has no secret"
    assert intent.refresh().status == "WAITING"
    assert report(path, body.encode(), **signed()).status_code == 200
    assert intent.refresh().result == 1


def test_a_key_reports_too(waiting, api):
    """An approver's for what it sees; before anybody waits, an operator's of the whole house."""
    intent = waiting(job="1")
    assert api("POST", "/tools/warehouse/jobs/1", json={"result": 1}, who="v", role="viewer").status_code == 403
    assert (
        api("POST", "/tools/warehouse/jobs/1", json={"result": 1}, who="o", role="operator", owner="acme").status_code
        == 404
    )
    assert api("POST", "/tools/warehouse/jobs/1", json={"result": 1}, who="a", role="approver").status_code == 200
    assert intent.refresh().result == 1
    assert api("POST", "/tools/warehouse/jobs/2", json={"result": 1}, who="a", role="approver").status_code == 404
    assert api("POST", "/tools/warehouse/jobs/2", json={"result": 1}).status_code == 200


def test_forged_reports_change_nothing(waiting, report, axme):
    """Whatever they show: the token of another job, a piece of the right one, none at all."""
    intent = waiting(job="1")
    good, settings = token(axme.settings, "warehouse", "1"), axme.settings
    assert len(good) == 43
    wrong = [
        token(settings, "warehouse", "2"), token(settings, "other", "1"), good[:-1], good + "A", good.lower(),
        "", "é", "axk_x",
    ]  # fmt: skip
    for shown in wrong:
        assert not is_token(settings, "warehouse", "1", shown)
        assert report(f"/v1/tools/warehouse/jobs/1?token={shown}", {"result": 1}).status_code == 401
        assert report("/v1/tools/warehouse/jobs/1", {"result": 1}, Authorization=f"Bearer {shown}").status_code == 401
    assert intent.refresh().status == "WAITING"
    assert report("/v1/tools/warehouse/jobs/1", {"result": 1}, Authorization=f"Bearer {good}").status_code == 200


def test_a_task_hands_its_tool_the_address(stage, axme):
    """Before it waits: the tool may be faster than the task."""
    given = []

    @axme.task
    def exporting():
        given.append(callback_url("warehouse", "1"))
        return wait_for_tool("warehouse", "1")

    stage.submit(exporting.s())
    assert given == [axme.callback_url("warehouse", "1")]
    with pytest.raises(BadInput, match="inside a leg"):
        callback_url("warehouse", "1")


def test_an_address_needs_settings():
    """Where it leads, and what its token is made with."""
    for missing in ({"axme_secret_key": SECRET}, {"axme_base_url": "https://x.example"}):
        app = make_app(broker_url="memory://", **missing)
        with pytest.raises(BadSetting, match="axme_"):
            app.axme.callback_url("warehouse", "1")
    assert isinstance(app.axme, Axme)


def test_a_project_without_a_secret_lets_no_token_in(tmp_path):
    """There is none to be made."""
    app = make_app(broker_url="memory://")
    with Stage(app):
        answer = (
            create_app(app.axme, secret_key=SECRET).test_client().post("/v1/tools/w/jobs/1?token=x", json={"result": 1})
        )
    assert answer.status_code == 401
