"""A leg's message that comes while the ledger cannot be asked: Celery hears of no failure, and the message comes again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from axme_celery import Axme, LedgerUnavailable
from axme_celery.model import LegStatus
from axme_celery.signals import install
from tests.hands import work_on


def one() -> int:
    return 1


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    app = Celery("away", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(axme_ledger_url=f"sqlite:///{tmp_path}/axme.db", task_default_queue=tmp_path.name)
    axme = Axme(app)
    axme.task(name="away.one")(one)
    install(axme)
    yield app
    axme.drain()
    axme.close()


@pytest.fixture
def next_message(app: Celery) -> Callable[[], Any]:
    """Takes the next message off the queue."""

    def take() -> Any:
        app.axme.drain()
        with app.connection_for_read() as connection:
            return connection.default_channel.basic_get(app.conf.task_default_queue, no_ack=True)

    return take


def away(*_: Any, **__: Any) -> Any:
    raise LedgerUnavailable("the database is not there")


def test_a_message_that_finds_the_ledger_away_comes_again_and_nobody_hears_of_a_failure(
    app: Celery, next_message: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
):
    """FAILURE would fail the rest of a chain, although the leg only has not begun."""
    result = app.tasks["away.one"].delay()
    first = next_message()
    with monkeypatch.context() as patched:
        patched.setattr(app.axme.runtime.ledger, "leg_record", away)
        work_on(app, first)

    again = next_message()

    assert result.state == "PENDING"
    assert again.headers["axme"] == first.headers["axme"] and again.headers["id"] == first.headers["id"]
    assert again.headers["eta"] is not None, "it comes after a while, not in a tight circle"
    work_on(app, again)
    assert (result.state, result.result) == ("SUCCESS", 1)


def test_the_repeat_of_an_ended_leg_tells_celery_of_no_failure_either(
    app: Celery, next_message: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
):
    """The leg is DONE; the repeat was to store its result, and is what must come again."""
    result = app.tasks["away.one"].delay()
    message = next_message()
    work_on(app, message)
    message.headers["axme"] = {**message.headers["axme"], "finish": True}
    result.forget()
    with monkeypatch.context() as patched:
        patched.setattr(app.axme.runtime.ledger, "leg_record", away)
        work_on(app, message)

    again = next_message()

    assert result.state == "PENDING" and again.headers["axme"]["finish"]
    work_on(app, again)
    assert (result.state, result.result) == ("SUCCESS", 1)


def test_a_task_sent_by_name_while_the_ledger_is_away_is_not_lost(
    app: Celery, next_message: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
):
    """Its sender knows nothing of us: no ledger holds this work yet, only the message."""
    app.send_task("away.one", task_id="by-name")
    with monkeypatch.context() as patched:
        patched.setattr(app.axme.runtime.ledger, "leg_record", away)
        work_on(app, next_message())

    again = next_message()

    assert app.AsyncResult("by-name").state == "PENDING"
    work_on(app, again)
    assert app.AsyncResult("by-name").result == 1
    assert app.axme.runtime.ledger.leg_record("by-name").leg.status is LegStatus.DONE


@pytest.mark.parametrize(("acks_late", "told"), [(False, "acknowledged"), (True, "requeued")])
@pytest.mark.parametrize("by_name", [False, True])
def test_without_broker_and_ledger_a_message_stays_with_the_broker_or_is_left_to_the_sweep(
    app: Celery,
    next_message: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    acks_late: bool,
    told: str,
    by_name: bool,
):
    """Nobody is told of a failure. One that was acknowledged is in the ledger, or nowhere: then that is said."""
    app.tasks["away.one"].acks_late = acks_late
    result = app.send_task("away.one") if by_name else app.tasks["away.one"].delay()
    message = next_message()
    monkeypatch.setattr(app.axme.runtime.ledger, "leg_record", away)
    monkeypatch.setattr("celery.app.task.Task.apply_async", lambda *_, **__: 1 / 0)

    assert work_on(app, message) == told

    assert result.state == "PENDING"
    said = "stays with the broker" if acks_late else "lost" if by_name else "the sweep sends it once it is overdue"
    assert said in caplog.text and result.id in caplog.text
