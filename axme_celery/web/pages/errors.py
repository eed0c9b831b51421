"""Refusals as pages: what happened, and what to do next. Programs that ask for JSON get that."""

from __future__ import annotations

import logging
from typing import Any

from flask import jsonify, redirect, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import NotFound as NoSuchPage
from werkzeug.wrappers import Response

from ... import errors
from ..house import RoleNeeded, SignInNeeded
from ..live import Full
from .shown import page

log = logging.getLogger(__name__)


def register(scaffold: Any) -> None:
    """Have an application, or a blueprint, answer with these."""
    scaffold.register_error_handler(SignInNeeded, sign_in_needed)
    scaffold.register_error_handler(RoleNeeded, role_needed)
    scaffold.register_error_handler(errors.AxmeError, refused)
    scaffold.register_error_handler(HTTPException, http)
    scaffold.register_error_handler(Exception, broken)


def sign_in_needed(_: SignInNeeded) -> Any:
    """To the sign-in page and back; programs get 401."""
    if _wants_page():
        if request.method == "GET":
            target = request.full_path.rstrip("?")
            return redirect(url_for("axme.pages.sign_in", next=request.script_root + target), 302)
        return _said(401, "Sign in first", "Your session has ended. Sign in again, then send this once more.")
    response = _said(401, "Sign in first", "Show a key: Authorization: Bearer axk_..., or x-api-key.")
    response[0].headers["WWW-Authenticate"] = 'Bearer realm="axme"'
    return response


def role_needed(error: RoleNeeded) -> Any:
    return _said(
        403, "Not yours to do", f"You are {error.actor.id}, a {error.actor.role}. This needs the role {error.role}."
    )


def refused(error: errors.AxmeError) -> Any:
    """A verb said no."""
    match error:
        case errors.NotFound() | errors.LinkInvalid():
            return no_such()
        case errors.NotAllowed():
            return _said(403, "Not yours to do", str(error))
        case errors.TooLarge():
            return _said(413, "Too large", str(error))
        case errors.BadInput():
            return _said(422, "That does not fit", str(error))
        case errors.WaitClosed() | errors.IntentEnded() | errors.KeyConflict() | errors.StaleChange():
            return _said(409, "Too late", str(error))
        case Full():
            response = _said(503, "Full", str(error))
            response[0].headers["Retry-After"] = str(error.retry_seconds)
            return response
        case errors.LedgerUnavailable() | errors.TrackerUnavailable():
            log.warning("the pages cannot reach a store: %s", error)
            response = _said(503, "One moment", "The ledger cannot be reached. Nothing was changed; try again soon.")
            response[0].headers["Retry-After"] = "5"
            return response
    log.exception("a verb failed", exc_info=error)
    return _said(500, "Something broke", "It is in the server's log. Nothing is half-done; trying again is safe.")


def http(error: HTTPException) -> Any:
    """404, 405, 413 and their like."""
    if isinstance(error, NoSuchPage):
        return no_such()
    if error.code is not None and error.code < 400:
        return error
    response = _said(error.code or 500, error.name, error.description or "")
    for name, value in error.get_headers():
        if name.lower() in ("allow", "retry-after"):
            response[0].headers[name] = value
    return response


def broken(error: Exception) -> Any:
    """Something of ours. Never shown: it may hold what this person must not see."""
    log.exception("a page failed", exc_info=error)
    return _said(500, "Something broke", "It is in the server's log. Nothing is half-done; trying again is safe.")


def no_such() -> Any:
    """The same words for what is not there and for what is not theirs."""
    return _said(404, "Not here", "There is nothing at this address, or it is not yours to see.")


def _said(status: int, title: str, words: str) -> tuple[Response, int]:
    if request.path.startswith("/v1/"):
        # No view of the HTTP interface was found, so its own handlers were not asked.
        from ..v1.problems import plain

        return plain(status, words), status
    if _wants_page():
        return Response(page("error.html", title=title, words=words, status=status), mimetype="text/html"), status
    return jsonify({"error": title, "detail": words}), status


def _wants_page() -> bool:
    kinds = request.accept_mimetypes
    return bool(kinds) and kinds.accept_html and not (kinds["application/json"] > kinds["text/html"])
