"""Webhooks under trouble: a receiver that misbehaves, and senders that are killed again and again.

The promises: every event committed while a subscription was there reaches it at least once; it has one id and one body
at every try; every call verifies with the library receivers use; the ledger says DELIVERED exactly of what was received.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from axme_celery import lifecycle, subscriptions
from axme_celery.ids import uuid7
from axme_celery.model import Change, Intent, Leg, Status
from tests.servers import PrivatePostgres, janitor

from .receiver import Manners, Receiver
from .sender import project

#: As long as it may take for what is left after the last kill.
PATIENCE_SECONDS = 900.0


@dataclass
class WebhookFigures:
    """What happened, and what was wrong."""

    events: int = 0
    calls: int = 0
    kills: int = 0
    repeats: int = 0
    redelivered: int = 0
    seconds: float = 0.0
    answers: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """No promise was broken, and there was trouble enough to break one."""
        return not self.findings

    def __str__(self) -> str:
        answers = ", ".join(f"{what} {count:,}" for what, count in sorted(self.answers.items()))
        return "\n".join([
            f"webhooks: {self.events:,} events, {self.calls:,} calls ({answers}) in {self.seconds:.0f} s",
            f"  senders killed {self.kills} times; {self.repeats:,} received again; {self.redelivered:,} sent again after 410",
            *(f"  BROKEN: {each}" for each in self.findings[:20]),
        ])  # fmt: skip


def run_webhooks(
    seed: int, *, events: int = 5000, kills: int = 100, senders: int = 2, ledger: str = "postgres",
    manners: Manners | None = None,
) -> WebhookFigures:  # fmt: skip
    """Commit so many events, kill the senders so many times, and hold what arrived to the promises."""
    with tempfile.TemporaryDirectory(prefix="axme-chaos-webhooks-") as folder:
        if ledger == "sqlite":
            return _run(f"sqlite:///{folder}/ledger.db", seed, events, kills, senders, manners, Path(folder))
        with PrivatePostgres() as postgres:
            from axme_celery.ledger.migrate import upgrade

            url = postgres.create_database()
            upgrade(url)
            return _run(url, seed, events, kills, senders, manners, Path(folder))


def _run(
    url: str, seed: int, events: int, kills: int, senders: int, manners: Manners | None, folder: Path
) -> WebhookFigures:
    lot, began, figures = random.Random(seed), time.monotonic(), WebhookFigures()
    axme = project(url, schedule=[0.2] * 60)
    rt, receiver = axme.runtime, Receiver(manners or Manners(), seed)
    running: list[subprocess.Popen[bytes]] = []
    with receiver.running() as base:
        # Two that are told everything, one of them in brief.
        made = {path: subscriptions.subscribe(rt, base + path, thin=path == "/thin") for path in ("/full", "/thin")}
        receiver.secrets |= {path: sub.secret for path, sub in made.items()}
        try:
            running += [_start(url, folder, n) for n in range(senders)]
            told: dict[str, int] = {}
            # As many are told before each kill as leaves some for the last.
            share = -(-events // (kills + 1))
            for kill in range(kills + 1):
                while len(told) < min(events, share * (kill + 1)):
                    for change in _intents(rt, min(25, (events - len(told) + 1) // 2)):
                        (written,) = rt.ledger.commit(change)
                        told |= {f"{event.intent_id}:{event.seq}": event.seq for event in written.events}
                if kill == kills:
                    break
                _at_work(receiver, lot.randrange(10, 40))
                _kill(running, lot.randrange(len(running)), url, folder)
                figures.kills += 1
                _enable(rt, figures)
            until = time.monotonic() + PATIENCE_SECONDS
            while _left(rt, receiver, len(told)) and time.monotonic() < until:
                _enable(rt, figures)
                time.sleep(0.2)
        finally:
            for process in running:
                process.kill()
                process.wait()
                janitor.release(process.pid)
    figures.events, figures.seconds, figures.answers = len(told), time.monotonic() - began, dict(receiver.answers)
    figures.calls = receiver.answers.total()
    _check(rt, receiver, set(told), figures, {path: sub.id for path, sub in made.items()})
    rt.ledger.close()
    return figures


def _at_work(receiver: Receiver, calls: int) -> None:
    """Wait until so many more calls came: a sender that has not begun has nothing to lose."""
    enough, until = receiver.answers.total() + calls, time.monotonic() + 10
    while receiver.answers.total() < enough and time.monotonic() < until:
        time.sleep(0.002)


def _intents(rt: Any, count: int) -> list[Change]:
    """New intents, two events each."""
    on = lifecycle.Occasion(now=rt.ledger.now(), new_id=uuid7, requeue=timedelta(hours=1))
    changes = []
    for _ in range(count):
        intent = Intent(id=uuid7(), type="chaos.told", status=Status.CREATED, created_at=on.now, updated_at=on.now)
        leg = Leg(id=uuid7(), intent_id=intent.id, task="chaos.told", signature={}, created_at=on.now)
        changes.append(lifecycle.submit(intent, leg, start_at=None, on=on))
    return changes


def _start(url: str, folder: Path, number: int) -> subprocess.Popen[bytes]:
    with (folder / f"sender-{number}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.sender", url], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    janitor.promise_server(process.pid, signal.SIGKILL, folder / "nothing")
    return process


def _kill(running: list[subprocess.Popen[bytes]], which: int, url: str, folder: Path) -> None:
    """SIGKILL in the middle of whatever it does; another takes its place."""
    os.kill(running[which].pid, signal.SIGKILL)
    running[which].wait()
    janitor.release(running[which].pid)
    running[which] = _start(url, folder, which)


def _enable(rt: Any, figures: WebhookFigures) -> None:
    """What an operator does about one that said it was gone: enable it, and send what was missed."""
    for subscription in rt.ledger.hooks.live():
        if subscription.disabled_at is not None:
            subscriptions.enable(rt, subscription.id)
            figures.redelivered += subscriptions.redeliver_range(rt, subscription_id=subscription.id, by="operator")


def _left(rt: Any, receiver: Receiver, events: int) -> bool:
    counts = rt.ledger.hooks.counts()
    return counts.get("PENDING", 0) + counts.get("DEAD", 0) > 0 or counts.get("DELIVERED", 0) < events * 2


def _check(rt: Any, receiver: Receiver, told: set[str], figures: WebhookFigures, of_path: dict[str, str]) -> None:
    say = figures.findings.append
    for path, subscription_id in of_path.items():
        delivered: Counter[str] = Counter()
        named: dict[str, str] = {}
        for parcel in subscriptions.deliveries(rt, subscription_id=subscription_id):
            if parcel.event.type.startswith("intent."):
                named[parcel.event.id] = f"{parcel.event.intent_id}:{parcel.event.seq}"
                delivered[parcel.delivery.status.value] += 1
        received = {named.get(each, each) for each in receiver.received.get(path, set())}
        missing = told - received
        if missing:
            say(f"{path}: {len(missing)} events were never received, as {sorted(missing)[:3]}")
        if received - told:
            say(f"{path}: {len(received - told)} were received that were never told")
        changed = [each for each, bodies in receiver.bodies.get(path, {}).items() if len(bodies) > 1]
        if changed:
            say(f"{path}: {len(changed)} ids came with different bodies, as {changed[:3]}")
        if delivered != {"DELIVERED": len(told)}:
            say(f"{path}: the ledger says {dict(delivered)} of {len(told)}")
    if receiver.unsigned:
        say(f"{len(receiver.unsigned)} calls did not verify, as {receiver.unsigned[:3]}")
    taken = receiver.answers["takes"]
    figures.repeats = taken - sum(len(each) for each in receiver.received.values())
    if figures.kills >= 50 and figures.repeats == 0:
        say("no kill ever hit a delivery on its way: nothing was shown")
    for what in ("fails", "hangs", "busy"):
        if receiver.answers[what] == 0:
            say(f"the receiver never {what}: nothing was shown")
