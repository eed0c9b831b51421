"""A request as it came: its ids, its JSON body within limits, and its fields one by one."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, g, request

from ... import trace
from ...durations import moment
from ...errors import BadInput
from ...model import JsonDict
from ...texts import line, text
from ...wire import text_of
from ..house import house, need
from .problems import Problem

#: Lists and objects within one another in a body.
DEEPEST = 40
_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
#: Views that know by themselves who asks.
_OPEN: set[str] = set()


def install(blueprint: Blueprint) -> None:
    """Have every request of the blueprint looked at before, and every response signed after."""
    blueprint.before_request(_before)
    blueprint.after_request(_after)
    # What this thread does next has nothing to do with this request.
    blueprint.teardown_request(lambda _: trace.enter(None))


def knows_by_itself(view: Any) -> Any:
    """Decorate a view that takes other credentials than a key (a tool's token)."""
    _OPEN.add(view.__name__)
    return view


def _before() -> None:
    g.axme_request_id = _id_of("X-Request-Id") or str(uuid.uuid4())
    trace.enter(trace.read({name.lower(): value for name, value in request.headers.items()}))
    g.axme_trace_id = _id_of("X-Trace-Id") or g.axme_request_id
    name = (request.endpoint or "").rpartition(".")[2]
    if name not in _OPEN:
        need()


def _after(response: Response) -> Response:
    if "axme_request_id" in g:
        response.headers["X-Request-Id"] = g.axme_request_id
        response.headers["X-Trace-Id"] = g.axme_trace_id
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _id_of(header: str) -> str | None:
    given = request.headers.get(header, "")
    return given if _ID.fullmatch(given) else None


# -- the body ---------------------------------------------------------------------------


def limit_body(bytes_: int) -> None:
    """How large this request's body may be; asked before it is read."""
    request.max_content_length = bytes_
    if request.content_length is not None and request.content_length > bytes_:
        raise Problem(413, "payload_too_large", f"the body is {request.content_length} bytes; the limit is {bytes_}")


def body(most_bytes: int | None = None) -> JsonDict:
    """The body as an object; empty where there is none. Raises Problem 400, 413, 422."""
    if "axme_body" in g:
        return g.axme_body  # type: ignore[no-any-return]
    most = most_bytes if most_bytes is not None else house().axme.settings.payload_bytes
    limit_body(most)
    data = request.get_data(cache=True)
    if len(data) > most:
        raise Problem(413, "payload_too_large", f"the body is over {most} bytes")
    found: Any = {}
    if data.strip():
        try:
            found = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
        except UnicodeDecodeError:
            raise Problem(400, "malformed_request", "the body is not UTF-8") from None
        except (ValueError, RecursionError) as wrong:
            raise Problem(400, "malformed_request", f"the body is not JSON: {str(wrong)[:200]}") from None
    check(found)
    if not isinstance(found, dict):
        raise Problem(422, "schema_invalid", "the body must be a JSON object")
    g.axme_body = found
    return found


def check(value: Any) -> None:
    """Refuse what no store keeps: NUL, halves of characters, infinities, bottomless depth. Raises Problem."""
    level = [value]
    for _ in range(DEEPEST + 1):
        deeper: list[Any] = []
        for each in level:
            if isinstance(each, str):
                if "\0" in each or any("\ud800" <= c <= "\udfff" for c in each):
                    raise Problem(400, "malformed_request", "the body has a NUL or half a character in a text")
            elif isinstance(each, float):
                if each != each or each in (float("inf"), float("-inf")):
                    raise Problem(400, "malformed_request", "the body has a number that is too large")
            elif isinstance(each, dict):
                deeper += [*each.keys(), *each.values()]
            elif isinstance(each, list):
                deeper += each
        if not deeper:
            return
        level = deeper
    raise Problem(422, "schema_invalid", f"the body is more than {DEEPEST} levels deep")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def reply(found: JsonDict) -> Response:
    """A JSON answer."""
    return Response(text_of(found), 200, mimetype="application/json")


# -- fields -----------------------------------------------------------------------------


class Fields:
    """The fields of an object, read one by one. Each raises BadInput naming the field."""

    def __init__(self, given: Mapping[str, Any], where: str = "") -> None:
        self._given = given
        self._where = where

    def _named(self, name: str) -> str:
        return f"{self._where}{name}"

    def has(self, name: str) -> bool:
        """Whether it is there, and not null."""
        return self._given.get(name) is not None

    def line(self, name: str, *, longest: int = 255, shortest: int = 1, required: bool = False) -> str | None:
        """One printable line."""
        value = self._given.get(name)
        if value is None:
            self._missing(name, required)
            return None
        found = line(value, self._named(name), longest=longest)
        if len(found) < shortest:
            raise BadInput(f"{self._named(name)} is shorter than {shortest} characters")
        return found

    def text(self, name: str, *, longest: int, required: bool = False) -> str | None:
        """Text of any lines."""
        value = self._given.get(name)
        if value is None:
            self._missing(name, required)
            return None
        return text(value, self._named(name), longest=longest)

    def integer(self, name: str, *, least: int = 1, most: int = 2**31 - 1) -> int | None:
        """A whole number."""
        value = self._given.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            # JSON has one kind of number: 7.0 is a whole one.
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise BadInput(f"{self._named(name)} must be a whole number from {least} to {most}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._given.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise BadInput(f"{self._named(name)} must be true or false")
        return value

    def object(self, name: str, *, required: bool = False) -> JsonDict | None:
        """An object."""
        value = self._given.get(name)
        if value is None:
            self._missing(name, required)
            return None
        if not isinstance(value, dict):
            raise BadInput(f"{self._named(name)} must be an object")
        return value

    def lines(self, name: str, *, most: int = 20, longest: int = 255) -> list[str] | None:
        """A list of lines."""
        value = self._given.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            raise BadInput(f"{self._named(name)} must be a list of 1 to {most}")
        return [line(each, f"each of {self._named(name)}", longest=longest) for each in value]

    def moment(self, name: str) -> datetime | None:
        """A moment with its zone."""
        value = self._given.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise BadInput(f"{self._named(name)} must be a moment such as 2026-10-31T18:00:00Z")
        return moment(value, self._named(name))

    def uuid(self, name: str, *, required: bool = False) -> str | None:
        """A UUID, in its usual form."""
        value = self._given.get(name)
        if value is None:
            self._missing(name, required)
            return None
        if not isinstance(value, str) or not _UUID.fullmatch(value):
            raise BadInput(f"{self._named(name)} must be a UUID")
        return value.lower()

    def _missing(self, name: str, required: bool) -> None:
        if required:
            raise BadInput(f"{self._named(name)} is required")


def query_int(name: str, default: int, *, least: int, most: int, clip: bool = False) -> int:
    """A whole number of the query. ``clip``: beyond the limits it is the limit. Raises BadInput."""
    given = request.args.get(name)
    if given is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,18}", given):
        raise BadInput(f"{name} must be a whole number")
    value = int(given)
    if clip:
        return max(least, min(most, value))
    if not least <= value <= most:
        raise BadInput(f"{name} must be from {least} to {most}")
    return value


def query_line(name: str, *, longest: int = 383) -> str | None:
    """A line of the query, or of the header of the same meaning. Raises BadInput."""
    given = request.args.get(name)
    return None if not given else line(given, name, longest=longest)


def query_flag(name: str) -> bool:
    """Whether the query says so."""
    return request.args.get(name, "").lower() in ("1", "true", "yes")
