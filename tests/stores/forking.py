"""A program that uses a ledger, forks, and goes on using it in all five processes; for ``test_ledger_fork``.

``python -m tests.stores.forking URL`` prints "whole" and exits with 0 when nobody got another's answer.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading

from sqlalchemy import text

from axme_celery.ledger import SqlLedger
from axme_celery.model import LegRecord

from .ledgers import assert_whole, claim, completed, new_intent, recorded, running, step_done, submitted

CHILDREN = 4
ROUNDS = 40


def use(ledger: SqlLedger, mine: LegRecord, name: str) -> None:
    """Read what is mine, over and over, and write things of my own."""
    for n in range(ROUNDS):
        found = ledger.intent(mine.intent.id)
        assert found is not None
        assert found.id == mine.intent.id, f"{name} asked for {mine.intent.id} and was given {found.id}"
        assert [one.intent_id for one in ledger.events(mine.intent.id)] == [mine.intent.id] * found.seq
        ledger.commit(step_done(mine.leg.id, name, nth=n + 1, value=f'"{name} {n}"'))
        kept = ledger.checkpoint(mine.leg.id, name, n + 1)
        assert kept is not None
        assert kept.value == f'"{name} {n}"', f"{name} was given {kept.value}"
        if n % 10 == 0:
            change = new_intent(ledger)
            ledger.commit(change)
            leg_id = change.legs[0][1].id
            ledger.commit(claim(ledger, leg_id))
            ledger.commit(completed(ledger, leg_id))
            gc.collect()


def sessions(ledger: SqlLedger) -> set[int]:
    """PostgreSQL's processes that serve this one."""
    if ledger.engines.is_sqlite:
        return set()
    ours = text("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
    with ledger.engines.durable.connect() as connection:
        return set(connection.scalars(ours))


def main(url: str) -> None:
    signal.alarm(90)
    ledger = SqlLedger(url)
    records = [running(ledger) for _ in range(CHILDREN + 2)]
    before = sessions(ledger)
    stop, failures = threading.Event(), list[BaseException]()

    def keep_busy() -> None:
        # The parent is in the middle of something whenever it forks.
        try:
            while not stop.is_set():
                submitted(ledger)
        except BaseException as error:
            failures.append(error)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    children = []
    for n in range(CHILDREN):
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            use(ledger, records[n], f"child {n}")
            # As any process ends: everything is collected and finalised, what was inherited too.
            sys.exit(0)
        children.append(pid)
    use(ledger, records[CHILDREN], "parent")
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    stop.set()
    busy.join()
    assert codes == [0] * CHILDREN, codes
    assert not failures, failures
    use(ledger, records[CHILDREN + 1], "parent afterwards")
    assert before <= sessions(ledger), "the parent's connection was closed by a child"
    for record in records:
        assert_whole(ledger, recorded(ledger, record.leg.id).intent.id)
    ledger.close()
    print("whole")


if __name__ == "__main__":
    main(sys.argv[1])
