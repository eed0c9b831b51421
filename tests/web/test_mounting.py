"""The web door under a path of a Flask, a Django and a FastAPI application, and as a blueprint; it touches nothing."""

from __future__ import annotations

import sys
import types

import pytest
from flask import Flask, g, session
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from axme_celery import BadSetting, keys
from axme_celery.web import blueprint, create_app
from axme_celery.web.actor import Actor, Role

from .conftest import PAGE, SECRET, token_in


def by_header(request):
    """The host's own login, as far as these tests go."""
    name = request.headers.get("X-Me")
    return Actor(name, frozenset({"analysts"}), Role.APPROVER) if name else None


def use(client, stage, prefix=""):
    """A person's whole way through the pages below a prefix; every address on them stays below it."""
    intent = stage.submit(stage.axme.app.tasks["doors.report"].s(1))
    me = {**PAGE, "X-Me": "ana"}
    assert client.get(f"{prefix}/health").status_code == 200
    arrived = client.get(f"{prefix}/", headers=me)
    assert arrived.status_code == 302 and arrived.headers["Location"].endswith(f"{prefix}/inbox")
    inbox = client.get(f"{prefix}/inbox", headers=me).text
    wait = f"{prefix}/waits/{intent.waits()[0].id}"
    assert f'href="{wait}"' in inbox
    page = client.get(wait, headers=me).text
    for address in ("/static/house.css", "/static/house.js", "/inbox", "/intents"):
        assert f'"{prefix}{address}' in page, address
    assert f'data-live="{prefix}/live/intents/' in page and f'hx-get="{wait}?part=top"' in page
    assert client.get(f"{prefix}/static/house.css").status_code == 200

    refused = client.post(wait, data={"outcome": "approved"}, headers=me)
    assert refused.status_code == 403, "the token is asked for here too"
    done = client.post(wait, data={"outcome": "approved", "csrf_token": token_in(page)}, headers=me)
    assert done.status_code == 303 and done.headers["Location"].startswith(wait)
    stage.run()
    assert intent.refresh().result["by"] == "ana"

    stream = client.get(f"{prefix}/live/intents/{intent.id}", headers=me)
    assert "event: end" in stream.text and stream.headers["Content-Type"].startswith("text/event-stream")
    key = keys.create(stage.axme.runtime, name="bot", role="operator")[1]
    assert client.get(f"{prefix}/v1/intents/{intent.id}", headers={"x-api-key": key}).status_code == 200
    away = client.get(f"{prefix}/intents", headers=PAGE)
    assert away.status_code == 302 and away.headers["Location"].startswith(f"{prefix}/sign-in?next=")


def test_under_a_path_of_a_flask_application(stage):
    """Mounted beside it: its own application, its own cookie."""
    host = Flask("host")
    host.secret_key = "the host's own secret, which is another"
    host.get("/")(lambda: "the host")
    door = create_app(stage.axme, actor=by_header, secret_key=SECRET)
    client = Client(DispatcherMiddleware(host.wsgi_app, {"/intents-app": door.wsgi_app}))

    use(client, stage, "/intents-app")

    assert client.get("/").text == "the host"
    cookie = client.get("/intents-app/sign-in", headers=PAGE).headers.get("Set-Cookie", "Path=/intents-app")
    assert "Path=/intents-app" in cookie


def test_as_a_blueprint_of_a_flask_application(stage):
    """It uses the host's session, and changes nothing of the host: errors, headers and configuration are its own."""
    host = Flask("host")
    host.secret_key = "the host's own secret, which is another"
    host.add_url_rule("/", "home", lambda: f"the host {sorted(session)} {'axme_actor' in g}")
    host.add_url_rule("/own", "own", lambda: "posted", methods=["POST"])
    before = dict(host.config)
    host.register_blueprint(blueprint(stage.axme, actor=by_header), url_prefix="/desk/intents")
    client = host.test_client()

    use(client, stage, "/desk/intents")

    assert dict(host.config) == before
    plain = client.get("/")
    assert plain.text == "the host ['csrf_token'] False" and "Content-Security-Policy" not in plain.headers
    assert client.post("/own").text == "posted", "no token is asked for outside"
    missing = client.get("/nothing")
    assert missing.status_code == 404 and "Not here" not in missing.text


def test_signing_in_and_out_in_a_hosts_session_leaves_the_hosts_part(stage):
    """Its basket, its own login: what is not ours stays, and so does ours when a key is refused."""
    host = Flask("host")
    host.secret_key = "the host's own secret, which is another"
    host.register_blueprint(blueprint(stage.axme), url_prefix="/desk")
    client = host.test_client()
    with client.session_transaction() as kept:
        kept["basket"] = ["tea"]

    def sign_in(secret):
        form = client.get("/desk/sign-in", headers=PAGE).text
        return client.post("/desk/sign-in", data={"secret": secret, "csrf_token": token_in(form)}, headers=PAGE)

    assert sign_in(keys.create(stage.axme.runtime, name="ana", role="approver")[1]).status_code == 303
    inbox = client.get("/desk/inbox", headers=PAGE)
    assert inbox.status_code == 200
    assert sign_in("no key at all").status_code == 403
    assert client.get("/desk/inbox", headers=PAGE).status_code == 200
    client.post("/desk/sign-out", data={"csrf_token": token_in(inbox.text)}, headers=PAGE)

    assert client.get("/desk/inbox", headers=PAGE).status_code == 302
    with client.session_transaction() as kept:
        assert kept["basket"] == ["tea"] and "axme" not in kept


def test_under_a_path_of_a_django_application(stage):
    """As wsgi.py does it; Django's own pages go on."""
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse
    from django.urls import path

    urls = types.ModuleType("tests_django_urls")
    urls.urlpatterns = [path("", lambda request: HttpResponse("the host"))]  # type: ignore[attr-defined]
    sys.modules["tests_django_urls"] = urls
    if not settings.configured:
        settings.configure(
            DEBUG=False, SECRET_KEY="django's own", ROOT_URLCONF="tests_django_urls", ALLOWED_HOSTS=["*"], USE_TZ=True
        )
        django.setup()
    door = create_app(stage.axme, actor=by_header, secret_key=SECRET)
    client = Client(DispatcherMiddleware(WSGIHandler(), {"/intents-app": door.wsgi_app}))

    use(client, stage, "/intents-app")

    assert client.get("/").text == "the host"


def test_under_a_path_of_a_fastapi_application(stage):
    """Through a2wsgi; its own routes go on."""
    import a2wsgi
    import fastapi

    host = fastapi.FastAPI()
    host.get("/")(lambda: {"who": "the host"})
    door = create_app(stage.axme, actor=by_header, secret_key=SECRET)
    host.mount("/intents-app", a2wsgi.WSGIMiddleware(door.wsgi_app, workers=4))
    # And back to WSGI, so that the same client walks through it.
    client = Client(a2wsgi.ASGIMiddleware(host))

    use(client, stage, "/intents-app")

    assert client.get("/").json == {"who": "the host"}


def test_a_blueprint_needs_a_host_with_a_secret(stage):
    """Else its sessions could be forged, or would break at the first page."""
    host = Flask("host")

    with pytest.raises(BadSetting, match="secret_key"):
        host.register_blueprint(blueprint(stage.axme), url_prefix="/intents")
