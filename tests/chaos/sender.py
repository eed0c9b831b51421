"""A process that sends webhooks until it is killed: ``python -m tests.chaos.sender LEDGER``.

It does what any process of ours does about them: fans out what commits have ordered, and delivers what is due. Legs
are not its affair; they are dropped.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from celery import Celery

from axme_celery import Axme
from axme_celery.errors import AxmeError
from axme_celery.model import DeliveryKind
from axme_celery.sweep import due_webhooks, undelivered


def project(ledger: str, *, schedule: list[float], deadline_seconds: float = 0.5) -> Axme:
    """An app on this ledger that may call this machine."""
    app = Celery("chaos-webhooks", broker="memory://", set_as_current=False)
    app.conf.update(
        axme_ledger_url=ledger, axme_redis_url=None, axme_webhook_allow_cidrs=["127.0.0.0/8"],
        axme_webhook_retry_seconds=schedule, axme_webhook_deadline_seconds=deadline_seconds,
        axme_webhook_concurrency=32, axme_tick_seconds=0.1,
    )  # fmt: skip
    return Axme(app)


def main(ledger: str) -> None:
    """Send for ever."""
    axme = project(ledger, schedule=[0.2] * 60)
    rt = axme.runtime
    senders: dict[DeliveryKind, Any] = {kind: lambda delivery: None for kind in DeliveryKind}
    while True:
        try:
            undelivered(rt, senders)
            due_webhooks(rt)
        except AxmeError as away:
            print(away, flush=True)
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
