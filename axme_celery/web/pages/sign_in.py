"""Signing in with a key, or by a one-time link; and out."""

from __future__ import annotations

from flask import redirect, request, session, url_for
from werkzeug import Response

from ...keys import LINK_PREFIX
from ..guard import forget, local, require_token
from ..house import current_actor, house
from . import blueprint
from .shown import page


@blueprint.get("/sign-in")
def sign_in() -> str | tuple[str, int]:
    """The form. A GET of a one-time link changes nothing: scanners of mail follow links before people do."""
    link = request.args.get("link", "")
    return page(
        "sign_in.html",
        link=link if link.startswith(LINK_PREFIX) else "",
        next=local(request.args.get("next"), ""),
    )


@blueprint.post("/sign-in")
def enter() -> Response | tuple[str, int]:
    """Open a session, or say that the key is no good."""
    require_token()
    after = local(request.form.get("next"), url_for("axme.pages.home"))
    secret = request.form.get("secret", "").strip()
    here = house()
    actor = here.resolver.open_session(here.rt, session, secret)
    if actor is None:
        was_link = secret.startswith(LINK_PREFIX)
        return page(
            "sign_in.html", link="", next=local(request.form.get("next"), ""), refused=True, was_link=was_link
        ), 403
    return redirect(after, 303)


@blueprint.post("/sign-out")
def leave() -> Response:
    """End the session opened here. A host's own login is the host's to end."""
    current_actor()
    forget()
    return redirect(url_for("axme.pages.sign_in"), 303)
