"""The keeper renews its worker's leases in time, whatever else it has to do."""

from __future__ import annotations

import time

from celery import Celery

from axme_celery import Axme


def test_leases_are_renewed_however_many_jobs_wait(tmp_path):
    """Twenty children died while the ledger was slow: their legs take seconds to queue again, the leases do not lapse."""
    app = Celery("keeper", broker="memory://", set_as_current=False)
    axme = Axme(app, ledger_url=f"sqlite:///{tmp_path}/ledger.db", redis_url=None, lease_seconds=0.6, tick_seconds=0.5)
    assert axme.runtime.ledger.id
    done, ages = [], []
    axme.keeper.start()
    while axme.worker.lease_age_seconds() == 0:
        time.sleep(0.01)
    for number in range(20):
        axme.keeper._jobs.put(lambda number=number: (time.sleep(0.1), done.append(number)))
    while len(done) < 20:
        time.sleep(0.02)
        ages.append(axme.worker.lease_age_seconds())
    axme.keeper.stop()
    axme.close()

    assert done == list(range(20))
    assert max(ages) < 0.6
