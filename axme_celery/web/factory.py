"""Put the web door together: hooks, rooms and error pages, on an application of our own or in a host's."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask

from ..errors import BadSetting
from ..who import Actor

try:
    from . import guard
except ImportError as missing:  # Flask-WTF: the core does not bring it
    raise BadSetting(f"the pages need more than the core ({missing}): pip install 'axme-celery[web]'") from missing
from .actor import Resolver, load_actor
from .house import EXTENSION, House
from .live import Hub
from .oidc import Provider

if TYPE_CHECKING:
    from ..extension import Axme

#: The rooms behind the door: "module:blueprint", each registered under the path given.
ROOMS = (
    ("axme_celery.web.pages:blueprint", "/"),
    ("axme_celery.web.streams:blueprint", "/live"),
    ("axme_celery.web.v1:blueprint", "/v1"),
    ("axme_celery.web.probe:blueprint", "/"),
    ("axme_celery.web.metrics:blueprint", "/"),
    ("axme_celery.web.openapi:blueprint", "/"),
    ("axme_celery.web.mcp:blueprint", "/"),
)

#: Shorter secrets can be tried out.
SECRET_CHARACTERS = 32


def make_app(axme: Axme | None, actor: Callable[[Any], Actor | None] | None, secret_key: str | None) -> Flask:
    """``create_app``."""
    axme = axme if axme is not None else _named_project()
    secret = secret_key or axme.settings.secret_key
    if not secret or len(secret) < SECRET_CHARACTERS:
        raise BadSetting(
            f"the pages need axme_secret_key, at least {SECRET_CHARACTERS} random characters, to sign sessions with: "
            f'python -c "import secrets; print(secrets.token_urlsafe(48))"'
        )
    app = Flask("axme_celery.web", static_folder=None, template_folder=None)
    app.secret_key = secret
    guard.own(app)
    app.register_blueprint(make_blueprint(axme, actor), url_prefix="/")
    from .pages.errors import register

    register(app)
    app.after_request(guard.after)
    return app


def make_blueprint(axme: Axme, actor: Callable[[Any], Actor | None] | None) -> Blueprint:
    """``blueprint``."""
    settings = axme.settings
    if actor is None and settings.actor:
        actor = load_actor(settings.actor)
    oidc = Provider(settings) if settings.oidc_issuer else None
    here = House(axme, Resolver(settings, actor), Hub(lambda: axme.runtime, settings.live_clients), oidc)
    door = Blueprint("axme", "axme_celery.web", static_folder="static", template_folder="templates")
    door.record(lambda state: _move_in(state.app, here))
    door.before_request(guard.before)
    door.before_request(guard.check_token)
    door.after_request(guard.after)
    for place, path in ROOMS:
        module, _, name = place.partition(":")
        door.register_blueprint(getattr(import_module(module), name), url_prefix=path)
    from .pages.errors import register

    register(door)
    return door


def _move_in(app: Any, here: House) -> None:
    if not app.secret_key:
        raise BadSetting(
            "the application has no secret_key, with which sessions are signed; set it before the blueprint"
        )
    app.extensions[EXTENSION] = here


def _named_project() -> Axme:
    name = os.environ.get("AXME_APP") or os.environ.get("CELERY_APP")
    if not name:
        raise BadSetting("which project? Pass its Axme to create_app(axme), or name its Celery app in AXME_APP")
    from celery.app.utils import find_app

    axme: Axme | None = getattr(find_app(name), "axme", None)
    if axme is None:
        raise BadSetting(f"the app {name!r} has no Axme; put axme = Axme(app) beside it")
    return axme
