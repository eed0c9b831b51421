"""A database that crashes: what it did not keep was not done, and whoever goes on does so on what it kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from sqlalchemy import Engine, text

from axme_celery import Axme, step
from axme_celery.ledger import migrate
from axme_celery.model import Status
from axme_celery.testing import Stage
from tests.servers import PrivatePostgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[PrivatePostgres]:
    """A PostgreSQL to crash. What did not wait for the disk gets there within milliseconds all the same."""
    with PrivatePostgres({"wal_writer_delay": "10ms"}, fsync=False) as server:
        yield server


@pytest.fixture
def axme() -> Axme:
    return Axme(Celery("crash", broker="memory://", backend="cache+memory://", set_as_current=False))


@pytest.fixture
def stage(axme: Axme, postgres: PrivatePostgres) -> Iterator[Stage]:
    url = postgres.create_database()
    migrate.upgrade(url)
    with Stage(axme.app, ledger_url=url) as stage:
        with stage.engine.begin() as connection:
            connection.execute(text("CREATE TABLE orders (item text)"))
        yield stage


def orders(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return [row.item for row in connection.execute(text("SELECT item FROM orders"))]


def crash(postgres: PrivatePostgres) -> None:
    """Once all that was committed is on the disk."""
    time.sleep(0.2)
    postgres.crash()


def once(do: Callable[[], None]) -> Callable[[], None]:
    """A function that does so when it is first called, and nothing afterwards."""
    left = [do]

    def act() -> None:
        while left:
            left.pop()()

    return act


@pytest.mark.parametrize("connected", [True, False], ids=["a connection is open", "none is open"])
def test_a_transaction_step_that_finds_the_database_gone_is_run_again(stage, axme, postgres, connected):
    """The leg does not fail with the database's error: nothing was done, so it is done by the next run."""
    runs = []

    @step(transaction=True)
    def order(connection):
        connection.execute(text("INSERT INTO orders VALUES ('tea')"))
        return "ordered"

    @axme.task
    def work():
        runs.append(len(runs) + 1)
        if len(runs) > 1:
            return order()
        if not connected:
            stage.engine.dispose()
        crash(postgres)
        try:
            return order()
        finally:
            postgres.start()

    intent = stage.submit(work.s())
    stage.pass_time("1m")

    assert intent.refresh().status is Status.COMPLETED
    assert intent.result == "ordered"
    assert runs == [1, 2]
    assert orders(stage.engine) == ["tea"]


def test_a_transaction_step_in_whose_middle_the_database_goes_is_run_again(stage, axme, postgres):
    """What its SQL had done is undone by the database, and done once by the next run."""
    crash_once = once(lambda: (crash(postgres), postgres.start()))

    @step(transaction=True)
    def order(connection):
        connection.execute(text("INSERT INTO orders VALUES ('tea')"))
        crash_once()
        connection.execute(text("INSERT INTO orders VALUES ('milk')"))

    @axme.task
    def work():
        order()

    intent = stage.submit(work.s())
    stage.pass_time("1m")

    assert intent.refresh().status is Status.COMPLETED
    assert orders(stage.engine) == ["tea", "milk"]


def test_a_transaction_step_whose_record_cannot_be_written_any_more_is_run_again(stage, axme, postgres):
    """The database goes after the step's last statement, before the step is recorded."""
    crash_once = once(lambda: (crash(postgres), postgres.start()))

    @step(transaction=True)
    def order(connection):
        connection.execute(text("INSERT INTO orders VALUES ('tea')"))
        crash_once()

    @axme.task
    def work():
        order()

    intent = stage.submit(work.s())
    stage.pass_time("1m")

    assert intent.refresh().status is Status.COMPLETED
    assert orders(stage.engine) == ["tea"]
