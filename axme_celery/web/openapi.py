"""``/openapi.json``: the HTTP interface described, for people and for tools. Kept by hand; the tests hold it true."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from flask import Blueprint, Response, request

from .house import need
from .v1 import problems

blueprint = Blueprint("openapi", __name__)
problems.install(blueprint)


@functools.cache
def document() -> dict[str, Any]:
    """The description as it is in the package."""
    text = resources.files("axme_celery.web").joinpath("openapi.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The description, with the path this application is mounted at."""
    need()
    here = {**document(), "servers": [{"url": request.script_root or "/"}]}
    return Response(json.dumps(here, ensure_ascii=False), 200, mimetype="application/json")
