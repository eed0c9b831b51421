"""Signing in with an account of the house, by an OpenID provider that really signs."""

from __future__ import annotations

import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import click
import pytest
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from axme_celery import BadSetting, keys
from axme_celery.cli.web import check_address
from axme_celery.web import blueprint, create_app

from .conftest import PAGE, post, token_in
from .conftest import SECRET as OURS
from .provider import CLIENT, SECRET, ECKey, Provider, RSAKey
from .test_security import checked
from .test_sign_in import who

#: A moment no clock will take for now, the same in every process that lists these tests.
FAR_AHEAD = 4_000_000_000


@pytest.fixture
def provider():
    here = Provider()
    yield here
    here.close()


@pytest.fixture
def settle(stage, monkeypatch, provider):
    """``settle(**settings)``: the project with this provider, and what else is set."""

    def settle(**more):
        given = {"oidc_issuer": provider.issuer, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET, **more}
        monkeypatch.setattr(stage.axme, "_settings", stage.axme.read_settings(**given))

    settle()
    return settle


@pytest.fixture
def web(stage, settle):
    return create_app(stage.axme, secret_key=OURS)


def enter(client, provider, start="/sign-in/account"):
    """Sign in, as a browser does: the answer to the way back."""
    away = client.get(start, headers=PAGE)
    assert away.status_code == 302, away.text
    return client.get(provider.agree(away.location), headers=PAGE)


def role(client):
    """The role of whoever is signed in."""
    with client:
        client.get("/sign-in", headers=PAGE)
        from flask import g

        return g.axme_actor.role


# -- getting in --


def test_an_account_signs_a_person_in(web, provider):
    """Known by their verified address, an approver, with their groups."""
    client = web.test_client()

    back = enter(client, provider)

    assert (back.status_code, back.location) == (302, "/")
    assert who(client) == "ana@example.com" and role(client) == "approver"


def test_groups_of_the_provider_answer_what_they_are_asked_and_have_their_roles(stage, settle, provider):
    """``axme_roles`` makes more of people and of groups, as of everybody else's."""
    settle(roles={"operator": ["ops"], "admin": ["olga@example.com"]})
    web = create_app(stage.axme, secret_key=OURS)
    provider.claims["groups"] = ["analysts", "ops"]
    ana, olga = web.test_client(), web.test_client()
    enter(ana, provider)
    provider.claims = {"email": "olga@example.com", "email_verified": True, "groups": "sales"}
    enter(olga, provider)
    intent = stage.submit(stage.axme.app.tasks["doors.report"].s(1))
    wait = f"/waits/{intent.waits()[0].id}"

    assert (role(ana), role(olga)) == ("operator", "admin")
    assert post(ana, wait, {"outcome": "approved"}, page=wait).status_code == 303
    stage.run()
    assert intent.refresh().result["by"] == "ana@example.com"


def test_a_role_that_is_taken_away_is_gone_at_the_next_request(stage, settle, provider):
    """It is looked up each time; a session for another registration is nobody's."""
    settle(roles={"admin": ["ana@example.com"]})
    client = create_app(stage.axme, secret_key=OURS).test_client()
    enter(client, provider)
    assert role(client) == "admin"

    settle()
    client.application = create_app(stage.axme, secret_key=OURS)
    assert role(client) == "approver"

    settle(oidc_client_id="another")
    client.application = create_app(stage.axme, secret_key=OURS)
    assert who(client) is None


def test_a_deep_link_survives(web, provider):
    """From the page one wanted, by the button, to the provider and back."""
    client = web.test_client()
    asked = client.get("/intents?status=WAITING", headers=PAGE)
    page = client.get(asked.location, headers=PAGE).text
    button = page.partition('class="go" href="')[2].partition('"')[0].replace("&amp;", "&")

    back = enter(client, provider, button)

    assert "Sign in with your account" in page and back.location == "/intents?status=WAITING"


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"]
)
def test_signing_in_leads_to_no_other_site(web, provider, target):
    """Own paths only."""
    client = web.test_client()
    away = client.get("/sign-in/account", query_string={"next": target}, headers=PAGE)

    assert client.get(provider.agree(away.location), headers=PAGE).location == "/"


def test_claims_that_are_kept_for_who_asks_again_count_too(web, provider):
    """Many providers keep tokens small. An answer about another person counts for nothing."""
    provider.claims = {}
    provider.userinfo = {"sub": "4711", "email": "bo@example.com", "email_verified": True, "groups": ["ops"]}
    client, other = web.test_client(), web.test_client()

    enter(client, provider)
    provider.userinfo["sub"] = "4712"

    assert who(client) == "bo@example.com"
    assert enter(other, provider).status_code == 403 and who(other) is None


def test_another_claim_can_name_people(stage, settle, provider):
    """As it is, whatever else the token says."""
    settle(oidc_id_claim="sub", oidc_groups_claim="teams")
    provider.claims |= {"email_verified": False, "teams": ["a"]}
    client = create_app(stage.axme, secret_key=OURS).test_client()

    enter(client, provider)

    assert who(client) == "4711"


def test_more_groups_than_a_cookie_holds_are_kept(web, provider):
    """The session holds only its own id."""
    provider.claims["groups"] = [f"00000000-0000-4000-8000-{n:012}" for n in range(100)]
    client = web.test_client()
    back = enter(client, provider)

    assert len(back.headers["Set-Cookie"]) < 1000 and who(client) == "ana@example.com"


def test_keys_of_another_kind_sign_as_well(web, provider):
    """Elliptic curves are what many providers sign with."""
    provider.signs_with = ECKey.generate_key("P-256", {"kid": "one"})
    provider.keys, provider.algorithm = [provider.signs_with], "ES256"
    provider.metadata["id_token_signing_alg_values_supported"] = ["ES256"]
    client = web.test_client()

    enter(client, provider)

    assert who(client) == "ana@example.com"


def test_new_keys_of_the_provider_are_found(web, provider):
    """They change them when they like."""
    enter(web.test_client(), provider)
    provider.signs_with = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
    provider.keys = [provider.signs_with]
    client = web.test_client()

    enter(client, provider)

    assert who(client) == "ana@example.com"


# -- what is refused --


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"nonce": "another"}, "not for this sign-in"),
        ({"nonce": None}, "not for this sign-in"),
        ({"nonce": None, "nonce_supported": False}, "not for this sign-in"),
        ({"aud": "another"}, "not for this sign-in"),
        ({"aud": "another", "azp": CLIENT}, "not for this sign-in"),
        ({"aud": f"{CLIENT}-2"}, "not for this sign-in"),
        ({"aud": [CLIENT, "another"], "azp": "another"}, "not for this sign-in"),
        ({"aud": None}, "not for this sign-in"),
        ({"iss": "https://evil.example"}, "not for this sign-in"),
        ({"iss": None}, "not for this sign-in"),
        ({"sub": None}, "not for this sign-in"),
        ({"exp": 1000}, "clock"),
        ({"exp": None}, "clock"),
        ({"iat": FAR_AHEAD}, "clock"),
        ({"nbf": FAR_AHEAD}, "clock"),
        ({"email_verified": False}, "not verified"),
        ({"email_verified": "true"}, "not verified"),
        ({"email_verified": None}, "not verified"),
        ({"email": None}, "did not send the claim"),
        ({"email": "a\nb@example.com"}, "cannot be a name"),
        ({"email": ["ana@example.com"]}, "cannot be a name"),
        ({"groups": {"finance": True}}, "no list of groups"),
        ({"groups": ["finance", 7]}, "cannot be a name"),
        ({"groups": [f"g{n}" for n in range(101)]}, "at most 100"),
    ],
    ids=str,
)
def test_a_token_that_is_not_right_signs_nobody_in(web, provider, claims, words):
    """Each claim is held to what was asked; and the person is told what to do."""
    provider.claims |= claims
    client = web.test_client()

    back = enter(client, provider)

    assert back.status_code == 403 and words in back.text.replace("&#39;", "'")
    assert who(client) is None


@pytest.mark.parametrize("forged", ["none", "HS256 of the public key", "HS256 of the secret", "another key", "cut"])
def test_a_token_that_another_signed_signs_nobody_in(web, provider, monkeypatch, forged):
    """Though the provider's own description allows "none" and shared secrets."""
    if forged == "none":
        provider.algorithm = "none"
    elif forged == "another key":
        provider.signs_with = RSAKey.generate_key(2048, {"kid": "one"})
    elif forged == "cut":
        sign = provider._sign
        monkeypatch.setattr(provider, "_sign", lambda claims: sign(claims).rpartition(".")[0] + ".")
    else:
        provider.algorithm = "HS256"
        provider.signs_with = provider.keys[0].as_pem(private=False) if "public" in forged else SECRET.encode()
    client = web.test_client()

    back = enter(client, provider)

    assert back.status_code == 403 and "could not be verified" in back.text
    assert who(client) is None


def test_a_state_that_was_not_begun_here_is_refused(web, provider):
    """Else a stranger's link would sign a person in as the stranger. The provider is not even asked."""
    stranger, victim = web.test_client(), web.test_client()
    link = provider.agree(stranger.get("/sign-in/account", headers=PAGE).location)
    victim.get("/sign-in/account", headers=PAGE)

    for path in (link, link.replace("state=", "state=x"), "/sign-in/return", "/sign-in/return?state=&code=x"):
        back = victim.get(path, headers=PAGE)
        assert back.status_code == 403 and "not begun in this browser" in back.text
    assert who(victim) is None and "/token" not in provider.asked


def test_a_code_is_good_once(web, provider):
    """Sent again with the cookie of before, it is the provider who refuses it."""
    client = web.test_client()
    link = provider.agree(client.get("/sign-in/account", headers=PAGE).location)
    begun = client.get_cookie("axme").value
    assert client.get(link, headers=PAGE).status_code == 302
    again = client.get(link, headers=PAGE)

    thief = web.test_client()
    thief.set_cookie("axme", begun)
    replayed = thief.get(link, headers=PAGE)

    assert again.status_code == 403 and "not begun in this browser" in again.text
    assert replayed.status_code == 403 and "used already" in replayed.text and who(thief) is None


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [("access_denied", 403, "did not let you in"), ("temporarily_unavailable", 503, "out of order"),
     ("<script>alert(1)</script>", 403, "did not let you in")],
)  # fmt: skip
def test_a_person_whom_the_provider_refuses_is_told_so(web, provider, error, status, words):
    """In our words: what is in an address is anybody's."""
    client = web.test_client()
    away = client.get("/sign-in/account?next=/intents", headers=PAGE)
    state = parse_qs(urlsplit(away.location).query)["state"][0]

    back = client.get("/sign-in/return", query_string={"state": state, "error": error}, headers=PAGE)
    again = client.get("/sign-in/return", query_string={"state": state, "code": "x"}, headers=PAGE)

    assert back.status_code == status and words in back.text and "alert(1)" not in back.text
    assert 'href="/sign-in/account?next=/intents"' in back.text, "trying again leads to where they were going"
    assert again.status_code == 403 and "not begun" in again.text, "what was begun is come back from once"


def test_an_answer_of_another_provider_is_refused(web, provider):
    """It may say who it is; then that is looked at."""
    client = web.test_client()
    link = provider.agree(client.get("/sign-in/account", headers=PAGE).location)

    back = client.get(f"{link}&iss=https://evil.example", headers=PAGE)

    assert back.status_code == 403 and "another provider" in back.text


def test_a_provider_that_is_down_is_said_to_be(web, provider):
    """At the start and on the way back; who has a key gets in all the same."""
    waiting = web.test_client()
    link = provider.agree(waiting.get("/sign-in/account", headers=PAGE).location)
    provider.close()
    web.extensions["axme-web"].oidc._found = None
    client = web.test_client()

    for answer in (client.get("/sign-in/account?next=/intents", headers=PAGE), waiting.get(link, headers=PAGE)):
        assert answer.status_code == 503 and "cannot be reached" in answer.text
        checked(answer)
    assert client.get("/sign-in", headers=PAGE).status_code == 200


@pytest.mark.parametrize(
    ("says", "status", "words"),
    [
        ((500, {}), 503, "cannot be reached"),
        ((200, []), 403, "could not be verified"),
        ((200, {"access_token": "x", "token_type": "Bearer"}), 403, "no id token"),
        ((200, {"access_token": "x", "token_type": "Bearer", "id_token": 7}), 403, "could not be verified"),
        ((200, {"access_token": "x", "token_type": "Bearer", "id_token": "a.b.c"}), 403, "could not be verified"),
        ((401, {"error": "invalid_client"}), 503, "not set up right"),
    ],
    ids=str,
)
def test_a_provider_out_of_order_signs_nobody_in(web, provider, says, status, words):
    """Whatever it says in place of a token."""
    provider.says = says
    client = web.test_client()

    back = enter(client, provider)

    assert back.status_code == status and words in back.text and who(client) is None


@pytest.mark.parametrize(
    "metadata", [{"issuer": "https://evil.example"}, {"issuer": None}, {"token_endpoint": None}], ids=str
)
def test_a_provider_that_is_another_than_was_set_is_refused(web, provider, caplog, metadata):
    """To the last character; what to change is in the log, for whoever set it."""
    provider.metadata = metadata

    answer = web.test_client().get("/sign-in/account", headers=PAGE)

    assert answer.status_code == 503 and "not set up right" in answer.text
    assert provider.issuer in caplog.text


def test_beginning_many_times_does_not_fill_the_cookie(web, provider):
    """Each tab that was left keeps something; the newest three are enough."""
    client = web.test_client()
    for _ in range(20):
        away = client.get("/sign-in/account?next=/intents", headers=PAGE)

    with client.session_transaction() as kept:
        assert len([name for name in kept if name.startswith("_state_")]) == 3
    assert len(client.get_cookie("axme").value) < 2000
    assert client.get(provider.agree(away.location), headers=PAGE).location == "/intents"


# -- the session --


def test_signing_out_ends_the_session_wherever_its_cookie_is(web, provider):
    """A copy of the cookie is no good either; and signing out needs the token of the page."""
    client, copy = web.test_client(), web.test_client()
    enter(client, provider)
    copy.set_cookie("axme", client.get_cookie("axme").value)
    assert who(copy) == "ana@example.com"

    assert client.post("/sign-out", headers=PAGE).status_code == 403
    assert post(client, "/sign-out", {}, page="/sign-in").status_code == 303

    assert who(client) is None and who(copy) is None


def test_a_session_decides_nothing_without_the_token_of_its_pages(stage, web, provider):
    """As every session."""
    provider.claims["groups"] = ["analysts"]
    client = web.test_client()
    enter(client, provider)
    intent = stage.submit(stage.axme.app.tasks["doors.report"].s(1))
    path = f"/waits/{intent.waits()[0].id}"

    assert client.post(path, data={"outcome": "approved"}, headers=PAGE).status_code == 403
    token = token_in(client.get(path, headers=PAGE).text)
    crossed = {**PAGE, "Sec-Fetch-Site": "cross-site"}
    assert client.post(path, data={"outcome": "approved", "csrf_token": token}, headers=crossed).status_code == 403


@pytest.mark.parametrize(("pause", "is_in"), [("29m", True), ("31m", False)])
def test_a_session_ends_when_it_is_left_alone(stage, web, provider, pause, is_in):
    """Half an hour without a request, as the others."""
    client = web.test_client()
    enter(client, provider)

    stage.pass_time(pause)

    assert who(client) == ("ana@example.com" if is_in else None)


def test_a_session_ends_after_twelve_hours_and_its_record_is_dropped(stage, web, provider):
    """Records do not pile up: whoever signs in next clears those that are over away, and keys stay."""
    key, _ = keys.create(stage.axme.runtime, name="old", expires_seconds=60)
    client = web.test_client()
    enter(client, provider)
    for _ in range(12 * 3 - 1):
        stage.pass_time("20m")
        assert who(client) == "ana@example.com"
    stage.pass_time("21m")
    assert who(client) is None

    enter(client, provider)

    sessions = [each for each in keys.listed(stage.axme.runtime) if each.id != key.id]
    assert len(sessions) == 1 and len(keys.listed(stage.axme.runtime)) == 2


def test_an_operator_ends_a_session_by_revoking_it(stage, web, provider):
    """It is in the list of keys, under the person's name."""
    client = web.test_client()
    enter(client, provider)
    (session,) = keys.listed(stage.axme.runtime)
    assert session.name == "ana@example.com" and session.groups == ("finance",)
    assert keys.by_secret(stage.axme.runtime, session.hash) is None

    keys.revoke(stage.axme.runtime, session.id)

    assert who(client) is None


# -- where it stands --


def test_every_answer_is_safe(web, provider):
    """The headers and cookies of all other routes."""
    client = web.test_client()
    away = checked(client.get("/sign-in/account", headers=PAGE))
    back = checked(client.get(provider.agree(away.location), headers=PAGE))

    assert back.status_code == 302
    checked(client.get("/sign-in/return", headers=PAGE))


def test_it_works_under_a_path(stage, settle, provider):
    """Of an application, and as its blueprint, which leaves the host's session to it."""
    door = create_app(stage.axme, secret_key=OURS)
    mounted = Client(DispatcherMiddleware(Flask("host").wsgi_app, {"/desk": door.wsgi_app}))
    host = Flask("host")
    host.secret_key = OURS
    host.register_blueprint(blueprint(stage.axme), url_prefix="/desk")

    for client in (mounted, host.test_client()):
        away = client.get("/desk/sign-in/account?next=/desk/intents", headers=PAGE)
        back = client.get(urlsplit(provider.agree(away.location))._replace(scheme="", netloc="").geturl(), headers=PAGE)
        assert back.location == "/desk/intents"
        assert client.get("/desk/intents", headers=PAGE).status_code == 200


def test_the_way_back_is_below_the_base_url(stage, settle, provider):
    """As it is registered with the provider, whatever a request says its host is."""
    settle(base_url="https://intents.example/desk")
    client = create_app(stage.axme, secret_key=OURS).test_client()

    away = client.get("/sign-in/account", headers=PAGE, base_url="https://intents.example")

    assert parse_qs(urlsplit(away.location).query)["redirect_uri"] == ["https://intents.example/desk/sign-in/return"]


def test_the_groups_are_asked_for_where_the_provider_has_a_scope_for_them(web, provider):
    """Some send them only then; others refuse a scope they do not know."""
    asked = web.test_client().get("/sign-in/account", headers=PAGE).location
    provider.metadata["scopes_supported"] = ["openid", "email", "groups"]
    web.extensions["axme-web"].oidc._found = None
    then = web.test_client().get("/sign-in/account", headers=PAGE).location

    scopes = [parse_qs(urlsplit(each).query)["scope"][0] for each in (asked, then)]
    assert scopes == ["openid profile email", "openid profile email groups"]


def test_the_provider_is_asked_when_the_first_person_signs_in(web, provider):
    """And not before: the pages start without it. What it says of itself is kept for a while."""
    web.test_client().get("/sign-in", headers=PAGE)
    assert provider.asked == []

    enter(web.test_client(), provider)
    enter(web.test_client(), provider)

    assert provider.asked.count("/.well-known/openid-configuration") == 1


def test_without_a_provider_there_is_neither_a_button_nor_a_way(stage):
    """And the library is not loaded."""
    client = create_app(stage.axme, secret_key=OURS).test_client()

    assert "your account" not in client.get("/sign-in", headers=PAGE).text
    assert client.get("/sign-in/account", headers=PAGE).status_code == 404
    assert client.get("/sign-in/return?state=x&code=x", headers=PAGE).status_code == 404
    code = (
        "import sys; from celery import Celery; from axme_celery import Axme; from axme_celery.web import create_app;"
        "create_app(Axme(Celery('x', broker='memory://')), secret_key='x' * 32); print('authlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_without_the_extra_it_says_what_to_install(stage, settle, monkeypatch):
    """At the start, and not to the first who tries."""
    monkeypatch.setitem(sys.modules, "authlib.integrations.flask_client", None)

    with pytest.raises(BadSetting, match=r"pip install 'axme-celery\[oidc\]'"):
        create_app(stage.axme, secret_key=OURS)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"oidc_issuer": "https://id.example"}, "axme_oidc_client_id and axme_oidc_client_secret"),
        ({"oidc_client_id": "x", "oidc_client_secret": "y"}, "axme_oidc_issuer"),
        ({"oidc_issuer": "http://id.example"}, "https"),
        ({"oidc_issuer": "https://id.example/?a=b"}, "more than an address"),
        ({"oidc_issuer": "id.example"}, "axme_oidc_issuer"),
    ],
    ids=str,
)
def test_half_of_the_settings_are_refused(app, given, words):
    """It names those that are missing, and shows no secret."""
    with pytest.raises(BadSetting, match=words) as refused:
        app.axme.read_settings(**given)
    assert "'y'" not in str(refused.value)


def test_an_issuer_keeps_its_last_slash(app):
    """Some have one, and their tokens have it too."""
    settings = app.axme.read_settings(
        oidc_issuer="https://id.example/", oidc_client_id="x", oidc_client_secret="a word nobody sees"
    )

    assert settings.oidc_issuer == "https://id.example/" and "nobody sees" not in repr(settings)


def test_with_a_provider_somebody_can_sign_in(stage, settle, web, provider, monkeypatch):
    """So an address that others reach is served; a session of before, without the provider, is nobody's."""
    check_address(stage.axme, "192.0.2.1", False)
    enter(web.test_client(), provider)

    monkeypatch.setattr(stage.axme, "_settings", stage.axme.read_settings())

    with pytest.raises(click.UsageError, match="axme_oidc_issuer"):
        check_address(stage.axme, "192.0.2.1", False)
