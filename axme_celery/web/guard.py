"""What holds for every request and every response: hosts, forged requests, sizes, and the headers that keep pages safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import current_app, request, session
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import validate_csrf
from werkzeug.exceptions import BadRequest, Forbidden
from wtforms import ValidationError

from ..model import JsonDict
from .house import current_actor, house

if TYPE_CHECKING:
    from flask import Flask, Response

#: Methods that change nothing, whoever sends them.
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: A page may lie open over a weekend before its form is sent.
TOKEN_SECONDS = 7 * 86400
#: Names of this machine, which no certificate and no stranger's DNS record is for.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # Pico's own icons
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def before() -> None:
    """Refuse what must not get any further. Raises werkzeug's HTTP errors."""
    _check_host()
    settings = house().axme.settings
    # Room for the largest thing that may be sent, in its wrapping; Flask itself has no limit.
    request.max_content_length = max(settings.payload_bytes, settings.result_bytes) + 65536
    if request.method not in SAFE:
        _check_origin()


def check_token() -> None:
    """Refuse an unsafe request that a browser may have been tricked into sending.

    Whoever shows a key has shown that they mean it; every other way of being known is sent along by the browser, by
    itself, with whatever page a stranger made it send.
    """
    if request.method in SAFE:
        return
    actor = current_actor()
    # For nobody there is nothing to lose; signing in checks the token itself.
    if actor is not None and actor.via != "key":
        require_token()


def require_token() -> None:
    """Refuse a form without the token of its session. Raises Forbidden."""
    token = request.form.get("csrf_token") or request.headers.get("X-CSRF-Token")
    try:
        validate_csrf(token, time_limit=TOKEN_SECONDS)
    except ValidationError:
        raise Forbidden(
            "This page was open for too long, or was not sent by you. Go back, reload it, and try again."
        ) from None


def after(response: Response) -> Response:
    """Put the safety headers on a response."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if request.endpoint and request.endpoint.endswith("axme.static"):
        # Named with the hash of what is in it, so a new version has a new address.
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    else:
        response.headers.setdefault("Cache-Control", "no-store")
    if is_secure():
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    return response


def is_secure() -> bool:
    """Whether people reach this by https, as far as we can know."""
    return request.is_secure or (house().axme.settings.base_url or "").startswith("https:")


def _check_host() -> None:
    """With a base URL, answer to that host only: another name for this server may be a stranger's."""
    settings = house().axme.settings
    if not settings.base_url and not settings.hosts:
        return
    name = (urlsplit(f"//{request.host}").hostname or "").lower()
    known = {*LOOPBACK, *(each.lower() for each in settings.hosts)}
    if settings.base_url:
        known.add((urlsplit(settings.base_url).hostname or "").lower())
    if name not in known:
        raise BadRequest("This host name is not served here; the names are axme_base_url's and those in axme_hosts.")


def _check_origin() -> None:
    """Browsers say where a request comes from; programs do not."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise Forbidden("This request came from another site.")
        return
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise Forbidden("This request came from another site.")


class Sessions(SecureCookieSessionInterface):
    """Flask's signed cookie, as strict as where we are served allows."""

    def get_cookie_name(self, app: Flask) -> str:
        # The prefix has the browser refuse it from anywhere but this very host, over https.
        return "__Host-axme" if self.get_cookie_secure(app) and not request.script_root else "axme"

    def get_cookie_secure(self, app: Flask) -> bool:
        return is_secure()

    def get_cookie_path(self, app: Flask) -> str:
        return request.script_root or "/"

    def get_cookie_httponly(self, app: Flask) -> bool:
        return True

    def get_cookie_samesite(self, app: Flask) -> str:
        return "Lax"


def own(app: Flask) -> None:
    """Set up an application that is ours alone."""
    app.session_interface = Sessions()
    app.config.update(WTF_CSRF_TIME_LIMIT=TOKEN_SECONDS, MAX_FORM_PARTS=2000, SESSION_REFRESH_EACH_REQUEST=False)


def remember(kept: JsonDict) -> None:
    """Sign in: keep this in the session, and nothing that was kept there for whoever came before."""
    forget()
    session["axme"] = kept


def forget() -> None:
    """Sign out: everything kept in the session of our own application; of a host's session, our part."""
    if isinstance(current_app.session_interface, Sessions):
        session.clear()
    else:
        session.pop("axme", None)


def local(target: str | None, otherwise: str) -> str:
    """``target`` if it is a path here, else the other: where to go after signing in must not lead to a stranger."""
    if not target or not target.startswith("/") or target.startswith(("//", "/\\")) or not target.isprintable():
        return otherwise
    parts: Any = urlsplit(target)
    return otherwise if parts.scheme or parts.netloc or "\\" in target else target
