"""The pages people see: rendered here, whole without JavaScript."""

from __future__ import annotations

from flask import Blueprint

blueprint = Blueprint("pages", __name__)

from . import home, sign_in  # noqa: E402, F401  # which put their views on the blueprint
