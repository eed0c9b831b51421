"""The hot path: one checkpoint in one round trip and one commit."""

from __future__ import annotations

import functools

from sqlalchemy import bindparam, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite

from ..model import Checkpoint
from . import tables
from .driver import Driver, Prepared
from .rows import to_row

_NAMES = ("leg_id", "name", "nth", "position", "run", "recorded", "value", "at")


def record(driver: Driver, checkpoint: Checkpoint, is_sqlite: bool) -> bool:
    """True when inserted; False when this run is no longer the running one, or the key is taken."""
    return driver.run(_guarded_insert(is_sqlite), [to_row(checkpoint)]) == 1


@functools.cache
def _guarded_insert(is_sqlite: bool) -> Prepared:
    """Insert a checkpoint where its run still is the running one."""
    legs, table = tables.legs, tables.checkpoints
    values = [bindparam(name, type_=table.c[name].type) for name in _NAMES]
    guard = select(*values).where(
        legs.c.id == bindparam("leg_id"),
        legs.c.run == bindparam("run"),
        legs.c.status == literal_column("'RUNNING'"),
    )
    if is_sqlite:
        return Prepared(sqlite.insert(table).from_select(_NAMES, guard).on_conflict_do_nothing(), is_sqlite)
    # FOR UPDATE, because a plain read would pass while the next claim is written but not yet committed.
    guard = guard.with_for_update()
    return Prepared(postgresql.insert(table).from_select(_NAMES, guard).on_conflict_do_nothing(), is_sqlite)
