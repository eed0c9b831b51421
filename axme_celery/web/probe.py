"""``/health``: for load balancers. Whether this process can do its work, and nothing about whose work it is."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from ..errors import AxmeError
from .house import house

blueprint = Blueprint("probe", __name__)


@blueprint.get("/health")
def health() -> tuple[Response, int]:
    """200 while the ledger answers, else 503. The tracker may be away: that costs lateness only."""
    rt = house().rt
    ledger = tracker = "ok"
    try:
        rt.ledger.now(fresh=True)
        rt.ledger.key("")
    except AxmeError:
        ledger = "unavailable"
    try:
        rt.tracker.ping()
    except AxmeError:
        tracker = "unavailable"
    status = "ok" if ledger == "ok" else "unavailable"
    found = {"ok": status == "ok", "status": status, "ledger": ledger, "tracker": tracker}
    return jsonify(found), 200 if status == "ok" else 503
