"""The web door: a Flask application of its own, or a blueprint in a host's. Pages, live streams and the HTTP interface.

    create_app(axme)   a WSGI application; mount it under a path of Flask, Django or FastAPI, or serve it with gunicorn
    blueprint(axme)    for a Flask application: app.register_blueprint(blueprint(axme), url_prefix="/intents")

Flask is imported when one of the two is called. Both refuse to be made without a secret to sign sessions with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Blueprint, Flask

    from ..extension import Axme
    from ..who import Actor

__all__ = ["blueprint", "create_app"]


def create_app(
    axme: Axme | None = None,
    *,
    actor: Callable[[Any], Actor | None] | None = None,
    secret_key: str | None = None,
) -> Flask:
    """The pages and the HTTP interface as a WSGI application.

    axme:        the project's; None: that of the app named in AXME_APP, as ``-A`` would name it.
    actor:       ``(request) -> Actor or None``, who a request comes from; ``axme_actor`` unless given.
    secret_key:  signs sessions; ``axme_secret_key`` unless given. At least 32 characters.

    Raises BadSetting.
    """
    from .factory import make_app

    return make_app(axme, actor, secret_key)


def blueprint(axme: Axme, *, actor: Callable[[Any], Actor | None] | None = None) -> Blueprint:
    """The same as a blueprint for a Flask application, whose session and secret key it uses; it touches nothing else.

    Raises BadSetting.
    """
    from .factory import make_blueprint

    return make_blueprint(axme, actor)
