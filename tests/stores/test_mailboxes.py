"""Mailboxes and answered requests on both databases: numbers in order, one taker, one answer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from axme_celery import agents as verbs
from axme_celery.ledger.migrate import upgrade
from axme_celery.model import Delivery, DeliveryKind
from axme_celery.testing import Stage

BOT = "agent://acme/ops/bot"


@pytest.fixture(params=["postgresql", "sqlite"])
def stage(request: pytest.FixtureRequest, app, tmp_path: Path) -> Iterator[Stage]:
    """A stage on a database several threads can use."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else f"sqlite:///{tmp_path}/axme.db"
    upgrade(url)
    with Stage(app, ledger_url=url) as stage:
        yield stage


def test_each_offer_is_taken_by_one_of_many_listeners(stage, axme):
    """Every one of them, in the order of its numbers, whoever is fastest."""
    rt = axme.runtime
    for n in range(20):
        axme.submit(BOT, payload={"n": n})
    stage.run()
    verbs.listening(rt, BOT, None)

    def listen(who):
        since, seen = 0, []
        for _ in range(8):
            handed, since = verbs.take(rt, BOT, since=since, by=f"listener {who}", limit=5)
            seen += [one.offer.seq for one in handed]
        return seen

    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(listen, range(4)))

    assert sorted(seq for one in seen for seq in one) == list(range(1, 21))
    assert all(one == sorted(one) for one in seen)


def test_an_offer_made_twice_lies_there_once(stage, axme):
    """The relay and the sweep may both have sent it."""
    rt = axme.runtime
    axme.submit(BOT, payload={})
    legs = rt.ledger.legs(next(axme.intents()).id)
    stage.run()
    again = Delivery(
        id=rt.new_id(), kind=DeliveryKind.LEG, intent_id=legs[0].intent_id, leg_id=legs[0].id, run=1, next_at=stage.now,
        leg=legs[0],
    )  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: verbs.offer(rt, again), range(8))) == [True] * 8

    assert len(rt.ledger.mailboxes.open_offers(BOT, 0, 10)) == 1
    assert rt.ledger.mailboxes.cursor(BOT) == 1


def test_of_many_equal_requests_one_is_answered(stage, axme):
    """The others are told that it is under way."""
    exchange, now = axme.runtime.ledger.exchange, stage.now

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: exchange.begin("r" * 64, "h", now, now.replace(year=now.year + 1)), range(8)))

    assert sum(one is None for one in found) == 1
    assert all(one.status is None for one in found if one is not None)


def test_a_pruned_intent_leaves_nothing_in_a_mailbox(stage, axme):
    """Nor its messages."""
    intent = stage.submit(BOT, payload={})
    intent.cancel("no")
    stage.run()
    rt = axme.runtime
    rt.ledger.prune([intent.id])
    with stage.engine.connect() as connection:
        left = connection.exec_driver_sql("SELECT count(*) FROM axme_offers").scalar()
    assert left == 0
