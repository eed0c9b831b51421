"""Who gets in: by key, by session, by a link used once, by the host's login, by a proxy that is trusted."""

from __future__ import annotations

import pytest

from axme_celery import BadSetting, keys
from axme_celery.web import create_app
from axme_celery.web.actor import Actor, Role

from .conftest import PAGE, SECRET, post, token_in


def who(client, **headers):
    """Who the pages say one is; None where they want one to sign in."""
    shown = client.get("/sign-in", headers={**PAGE, **headers}).text
    return shown.partition("signed in as <strong>")[2].partition("<")[0] or None


def test_a_key_opens_the_door_in_either_header(web, make_key):
    """As AXP's clients send it, and as everybody else does."""
    secret = make_key("reports", role="viewer")

    assert who(web.test_client(), Authorization=f"Bearer {secret}") == "reports"
    assert who(web.test_client(), **{"x-api-key": secret}) == "reports"
    assert who(web.test_client(), **{"x-api-key": secret + "x"}) is None
    assert who(web.test_client()) is None


def test_a_key_signs_a_person_in_and_out(sign_in):
    """The session is theirs until they sign out."""
    client = sign_in("ana", role="approver")
    assert who(client) == "ana"

    assert post(client, "/sign-out", {}, page="/sign-in").status_code == 303

    assert who(client) is None


def test_a_revoked_key_ends_the_sessions_it_opened(stage, web):
    """At the next request, not at the end of the session."""
    key, secret = keys.create(stage.axme.runtime, name="ana", role="approver")
    client = web.test_client()
    post(client, "/sign-in", {"secret": secret}, page="/sign-in")
    assert who(client) == "ana"

    keys.revoke(stage.axme.runtime, key.id)

    assert who(client) is None


@pytest.mark.parametrize(("pause", "is_in"), [("29m", True), ("31m", False)])
def test_a_session_ends_when_it_is_left_alone(stage, sign_in, pause, is_in):
    """Half an hour without a request."""
    client = sign_in("ana", role="approver")

    stage.pass_time(pause)

    assert who(client) == ("ana" if is_in else None)


def test_a_session_in_use_ends_after_twelve_hours(stage, sign_in):
    """Whoever stole the cookie does not have it for ever."""
    client = sign_in("ana", role="approver")

    for _ in range(12 * 3 - 1):
        stage.pass_time("20m")
        assert who(client) == "ana"
    stage.pass_time("20m")

    assert who(client) is None


def test_a_link_signs_in_once_and_looking_at_it_uses_nothing_up(stage, web):
    """A mail scanner's hundred looks change nothing; the second person to press the button gets in no more."""
    _, secret = keys.create_link(stage.axme.runtime, name="olga", role="admin")
    scanner = web.test_client()
    for _ in range(50):
        assert scanner.get(f"/sign-in?link={secret}", headers=PAGE).status_code == 200
        scanner.head(f"/sign-in?link={secret}", headers=PAGE)
    first, second = web.test_client(), web.test_client()

    assert post(first, "/sign-in", {"secret": secret}, page="/sign-in").status_code == 303
    refused = post(second, "/sign-in", {"secret": secret}, page="/sign-in")

    assert who(first) == "olga" and who(second) is None
    assert refused.status_code == 403 and "used already" in refused.text


def test_a_link_is_no_key(stage, web):
    """It opens a session; no program gets in with it."""
    _, secret = keys.create_link(stage.axme.runtime, name="olga", role="admin")

    assert who(web.test_client(), **{"x-api-key": secret}) is None
    assert who(web.test_client(), Authorization=f"Bearer {secret}") is None


def test_signing_in_needs_the_token_of_its_own_page(web, make_key):
    """Else a stranger's page could sign a person in as somebody else."""
    client = web.test_client()

    refused = client.post("/sign-in", data={"secret": make_key("ana")}, headers=PAGE)

    assert refused.status_code == 403 and who(client) is None


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)",
     "/ok\r\nX: y", "http:evil.example", "///evil.example", "/\t/evil.example"],
)  # fmt: skip
def test_signing_in_leads_to_no_other_site(web, make_key, target):
    """Open redirects are how phishing begins."""
    client = web.test_client()
    token = token_in(client.get("/sign-in", headers=PAGE).text)

    answer = client.post(
        "/sign-in", data={"csrf_token": token, "secret": make_key("ana"), "next": target}, headers=PAGE
    )

    assert answer.status_code == 303 and answer.location == "/"


def test_signing_in_leads_back_to_where_one_was_going(web, make_key):
    """A deep link survives."""
    client = web.test_client()
    asked = client.get("/?status=WAITING", headers=PAGE)
    assert asked.status_code == 302
    page = client.get(asked.location, headers=PAGE).text
    target = page.partition('name="next" value="')[2].partition('"')[0]

    answer = client.post(
        "/sign-in", data={"csrf_token": token_in(page), "secret": make_key("ana"), "next": target}, headers=PAGE
    )

    assert answer.location == "/?status=WAITING"


def test_a_program_without_a_key_is_told_so(web):
    """401 in JSON, and not a page."""
    answer = web.test_client().get("/")

    assert answer.status_code == 401 and "axk_" in answer.json["detail"]
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


# -- the host's own login, and a proxy's --


def test_the_hosts_login_says_who_it_is(stage):
    """A function of the request; what it does not know may still come in by key."""
    app = create_app(
        stage.axme,
        actor=lambda request: Actor(request.headers["X-Me"]) if "X-Me" in request.headers else None,
        secret_key=SECRET,
    )

    assert who(app.test_client(), **{"X-Me": "hana"}) == "hana"
    assert who(app.test_client()) is None


def test_axme_actor_names_such_a_function(app, monkeypatch):
    """By its dotted path; a path that leads nowhere is refused at once."""
    monkeypatch.setattr(app.axme, "_settings", app.axme.read_settings(actor="tests.web.nowhere.actor"))

    with pytest.raises(BadSetting, match="cannot be loaded"):
        create_app(app.axme, secret_key=SECRET)


@pytest.mark.parametrize(
    ("address", "known"), [("10.1.2.3", "petra"), ("10.2.2.3", None), ("fe80::1", None), ("", None)]
)
def test_only_a_trusted_proxy_is_believed(stage, monkeypatch, address, known):
    """Anybody can write a header."""
    settings = stage.axme.read_settings(proxy_addresses=["10.1.0.0/16"])
    monkeypatch.setattr(stage.axme, "_settings", settings)
    client = create_app(stage.axme, secret_key=SECRET).test_client()
    client.environ_base["REMOTE_ADDR"] = address

    assert who(client, **{"X-Forwarded-User": "petra", "X-Forwarded-Groups": "ops, analysts"}) == known


def test_roles_are_given_to_people_and_groups(stage, monkeypatch):
    """Whoever a host or proxy names is an approver, unless the house says more of them or of a group of theirs."""
    settings = stage.axme.read_settings(roles={"operator": ["ops"], "admin": ["ana"]}, proxy_addresses=["127.0.0.0/8"])
    monkeypatch.setattr(stage.axme, "_settings", settings)
    web = create_app(stage.axme, secret_key=SECRET)
    resolver = web.extensions["axme-web"].resolver

    def role(user, groups):
        with web.test_request_context(
            headers={"X-Forwarded-User": user, "X-Forwarded-Groups": groups}, environ_base={"REMOTE_ADDR": "127.0.0.1"}
        ) as context:
            return resolver.resolve(stage.axme.runtime, context.request, {}).role

    assert role("bo", "sales") is Role.APPROVER
    assert role("bo", "sales,ops") is Role.OPERATOR
    assert role("ana", "ops") is Role.ADMIN


# -- what is refused from the start --


@pytest.mark.parametrize("secret", [None, "short"])
def test_no_pages_without_a_secret(stage, secret):
    """A guessable one is none."""
    with pytest.raises(BadSetting, match="axme_secret_key"):
        create_app(stage.axme, secret_key=secret)
