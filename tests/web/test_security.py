"""What holds for every route there is: whoever asks, whatever they send, and whatever comes back."""

from __future__ import annotations

import re

import pytest

from axme_celery import keys
from axme_celery import submit as verbs
from axme_celery.submit import Submission
from axme_celery.web import create_app
from axme_celery.who import Role

from .conftest import PAGE, SECRET, token_in

#: Routes that are for everybody, also for nobody.
OPEN = {"axme.static", "axme.probe.health", "axme.pages.sign_in", "axme.pages.enter", "axme.pages.leave"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": ("same-origin", "no-referrer"),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=()",
}


@pytest.fixture
def web(stage):
    """The pages; what programs are answered is held to its description elsewhere."""
    return create_app(stage.axme, secret_key=SECRET)


def owned(stage, owner, task, *args):
    """An intent of this owner, at rest."""
    work = stage.axme.read_work(stage.axme.app.tasks[task].s(*args))
    (intent,) = verbs.submit(stage.axme.runtime, [Submission(work=work, owner=owner)])
    stage.run()
    return stage.intent(intent.id)


def path_of(rule, **values):
    """A path of the rule; what is not given is "x", or the first of what is allowed there."""
    place = r"<(?:[a-z]+(?:\(([^),]*)[^)]*\))?:)?([a-z_]+)>"
    return re.sub(place, lambda m: values.get(m[2], m[1] or "x"), rule.rule)


def routes(web):
    """Every route with each of its methods, but for OPTIONS, which Flask answers itself."""
    return [(rule, method) for rule in web.url_map.iter_rules() for method in sorted(rule.methods - {"OPTIONS"})]


def checked(answer):
    """The response has every header it must have, and its cookies are strict."""
    for name, wanted in HEADERS.items():
        found = answer.headers.get(name, "")
        assert found.startswith(wanted if isinstance(wanted, tuple) else (wanted,)), (name, found)
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers.get("Cache-Control"), "a proxy would keep it"
    for cookie in answer.headers.getlist("Set-Cookie"):
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=" in cookie, cookie
    answer.close()
    return answer


@pytest.mark.parametrize("role", [None, *Role], ids=str)
def test_every_response_of_every_route_is_safe(web, sign_in, role):
    """Whoever asks; also refusals, redirects and what is not there."""
    client = web.test_client() if role is None else sign_in("ana", role=role)
    seen = 0
    for rule, method in routes(web):
        values = {"filename": "house.css"} if rule.endpoint == "axme.static" else {}
        checked(client.open(path_of(rule, **values), method=method, headers=PAGE))
        seen += 1
    for path in ("/nothing", "/static/nothing", "/v1/nothing", "/%00", "/a" * 3000):
        checked(client.get(path, headers=PAGE))
        checked(client.get(path))

    assert seen > 40


def test_over_https_cookies_are_for_this_host_and_https_only(web):
    """And browsers are told to stay with https."""
    answer = web.test_client().get("/sign-in", headers=PAGE, base_url="https://intents.example")

    (cookie,) = answer.headers.getlist("Set-Cookie")
    assert (
        cookie.startswith("__Host-axme=")
        and "Secure" in cookie
        and "Path=/;" in f"{cookie};"
        and "Domain" not in cookie
    )
    assert "max-age" in answer.headers["Strict-Transport-Security"]


def test_nobody_gets_into_any_route(stage, web):
    """Only what is for everybody answers."""
    intent = owned(stage, None, "doors.report", 1)
    values = {"intent_id": intent.id, "wait_id": intent.waits()[0].id}
    for rule, method in routes(web):
        if rule.endpoint in OPEN or (rule.endpoint.startswith("axme.pages.") and "/a/" in rule.rule):
            continue
        answer = web.test_client().open(path_of(rule, **values), method=method, json={})
        assert answer.status_code in (401, 403, 404), (rule.rule, method, answer.status_code)
        assert "doors" not in answer.text and "Publish" not in answer.text, rule.rule


@pytest.mark.parametrize("role", list(Role), ids=str)
def test_what_is_anothers_does_not_exist(stage, web, role):
    """Roles x routes x objects: the same answer as for what is not there, and nothing changes."""
    theirs, mine = owned(stage, "b", "doors.report", 1), owned(stage, "a", "doors.report", 1)
    secret = keys.create(stage.axme.runtime, name="ana", groups=["analysts"], role=role, owner="a")[1]
    client, shown = web.test_client(), {"x-api-key": secret}
    before = theirs.refresh().seq
    fields = {"reason": "r", "outcome": "approved", "to": "ana", "duration": "1d", "before": "fetch_page#1"}
    compared = 0

    for rule, method in routes(web):
        if not {"intent_id", "wait_id"} & rule.arguments or "/a/" in rule.rule:
            continue
        real = path_of(rule, intent_id=theirs.id, wait_id=theirs.waits()[0].id)
        none = path_of(rule, intent_id=theirs.id[:-1] + "z", wait_id=theirs.waits()[0].id[:-1] + "z")
        for accept in ({"Accept": "text/html"}, {"Accept": "application/json"}):
            sent = {"json": {**fields, "action": "approve"}} if rule.rule.startswith("/v1") else {"data": fields}
            body = sent if method == "POST" else {}
            found = client.open(real, method=method, headers={**shown, **accept}, **body)
            missing = client.open(none, method=method, headers={**shown, **accept}, **body)
            assert found.status_code == missing.status_code, (rule.rule, method)
            assert found.status_code in (400, 403, 404, 422), (rule.rule, method, found.status_code)
            assert theirs.id not in found.text.replace(real, "") or found.status_code != 200
            compared += 1

    for path in ("/inbox?whose=all", "/intents", "/dead-letters?state=all", "/deliveries", "/overview", "/inbox",
                 f"/intents?find={theirs.id}"):  # fmt: skip
        page = client.get(path, headers={**shown, **PAGE}).text
        assert f"/intents/{theirs.id}" not in page and theirs.waits()[0].id not in page, path
    assert mine.id in client.get("/intents", headers={**shown, **PAGE}).text
    assert compared > 30 and theirs.refresh().seq == before


def test_a_session_decides_nothing_without_the_token_of_its_pages(stage, web, sign_in):
    """Every route that changes something, pages and /v1 alike."""
    intent = owned(stage, None, "doors.report", 1)
    client = sign_in("olga", role="admin")
    values, before = {"intent_id": intent.id, "wait_id": intent.waits()[0].id}, intent.refresh().seq
    tried = 0
    for rule, method in routes(web):
        if method in ("GET", "HEAD") or "/a/" in rule.rule:
            continue
        for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
            answer = client.open(
                path_of(rule, **values), method=method, headers={**PAGE, **headers},
                data={"outcome": "approved", "reason": "r", "csrf_token": "forged"},
            )  # fmt: skip
            assert answer.status_code == 403, (rule.rule, method, headers, answer.status_code)
            tried += 1
    assert tried > 30 and intent.refresh().seq == before


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"},
     {"Origin": "null"}],
    ids=str,
)  # fmt: skip
def test_another_site_cannot_send_a_page_even_with_its_token(stage, sign_in, headers):
    """A token that leaked is not enough."""
    intent = owned(stage, None, "doors.report", 1)
    client = sign_in("ana", groups=["analysts"])
    path = f"/waits/{intent.waits()[0].id}"
    token = token_in(client.get(path, headers=PAGE).text)

    answer = client.post(path, data={"csrf_token": token, "outcome": "approved"}, headers={**PAGE, **headers})

    assert answer.status_code == 403 and intent.waits()[0].votes == ()


def test_a_token_of_one_session_is_no_good_in_another(stage, sign_in):
    """It is bound to its cookie."""
    intent = owned(stage, None, "doors.report", 1)
    path = f"/waits/{intent.waits()[0].id}"
    token = token_in(sign_in("mallory").get(path, headers=PAGE).text)

    answer = sign_in("ana", groups=["analysts"]).post(
        path, data={"csrf_token": token, "outcome": "approved"}, headers=PAGE
    )  # fmt: skip

    assert answer.status_code == 403 and intent.waits()[0].votes == ()


def test_a_forged_cookie_is_nobodys(stage, web, sign_in):
    """Signed by another secret, changed, or of an old session."""
    forger = create_app(stage.axme, secret_key="another secret of more than thirty-two characters")
    key, _ = keys.create(stage.axme.runtime, name="olga", role="admin")
    with forger.test_request_context():
        now = stage.now.timestamp()
        value = forger.session_interface.get_signing_serializer(forger).dumps(
            {"axme": {"key": key.id, "since": now, "seen": now}}
        )
    client = web.test_client()
    client.set_cookie("axme", value)
    assert client.get("/intents", headers=PAGE).status_code == 302

    with web.test_request_context():
        good = web.session_interface.get_signing_serializer(web).dumps(
            {"axme": {"key": key.id, "since": now, "seen": now}}
        )
    client.set_cookie("axme", good)
    assert client.get("/intents", headers=PAGE).status_code == 200, "the control"
    client.set_cookie("axme", good[:-3] + "abc")
    assert client.get("/intents", headers=PAGE).status_code == 302


@pytest.mark.parametrize("host", ["evil.example", "intents.example.evil.example", "evil.example:443", "[::2]"])
def test_with_a_base_url_no_other_host_is_answered(stage, monkeypatch, host):
    """And no page ever has the host it was asked under in it."""
    settings = stage.axme.read_settings(base_url="https://intents.example", hosts=["other.example"])
    monkeypatch.setattr(stage.axme, "_settings", settings)
    client = create_app(stage.axme, secret_key=SECRET).test_client()

    assert client.get("/sign-in", headers={**PAGE, "Host": host}).status_code == 400
    for good in ("intents.example", "other.example", "127.0.0.1:8710", "localhost"):
        answer = client.get("/sign-in", headers={**PAGE, "Host": good})
        assert answer.status_code == 200 and good not in answer.text


def test_bodies_are_limited(stage, sign_in):
    """Flask itself has no limit."""
    client = sign_in("ana", role="admin")
    token = token_in(client.get("/inbox", headers=PAGE).text)
    huge = "x" * 3_000_000

    assert client.post("/dead-letters", data={"csrf_token": token, "reason": huge}, headers=PAGE).status_code == 413
    assert client.post("/v1/intents", data=huge, content_type="application/json").status_code in (403, 413)


def test_nesting_without_end_is_refused_and_breaks_nothing(stage, sign_in, make_key):
    """In a form's field and in a body of JSON."""
    form = {"type": "object", "required": ["any"], "properties": {"any": {"type": ["object", "array"]}}}
    intent = stage.submit(stage.axme.app.tasks["doors.ask"].s({"form": form}))
    path = f"/waits/{intent.waits()[0].id}"
    client = sign_in("ana")
    token = token_in(client.get(path, headers=PAGE).text)

    deep = "[" * 100_000 + "]" * 100_000
    answer = client.post(path, data={"csrf_token": token, "outcome": "approved", "field.any": deep}, headers=PAGE)
    assert answer.status_code == 422 and intent.refresh().status == "WAITING"

    answer = client.post(
        "/v1/intents", data='{"payload":' + deep + "}", content_type="application/json",
        headers={"x-api-key": make_key("bot", role="admin")},
    )  # fmt: skip
    assert 400 <= answer.status_code < 500


def test_what_broke_is_never_shown(stage, web, sign_in, monkeypatch):
    """It may hold what this person must not see; the server's log has it."""
    client = sign_in("ana", role="admin")

    def broken(*_, **__):
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(type(stage.axme.runtime.ledger.views), "find_intents", broken)
    for headers in (PAGE, {}):
        answer = client.get("/intents", headers=headers)
        assert answer.status_code == 500 and "hunter2" not in answer.text and "Traceback" not in answer.text
        checked(answer)
