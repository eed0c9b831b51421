"""Refusals: one shape for all of them, whatever went wrong.

``{"error": {"code", "message", "category", "retryable", "details"}, "detail": message}``: published clients read the
one or the other.
"""

from __future__ import annotations

import logging

from flask import Blueprint, Response, g, request
from werkzeug.exceptions import HTTPException

from ... import errors
from ...model import JsonDict
from ...wire import text_of
from ..house import RoleNeeded, SignInNeeded

log = logging.getLogger(__name__)

#: status -> (code, category) where nothing more is known.
_PLAIN = {
    400: ("malformed_request", "validation"),
    401: ("missing_platform_api_key", "auth"),
    403: ("policy_denied", "policy"),
    404: ("not_found", "validation"),
    405: ("method_not_allowed", "validation"),
    409: ("conflict", "policy"),
    413: ("payload_too_large", "validation"),
    415: ("unsupported_media_type", "validation"),
    422: ("schema_invalid", "validation"),
    429: ("rate_limit_exceeded", "policy"),
    503: ("unavailable", "transport"),
}


class Problem(Exception):
    """A refusal of this door's own."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        details: JsonDict | None = None,
        headers: dict[str, str] | None = None,
        more: JsonDict | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retryable = retryable
        self.details = details or {}
        self.headers = headers or {}
        #: Further names beside ``error``, which some clients read.
        self.more = more or {}


def answer(
    status: int,
    code: str,
    message: str,
    *,
    retryable: bool = False,
    details: JsonDict | None = None,
    headers: dict[str, str] | None = None,
    more: JsonDict | None = None,
) -> Response:
    """The response of a refusal."""
    category = _PLAIN.get(status, ("", "internal"))[1]
    error = {
        "code": code, "message": message, "category": category, "retryable": retryable, "details": details or {},
        "request_id": g.get("axme_request_id"),
    }  # fmt: skip
    body = {"ok": False, "error": error, "detail": message, **(more or {})}
    return Response(text_of(body), status, {**(headers or {})}, mimetype="application/json")


def install(blueprint: Blueprint) -> None:
    """Have every refusal of the blueprint's views told this way."""
    blueprint.register_error_handler(Problem, _problem)
    blueprint.register_error_handler(SignInNeeded, _sign_in_needed)
    blueprint.register_error_handler(RoleNeeded, _role_needed)
    blueprint.register_error_handler(errors.AxmeError, refused)
    blueprint.register_error_handler(HTTPException, _http)
    blueprint.register_error_handler(Exception, _broken)


def _problem(problem: Problem) -> Response:
    return answer(
        problem.status, problem.code, problem.message, retryable=problem.retryable, details=problem.details,
        headers=problem.headers, more=problem.more,
    )  # fmt: skip


def _sign_in_needed(_: SignInNeeded) -> Response:
    shown = "x-api-key" in request.headers or "Authorization" in request.headers
    code = "invalid_platform_api_key" if shown else "missing_platform_api_key"
    words = (
        "this key is unknown, revoked or has run out" if shown else "show a key: x-api-key, or Authorization: Bearer"
    )
    return answer(401, code, words, headers={"WWW-Authenticate": 'Bearer realm="axme"'})


def _role_needed(error: RoleNeeded) -> Response:
    return answer(
        403, "policy_denied", f"{error.actor.id} is {error.actor.role}; this needs the role {error.role}",
        details={"role": error.actor.role.value, "needed": error.role.value},
    )  # fmt: skip


def refused(error: errors.AxmeError) -> Response:
    """A verb said no."""
    words = str(error)
    match error:
        case errors.NotFound():
            # The same words for what is not there and for what is not theirs to see.
            return answer(404, f"{error.what.split()[0]}_not_found", f"there is no such {error.what}")
        case errors.NotAllowed():
            return answer(403, "policy_denied", words)
        case errors.TooLarge():
            sizes = {"size_bytes": error.size_bytes, "limit_bytes": error.limit_bytes}
            return answer(413, "payload_too_large", words, details=sizes)
        case errors.BadInput():
            return answer(422, "schema_invalid", words)
        case errors.KeyConflict():
            return answer(409, "idempotency_conflict", "idempotency key reused with different payload")
        case errors.WaitClosed():
            closed = {
                "wait_id": error.wait_id, "wait_status": error.status, "closed_by": error.closed_by,
                "closed_at": None if error.closed_at is None else error.closed_at.isoformat(),
            }  # fmt: skip
            return answer(409, "already_decided", words, details=closed)
        case errors.IntentEnded():
            return answer(409, "intent_terminal", words, details={"status": error.status})
        case errors.HandledByQueue():
            return answer(409, "handled_by_queue", words)
        case errors.StaleGeneration():
            stale = {"applied": False, "reason": "stale_policy_generation", "policy_generation": error.generation}
            return answer(409, "stale_policy_generation", words, details=stale, more=stale)
        case errors.StaleChange():
            return answer(409, "conflict", words, retryable=True)
        case errors.LedgerUnavailable() | errors.TrackerUnavailable():
            log.warning("a request could not reach a store: %s", error)
            words = "the ledger cannot be reached; nothing was changed, try again soon"
            return answer(503, "unavailable", words, retryable=True, headers={"Retry-After": "2"})
        case errors.AxmeError() if type(error).__name__ == "ShownChanged":
            return answer(409, "shown_changed", words)
    return _broken(error)


def _http(error: HTTPException) -> Response:
    if error.response is not None and error.code is None:
        return error.response  # type: ignore[return-value]
    status = error.code or 500
    code, _ = _PLAIN.get(status, ("internal_error", "internal"))
    kept = {k: v for k, v in error.get_headers() if k.lower() in ("allow", "retry-after", "www-authenticate")}
    return answer(status, code, error.description or error.name, retryable=status >= 500, headers=kept)


def _broken(error: Exception) -> Response:
    log.exception("a request failed", exc_info=error)
    words = "something broke; it is in the server's log under this request id"
    return answer(500, "internal_error", words, retryable=True)


def plain(status: int, words: str) -> Response:
    """A refusal of which only the status is known: for the application's own handlers."""
    return answer(status, _PLAIN.get(status, ("internal_error",))[0], words, retryable=status >= 500)
