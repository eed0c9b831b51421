"""A database that crashes: what it did not keep was not done, and whoever goes on does so on what it kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from sqlalchemy import Engine, text

from axme_celery import Axme, step, wait_for_time
from axme_celery.ledger import migrate
from axme_celery.leg import claim, required
from axme_celery.model import LegStatus, Status
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


# -- a claim that the database did not keep ------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def any_stage(axme: Axme, postgres: PrivatePostgres, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A stage on either database."""
    url = "sqlite://"
    if request.param == "postgres":
        url = postgres.create_database()
        migrate.upgrade(url)
    with Stage(axme.app, ledger_url=url) as stage:
        with stage.engine.begin() as connection:
            connection.execute(text("CREATE TABLE orders (item text)"))
        yield stage


def claimed_anew(stage: Stage, leg_id: str) -> None:
    """The database forgot the claim of the first run in a crash (a claim does not wait for the disk), and another
    worker has claimed that same run since."""
    with stage.engine.begin() as connection:
        connection.execute(text("UPDATE axme_legs SET status = 'QUEUED', attempts = 0, token = ''"))
    claim(stage.axme.runtime, leg_id, 1)


def test_of_two_workers_with_one_run_only_the_later_may_record_a_step(any_stage, axme):
    """The database forgot the claim of the first: it is a zombie, though its run has the right number."""
    went_on = []

    @step
    def first():
        claimed_anew(any_stage, required("a test").leg.id)
        return 1

    @axme.task
    def work():
        went_on.append(first())

    intent = any_stage.submit(work.s())

    assert went_on == []
    assert intent.steps() == []


def test_of_two_workers_with_one_run_only_the_later_may_commit_a_transaction_step(any_stage, axme):
    """The zombie's own SQL is rolled back with its record."""
    orders_step = step(transaction=True, name="order")

    def order(connection):
        connection.execute(text("INSERT INTO orders VALUES ('tea')"))

    @axme.task
    def work():
        claimed_anew(any_stage, required("a test").leg.id)
        orders_step(order)()

    intent = any_stage.submit(work.s())

    assert intent.steps() == []
    assert orders(any_stage.engine) == []


@pytest.mark.parametrize("how", ["end", "fail", "wait"])
def test_of_two_workers_with_one_run_only_the_later_may_end_it(any_stage, axme, how):
    """Neither result, failure nor wait of the zombie is taken."""

    @axme.task
    def work():
        claimed_anew(any_stage, required("a test").leg.id)
        if how == "fail":
            raise ValueError("the zombie's")
        if how == "wait":
            wait_for_time("1h")
        return "the zombie's"

    intent = any_stage.submit(work.s())

    assert intent.status is Status.IN_PROGRESS
    # Still the other worker's, or queued again once that one, which the test does not run on, fell silent.
    assert [leg.status for leg in intent.legs()] in ([LegStatus.RUNNING], [LegStatus.QUEUED])
    assert intent.waits() == []


def test_an_at_most_once_step_is_not_started_by_a_worker_whose_claim_was_forgotten(any_stage, axme):
    """Its mark is refused before it begins."""
    started = []

    @step(at_most_once=True)
    def charge():
        started.append(True)

    @axme.task
    def work():
        claimed_anew(any_stage, required("a test").leg.id)
        charge()

    intent = any_stage.submit(work.s())

    assert started == []
    assert intent.steps() == []
