"""Fixtures of the web door: a project on a stage, its pages, and people to open them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from flask import Flask
from flask.testing import FlaskClient

from axme_celery import Axme, keys
from axme_celery.testing import Stage
from axme_celery.web import create_app
from tests.doors.project import make_app
from tests.web.described import hold

SECRET = "a secret of more than thirty-two characters"
PAGE = {"Accept": "text/html"}


@pytest.fixture
def app() -> Celery:
    """The small project, with a broker nobody can reach."""
    return make_app(broker_url="amqp://127.0.0.1:1", result_backend="redis://127.0.0.1:1")


@pytest.fixture
def axme(app: Celery) -> Axme:
    return app.axme


@pytest.fixture
def web(stage: Stage) -> Iterator[Flask]:
    """The pages of what is on the stage. Every answer of its HTTP interface must be as the OpenAPI document says."""
    app = create_app(stage.axme, secret_key=SECRET)
    faults = hold(app)
    yield app
    assert faults == []


@pytest.fixture
def make_key(stage: Stage) -> Callable[..., str]:
    """``make_key("ana", role="approver", groups=["analysts"])``: a key's secret."""
    return lambda name, **more: keys.create(stage.axme.runtime, name=name, **more)[1]


@pytest.fixture
def sign_in(web: Flask, make_key: Callable[..., str]) -> Callable[..., FlaskClient]:
    """``sign_in("ana", role=...)``: a browser without JavaScript in which they are signed in."""

    def enter(name: str, **more: Any) -> FlaskClient:
        more.setdefault("role", "approver")
        client = web.test_client()
        answer = post(client, "/sign-in", {"secret": make_key(name, **more)}, page="/sign-in")
        assert answer.status_code == 303, answer.text
        return client

    return enter


def token_in(text: str) -> str:
    """The token against forged requests in a page."""
    return text.partition('name="csrf_token" value="')[2].partition('"')[0]


def post(client: FlaskClient, path: str, fields: dict[str, Any], *, page: str) -> Any:
    """Send a form as the page has it: with its token."""
    token = token_in(client.get(page, headers=PAGE).text)
    return client.post(path, data={"csrf_token": token, **fields}, headers=PAGE)


# -- /v1 ---------------------------------------------------------------------------------

#: An agent outside Celery.
BOT = "agent://acme/ops/bot"


@pytest.fixture
def api(web, stage, make_key):
    """``api("POST", path, json=..., key=...)``: a request by an operator's key, after which all runs that can."""
    keys = {}

    def ask(method, path, *, who="ops", role="operator", headers=None, **more):
        details = {name: more.pop(name) for name in ("groups", "owner", "agent") if name in more}
        known = (who, role, repr(details))
        if known not in keys:
            keys[known] = make_key(who, role=role, **details)
        answer = web.test_client().open(
            f"/v1{path}", method=method, headers={"x-api-key": keys[known], **(headers or {})}, buffered=True, **more
        )
        stage.run()
        return answer

    return ask


@pytest.fixture
def create(api):
    """``create(**fields)``: the id of a new intent for an outside agent."""

    def make(**fields):
        details = {name: fields.pop(name) for name in ("who", "role", "owner", "agent", "groups") if name in fields}
        body = {"intent_type": "intent.demo.v1", "to_agent": BOT, "correlation_id": str(uuid.uuid4()), **fields}
        answer = api("POST", "/intents", json=body, **details)
        assert answer.status_code == 200, answer.text
        return answer.json["intent_id"]

    return make
