"""``/v1``: AXP over HTTP. Programs in any language submit intents, follow and answer them; agents take and finish them.

One blueprint. Every module here puts its views on it; what holds for all of them (who asks, limits, ids, the one shape
of errors, writes that may be repeated) is in ``requests``, ``rights``, ``rates``, ``problems`` and ``repeats``.

Source: the AXP schemas as published clients speak them.
"""

from __future__ import annotations

from flask import Blueprint

blueprint = Blueprint("v1", __name__)

from . import problems, rates, requests  # noqa: E402

requests.install(blueprint)
rates.install(blueprint)
problems.install(blueprint)

from . import agents, inbox, intents, registry, resume, scenarios, streams, tasks, tools, webhooks  # noqa: E402, F401
