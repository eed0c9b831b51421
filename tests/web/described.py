"""The HTTP interface as its OpenAPI document describes it, to hold answers to."""

from __future__ import annotations

import functools
import re
from typing import Any

from flask import Flask, Response, request
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from axme_celery.web.openapi import document

#: What a Flask rule and a path of the document have in common.
_RULE = re.compile(r"<(?:[^:<>]+(?:\([^)]*\))?:)?([^<>]+)>")


def path_of(rule: str) -> str:
    """A Flask rule as a path of the document."""
    return _RULE.sub(r"{\1}", rule)


@functools.cache
def _registry() -> Registry[Any]:
    return Registry().with_resource("urn:openapi", Resource(document(), DRAFT202012))


def _resolved(found: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in found:
        node: Any = document()
        for part in found["$ref"].removeprefix("#/").split("/"):
            node = node[part]
        found = node
    return found


def faults(method: str, path: str, response: Response) -> list[str]:
    """What in a response is not as the document says."""
    operation = document()["paths"].get(path, {}).get(method.lower())
    if operation is None:
        return [f"{method} {path} is not described"]
    described = operation["responses"].get(str(response.status_code))
    if described is None:
        return [
            f"{method} {path} answered {response.status_code}, which is not described: {response.get_data()[:300]!r}"
        ]
    media = _resolved(described).get("content", {})
    if not media:
        return [] if not response.get_data() else [f"{method} {path} has a body where none is described"]
    if response.mimetype not in media:
        return [f"{method} {path} answered in {response.mimetype}, described are {', '.join(media)}"]
    if response.mimetype != "application/json":
        return []
    schema = _rooted(media["application/json"]["schema"])
    validator = Draft202012Validator(schema, registry=_registry(), format_checker=FormatChecker())
    return [
        f"{method} {path}: {error.json_path}: {error.message[:200]}" for error in validator.iter_errors(response.json)
    ]


def _rooted(schema: Any) -> Any:
    """The schema with its references led to the whole document."""
    if isinstance(schema, dict):
        return {k: f"urn:openapi{v}" if k == "$ref" else _rooted(v) for k, v in schema.items()}
    return [_rooted(each) for each in schema] if isinstance(schema, list) else schema


def hold(app: Flask) -> list[str]:
    """Hold every answer of an application to the document; what is not as described is put into the list returned."""
    found: list[str] = []

    @app.after_request
    def look(response: Response) -> Response:
        if request.url_rule is not None and not response.is_streamed:
            path = path_of(request.url_rule.rule)
            is_ours = path.startswith("/v1/") or path in document()["paths"]
            if is_ours and request.method != "OPTIONS":
                found.extend(
                    faults("GET" if request.method == "HEAD" else request.method, described_path(path), response)
                )
        return response

    return found


def described_path(path: str) -> str:
    """The document's own writing of a path: an action that is one of several is a path each."""
    if path.endswith("/{action}"):
        return path.removesuffix("{action}") + str((request.view_args or {}).get("action"))
    return path
