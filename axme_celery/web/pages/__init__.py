"""The pages people see: rendered here, whole without JavaScript."""

from __future__ import annotations

from flask import Blueprint

blueprint = Blueprint("pages", __name__)

# Each puts its views on the blueprint.
from . import approvals, bulk, deliveries, history, inbox, intents, letters, overview, sign_in, webhooks  # noqa: E402, F401
