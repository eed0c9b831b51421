"""Signing in with a key, by a one-time link, or with an account of the house; and out."""

from __future__ import annotations

from flask import redirect, request, session, url_for
from werkzeug import Response
from werkzeug.exceptions import NotFound

from ...errors import BadInput
from ...keys import LINK_PREFIX
from ..guard import forget, local, remember, require_token
from ..house import current_actor, house
from ..oidc import NotSignedIn, Provider
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
    kept = here.resolver.opened_with(here.rt, secret)
    if kept is None:
        was_link = secret.startswith(LINK_PREFIX)
        return page(
            "sign_in.html", link="", next=local(request.form.get("next"), ""), refused=True, was_link=was_link
        ), 403
    remember(kept)
    return redirect(after, 303)


@blueprint.get("/sign-in/account")
def to_provider() -> Response | tuple[str, int]:
    """To the provider. A link and no form: browsers let no form of ours lead to another site."""
    after = local(request.args.get("next"), url_for("axme.pages.home"))
    try:
        return redirect(_provider().begin(session, _return_address(), after), 302)
    except NotSignedIn as refused:
        return _not_signed_in(refused.words, refused.status, after)


@blueprint.get("/sign-in/return")
def from_provider() -> Response | tuple[str, int]:
    """Back from the provider, with a code that only it can have given, for what was begun in this browser."""
    here, provider, after = house(), _provider(), ""
    try:
        begun = provider.begun(session, request)
        after = local(begun["after"], "")
        person = provider.finish(begun, request)
        remember(here.resolver.opened_for(here.rt, person.id, person.groups))
    except NotSignedIn as refused:
        return _not_signed_in(refused.words, refused.status, after)
    except BadInput as odd:
        return _not_signed_in(f"What your provider says of you does not fit: {odd}.", 403, after)
    return redirect(after or url_for("axme.pages.home"), 302)


def _provider() -> Provider:
    provider = house().oidc
    if provider is None:
        raise NotFound
    return provider


def _return_address() -> str:
    """Where the provider sends people back to: what has to be registered with it."""
    base = house().axme.settings.base_url
    return f"{base}/sign-in/return" if base else url_for("axme.pages.from_provider", _external=True)


def _not_signed_in(words: str, status: int, after: str) -> tuple[str, int]:
    return page("sign_in.html", link="", next=after, trouble=words), status


@blueprint.post("/sign-out")
def leave() -> Response:
    """End the session opened here. A host's own login, and a provider's, is theirs to end."""
    current_actor()
    here = house()
    here.resolver.end_session(here.rt, session)
    forget()
    return redirect(url_for("axme.pages.sign_in"), 303)
