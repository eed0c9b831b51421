"""What waits in the outbox: messages, notices and answers that must leave the house, and how their tries went."""

from __future__ import annotations

from typing import Any

from ...model import DeliveryKind
from ..house import house, need
from . import blueprint
from .paging import LINES, cut, filters, place
from .shown import page, part_wanted


@blueprint.get("/deliveries")
def deliveries() -> Any:
    """The next to leave first. What ran out of tries is among the dead letters."""
    actor = need()
    ledger = house().rt.ledger
    given = filters("kind", "only")
    asked = {
        "kind": given["kind"] if given["kind"] in list(DeliveryKind) else "",
        "failing": given["only"] == "failing",
        "due_at": ledger.now() if given["only"] == "due" else None,
    }
    lines, older, first = cut(
        ledger.views.find_deliveries(asked, actor.owner, place(), LINES + 1), lambda each: (each.next_at, each.id)
    )  # fmt: skip
    return page(
        "_deliveries_live.html" if part_wanted() else "deliveries.html",
        tab="deliveries",
        lines=lines,
        older=older,
        first=first,
        given=given,
        kinds=list(DeliveryKind),
    )
