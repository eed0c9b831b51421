"""``/mcp``: the Model Context Protocol, so that an AI agent can use the queue. JSON-RPC 2.0 over POST, without sessions.

Each request is whole in itself: there is no stream from the server, and nothing is kept between two of them. A tool's
result is MCP's, with AXP's ``tool``, ``status``, ``owner_agent`` and ``data`` beside it, which its clients read.

Source: MCP's streamable HTTP transport; AXP's MCP contract.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from flask import Blueprint, Response, g, request

from .. import __version__
from ..errors import AxmeError, BadInput, LedgerUnavailable, NotFound
from ..model import JsonDict
from ..who import Actor
from ..wire import text_of
from .house import RoleNeeded, current_actor, house
from .tools import TOOLS, Refused
from .v1 import rates
from .v1.problems import Problem
from .v1.requests import check

log = logging.getLogger(__name__)

blueprint = Blueprint("mcp", __name__)

#: Newest first; a client that asks for another is offered the first.
VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
#: Requests in one batch.
MOST = 50
_ABOUT = (
    "Durable intents over a Celery queue: submit work that survives crashes and waits for people, follow it, answer what "
    "people are asked, cancel it. An intent's id is a UUID; its events are numbered by seq."
)


class RpcError(Exception):
    """A refusal of the protocol's own kind."""

    def __init__(self, code: int, message: str, data: JsonDict | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


@blueprint.post("/mcp")
def mcp() -> Response:
    """One JSON-RPC request, or several in a list."""
    actor = current_actor()
    if actor is None:
        body = _error(None, RpcError(-32001, "show a key: x-api-key, or Authorization: Bearer"))
        return _json(body, 401, {"WWW-Authenticate": 'Bearer realm="axme"'})
    try:
        given = json.loads(request.get_data().decode("utf-8"), parse_constant=_no_constant)
        check(given)
    except (ValueError, RecursionError, Problem):
        return _json(_error(None, RpcError(-32700, "the body is not JSON")), 400)
    if isinstance(given, list):
        if not 1 <= len(given) <= MOST:
            return _json(_error(None, RpcError(-32600, f"a batch has 1 to {MOST} requests")), 400)
        answers = [answer for each in given if (answer := _one(actor, each)) is not None]
        return _json(answers) if answers else Response(status=202)
    if not isinstance(given, dict):
        return _json(_error(None, RpcError(-32600, "a request is an object, or a list of them")), 400)
    answer = _one(actor, given)
    return Response(status=202) if answer is None else _json(answer)


def _one(actor: Actor, given: Any) -> JsonDict | None:
    """The answer of one request; None where it is a notification, or an answer to us."""
    if not isinstance(given, dict) or given.get("jsonrpc") != "2.0":
        return _error(None, RpcError(-32600, "a request is an object with jsonrpc 2.0 and a method"))
    method, request_id = given.get("method"), given.get("id")
    if method is None and ("result" in given or "error" in given):
        return None
    if not isinstance(method, str) or isinstance(request_id, bool | float | dict | list):
        return _error(None, RpcError(-32600, "method must be text, and id text or a number"))
    params = given.get("params")
    try:
        if params is not None and not isinstance(params, dict):
            raise RpcError(-32602, "params must be an object")
        if request_id is None:
            return None
        return {"jsonrpc": "2.0", "id": request_id, "result": _answer(actor, method, params or {})}
    except RpcError as refused:
        return _error(request_id, refused)


def _answer(actor: Actor, method: str, params: JsonDict) -> JsonDict:
    match method:
        case "initialize":
            asked = params.get("protocolVersion")
            return {
                "protocolVersion": asked if asked in VERSIONS else VERSIONS[0],
                "capabilities": {"tools": {"listChanged": False}},
                "serverInfo": {"name": "axme-celery", "version": __version__},
                "instructions": _ABOUT,
            }
        case "ping":
            return {}
        case "tools/list":
            return {"tools": [tool.described for tool in TOOLS.values()]}
        case "resources/list":
            return {"resources": []}
        case "resources/templates/list":
            return {"resourceTemplates": []}
        case "prompts/list":
            return {"prompts": []}
        case "tools/call":
            return _call(actor, params)
    raise RpcError(-32601, f"there is no method {method[:80]!r}")


def _call(actor: Actor, params: JsonDict) -> JsonDict:
    name, arguments = params.get("name"), params.get("arguments")
    tool = TOOLS.get(name) if isinstance(name, str) else None
    if tool is None:
        raise RpcError(-32602, f"there is no tool {str(name)[:80]!r}; tools/list names them")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise RpcError(-32602, "arguments must be an object")
    _limit(actor, tool.name)
    owner = params.get("owner_agent") or arguments.get("owner_agent")
    owner = owner if isinstance(owner, str) else actor.owner or actor.agent or actor.id
    given = {k: v for k, v in arguments.items() if k not in ("owner_agent", "idempotency_key")}
    g.axme_mcp_key = arguments.get("idempotency_key")
    try:
        return _result(tool.name, owner, "ok", tool.call(actor, given))
    except RoleNeeded as low:
        words = f"{low.actor.id} is {low.actor.role}; this needs the role {low.role}"
        return _result(tool.name, owner, "policy_denied", {"message": words}, failed=True)
    except Problem as problem:
        return _result(tool.name, owner, problem.code, {"message": problem.message}, failed=True)
    except Refused as refused:
        return _result(tool.name, owner, refused.code, {"message": str(refused)}, failed=True)
    except NotFound as nothing:
        return _result(tool.name, owner, "not_found", {"message": f"there is no such {nothing.what}"}, failed=True)
    except LedgerUnavailable as away:
        log.warning("a tool could not reach the ledger: %s", away)
        raise RpcError(-32010, "the ledger cannot be reached; nothing was changed, try again soon") from None
    except BadInput as wrong:
        # What the caller can put right is told to it as the tool's answer: a model reads that, and not an error.
        return _result(tool.name, owner, "invalid_arguments", {"message": str(wrong)}, failed=True)
    except AxmeError as error:
        return _result(tool.name, owner, "refused", {"message": str(error)}, failed=True)


def _result(tool: str, owner: str, status: str, data: JsonDict, *, failed: bool = False) -> JsonDict:
    found = {
        "ok": not failed, "tool": tool, "status": status, "owner_agent": owner, "data": data,
        "content": [{"type": "text", "text": text_of(data)}], "structuredContent": data,
    }  # fmt: skip
    return {**found, "isError": True} if failed else found


def _limit(actor: Actor, tool: str) -> None:
    """The same limit as for every endpoint, for each tool. Raises RpcError."""
    most = house().axme.settings.requests_per_minute
    if most is None:
        return
    _, pause = rates.BUCKETS.take(f"{id(house())}:{actor.id}", f"mcp {tool}", most)
    if pause:
        raise RpcError(
            -32004, f"more than {most} calls a minute of this tool", {"retry_after_seconds": round(pause, 1)}
        )


def _error(request_id: Any, refused: RpcError) -> JsonDict:
    error: JsonDict = {"code": refused.code, "message": refused.message}
    if refused.data is not None:
        error["data"] = refused.data
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def _json(found: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(text_of(found), status, headers, mimetype="application/json")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
