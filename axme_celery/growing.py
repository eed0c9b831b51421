"""A group that grows: a running member adds another, which is waited for like the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .beats import carry_out, occasion
from .errors import LeaseLost, LedgerUnavailable, StaleChange
from .graph import ADDED
from .leg import RunningLeg, lost
from .model import Change, Checkpoint, JsonDict, Lease
from .substitute import beside


def add_member(running: RunningLeg, canvas: JsonDict) -> str:
    """Add work to the group this leg is a member of; the id of what ends it, the same in every run of this leg.

    Its result comes after those of all members there are. Raises BadInput for a leg that is no member, and for a
    canvas that cannot be carried.
    """
    key, position = running.ask(ADDED)
    entry = running.journal.get(key)
    if isinstance(entry, Checkpoint):
        return str(running.rt.codec.decode(entry.value))
    running.before_new(key)
    rt, leg = running.rt, running.leg
    work = rt.read_work(canvas)
    added: list[str] = []

    def decide() -> Sequence[Change]:
        if not rt.ledger.running([Lease(leg.id, leg.run)], 1):
            raise running.leaves(lost(leg))
        record = rt.ledger.join_record(leg.join_id or "")
        size = 0 if record is None else record.join.size
        intent = running.intent if record is None else record.intent
        (change, *begun), ends_with = beside(rt, intent, leg, work, size, occasion(rt))
        added[:] = [ends_with]
        checkpoint = Checkpoint(
            leg_id=leg.id, name=key[0], nth=key[1], position=position, run=leg.run,
            value=rt.codec.encode(ends_with, what=ADDED, limit_bytes=1000, setting="axme_result_bytes"),
        )  # fmt: skip
        return [replace(change, fence=running.fence, checkpoints=(checkpoint,)), *begun]

    try:
        carry_out(rt, decide)
    except StaleChange:
        raise running.leaves(lost(leg)) from None
    except LedgerUnavailable as away:
        raise running.leaves(LeaseLost(f"{ADDED} could not be recorded: {away}")) from away
    return added[0]
