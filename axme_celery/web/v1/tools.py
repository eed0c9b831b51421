"""Tools report their jobs: done, failed, or still alive. By a token of that one job, a signature, or a key."""

from __future__ import annotations

from flask import request

from ... import answer, callbacks
from ...errors import AxmeError, BadInput, NotFound
from ...model import JsonDict
from ...who import Role
from ..house import SignInNeeded, current_actor, house, need
from . import blueprint
from .problems import Problem
from .repeats import writes_results
from .requests import Fields, body, knows_by_itself
from .rights import sees

_DONE, _FAILED, _ALIVE = "complete", "fail", "heartbeat"
_ACTIONS = {
    "complete": _DONE, "completed": _DONE, "done": _DONE, "success": _DONE, "succeeded": _DONE,
    "fail": _FAILED, "failed": _FAILED, "error": _FAILED,
    "heartbeat": _ALIVE, "progress": _ALIVE, "running": _ALIVE,
}  # fmt: skip


@blueprint.post("/tools/<tool>/jobs/<path:job_id>", merge_slashes=False)
@knows_by_itself
@writes_results
def report_job(tool: str, job_id: str) -> JsonDict:
    """A tool's report of its job: ``{"result": ...}``, ``{"error": ...}``, or ``{"status": "heartbeat", "progress": 0.4}``."""
    rt = house().rt
    answer.tool_job(tool, job_id)
    given, fields = body(), Fields(body())
    _let_in(tool, job_id)
    said = (fields.line("action", longest=32) or fields.line("status", longest=32) or "").lower()
    if not said:
        said = _FAILED if fields.has("error") else _DONE if "result" in given else ""
    kind = _ACTIONS.get(said)
    if kind is None:
        raise BadInput('say what it is: {"result": ...}, {"error": ...} or {"status": "heartbeat"}')
    if kind == _ALIVE:
        progress = given.get("progress")
        if isinstance(progress, bool):
            raise BadInput("progress must be a share from 0 to 1")
        answer.heartbeat_tool(rt, tool, job_id, progress)
    elif kind == _FAILED:
        error = given.get("error")
        answer.complete_tool(rt, tool, job_id, error=error if error is not None else {"message": "failed"})
    else:
        answer.complete_tool(rt, tool, job_id, given.get("result"))
    return {
        "ok": True,
        "tool": tool,
        "job_id": job_id,
        "status": {_DONE: "completed", _FAILED: "failed"}.get(kind, kind),
    }


def _let_in(tool: str, job_id: str) -> None:
    """Raises SignInNeeded, Problem, NotFound unless whoever reports may."""
    settings = house().axme.settings
    shown = request.args.get("token") or _bearer()
    if shown is not None and callbacks.is_token(settings, tool, job_id, shown):
        return
    if "webhook-signature" in request.headers:
        if _is_signed(settings.tool_secrets.get(tool)):
            return
        raise Problem(401, "invalid_signature", "the signature does not fit this body, or is too old")
    if current_actor() is None:
        raise SignInNeeded
    actor = need(Role.APPROVER)
    record = house().rt.ledger.tool_wait(tool, job_id)
    if record is not None and sees(actor, record.intent):
        return
    # A job nobody waits for yet is anybody's who sees the whole house; else one owner could answer for another.
    if record is None and actor.owner is None and actor.may(Role.OPERATOR):
        return
    raise NotFound("job", f"{job_id} of {tool}")


def _bearer() -> str | None:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None


def _is_signed(secret: str | None) -> bool:
    """Whether the body is signed as Standard Webhooks are, with this tool's secret, within the last minutes."""
    if not secret:
        return False
    from standardwebhooks.webhooks import Webhook, WebhookVerificationError

    named = {name: request.headers.get(name, "") for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    try:
        Webhook(secret).verify(request.get_data(cache=True), named)
    except (WebhookVerificationError, ValueError, AxmeError):
        return False
    return True
