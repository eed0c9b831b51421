"""Where one arrives."""

from __future__ import annotations

from flask import redirect, url_for
from werkzeug import Response

from ..house import need
from . import blueprint


@blueprint.get("/")
def home() -> Response:
    """People come to see what they are asked."""
    need()
    return redirect(url_for("axme.pages.sign_in"))
