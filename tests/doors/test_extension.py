"""``Axme(app)``: what it refuses, what it does at once, and the caller's own transaction."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa
from celery import Celery

from axme_celery import Axme, BadInput, KeyConflict
from axme_celery.model import Status
from tests.e2e.harness import until

pytestmark = pytest.mark.xdist_group("extension")


def an_app(name: str = "shop") -> Celery:
    return Celery(name, broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/0", set_as_current=False)


# -- attaching ---------------------------------------------------------------------


def test_two_axmes_on_one_app_are_refused():
    """Naming the app, and the one that is there."""
    app = an_app()
    first = Axme(app)

    with pytest.raises(BadInput, match=r"app 'shop' has an Axme already; use app\.axme"):
        Axme(app)
    assert app.axme is first


def test_one_axme_on_two_apps_is_refused():
    """Each app has a ledger of its own, so each has an Axme of its own."""
    axme = Axme(an_app("shop"))

    with pytest.raises(BadInput, match="belongs to app 'shop' already"):
        axme.init_app(an_app("bank"))


def test_attaching_twice_is_attaching_once():
    """``init_app`` may be called by every process that imports the project."""
    app, axme = an_app(), Axme()

    axme.init_app(app)
    axme.init_app(app)

    assert app.axme is axme


def test_making_it_connects_to_nothing_and_starts_nothing(tmp_path):
    """No file, no thread, no name looked up: an import must not fail because a database is away."""
    threads = set(threading.enumerate())
    app = an_app()
    app.conf.axme_ledger_url = f"sqlite:///{tmp_path}/ledger.db"

    axme = Axme(app)

    @axme.task(name="shop.sell", shared=False)
    def sell(number: int) -> int:
        return number

    assert set(threading.enumerate()) == threads
    assert list(tmp_path.iterdir()) == []


def test_each_app_of_a_process_sweeps_its_own_ledger(tmp_path):
    """Celery gives an app's tasks to all apps unless told otherwise; the sweep must not be given."""
    shop, bank = an_app("shop"), an_app("bank")
    for app in (shop, bank):
        Axme(app, ledger_url=f"sqlite:///{tmp_path}/{app.main}.db", redis_url=None)
        app.finalize()

    shop.tasks["axme.sweep"]("shop's beat")
    bank.tasks["axme.sweep"]("bank's beat")

    assert set(shop.axme.runtime.tracker.ticks()) == {"shop's beat"}
    assert set(bank.axme.runtime.tracker.ticks()) == {"bank's beat"}


# -- the caller's own transaction -----------------------------------------------------


@pytest.fixture(scope="module")
def on_postgres():
    """A stage on PostgreSQL with a worker, and no sweep at all: what starts, starts by itself."""
    from tests.e2e.conftest import opened

    with opened(ledger="postgres", axme_tick_seconds=30.0, axme_lease_seconds=60.0) as stage:
        stage.worker(pool="solo")
        yield stage


@pytest.fixture
def engine(on_postgres):
    """The caller's own engine, to the ledger's database."""
    engine = sa.create_engine(on_postgres.config["axme_ledger_url"])
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE IF NOT EXISTS orders (number int PRIMARY KEY)"))
        connection.execute(sa.text("DELETE FROM orders"))
    yield engine
    engine.dispose()


def test_an_intent_of_a_transaction_starts_promptly_when_that_commits(on_postgres, engine):
    """Order and intent are one fact; no sweep is needed to set it going."""
    stage = on_postgres
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO orders VALUES (1)"))
        intent = stage.axme.submit(stage.project.pages.s("order-1", 1), connection=connection)

    assert intent.wait(5) == [1]


def test_an_intent_of_a_long_transaction_starts_promptly_too(on_postgres, engine):
    """The caller took a while between ``submit`` and its commit."""
    stage = on_postgres
    committed = threading.Event()
    with engine.begin() as connection:
        intent = stage.axme.submit(stage.project.pages.s("slow-order", 1), connection=connection)
        committed.wait(0.7)

    assert intent.wait(5) == [1]


def test_an_intent_of_a_transaction_never_was_when_that_rolls_back(on_postgres, engine):
    """Nothing is stored, nothing runs."""
    stage = on_postgres
    connection = engine.connect()
    transaction = connection.begin()
    connection.execute(sa.text("INSERT INTO orders VALUES (2)"))
    intent = stage.axme.submit(stage.project.pages.s("order-2", 1), connection=connection, key="order-2")
    transaction.rollback()
    connection.close()

    again = stage.axme.submit(stage.project.pages.s("order-2-again", 1), key="order-2")

    assert again.wait(5) == [1]
    assert stage.axme.runtime.ledger.intent(intent.id) is None
    assert stage.effects(name="order-2") == []


def test_nobody_sees_an_intent_before_its_transaction_commits(on_postgres, engine):
    """Its leg's message is not published ahead of the commit."""
    stage = on_postgres
    with engine.begin() as connection:
        intent = stage.axme.submit(stage.project.pages.s("unseen", 1), connection=connection)
        stage.project.plain.delay(1).get(timeout=10)
        assert stage.axme.runtime.ledger.intent(intent.id) is None
        assert stage.effects(name="unseen") == []

    assert intent.wait(5) == [1]


def test_a_refused_submit_leaves_the_callers_transaction_usable(on_postgres, engine):
    """Same key, other work: KeyConflict, and the caller's own rows can still be committed."""
    stage = on_postgres
    stage.axme.submit(stage.project.pages.s("taken", 1), key="taken").wait(5)
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO orders VALUES (3)"))
        with pytest.raises(KeyConflict):
            stage.axme.submit(stage.project.pages.s("other", 1), key="taken", connection=connection)

    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM orders WHERE number = 3")) == 1


# -- two apps on one Redis -----------------------------------------------------------


def test_two_projects_on_one_redis_do_not_see_each_other(open_stage):
    """One Redis, a queue and a ledger each: leases, timers and sweeps stay apart."""
    first = open_stage(task_default_queue="first")
    second = open_stage(broker=first.config["broker_url"], task_default_queue="second")
    first.worker(pool="solo", beat=True)
    second.worker(pool="solo", beat=True)

    naps = [stage.axme.submit(stage.project.nap.s(f"nap-{n}", 0.5)) for n, stage in enumerate((first, second))]
    asks = [stage.axme.submit(stage.project.ask.s(f"ask-{n}")) for n, stage in enumerate((first, second))]

    assert [nap.wait(20) for nap in naps] == ["nap-0", "nap-1"]
    for stage, ask in zip((first, second), asks, strict=True):
        stage.wait_status(ask, "WAITING")
    first.axme.answer(asks[0].id, "approved", by="ana")
    assert asks[0].wait(20) == "approved by ana"
    assert asks[1].refresh().status is Status.WAITING
    for n, stage in enumerate((first, second)):
        assert {e["name"] for e in stage.effects()} == {f"nap-{n}", f"ask-{n}"}
        assert sum(1 for _ in stage.axme.intents()) == 2


def test_two_ledgers_keep_to_their_own_keys_of_one_redis(open_stage):
    """Each tracker has a namespace: the ledger's own id."""
    first = open_stage()
    second = open_stage(broker=first.config["broker_url"])
    trackers = [stage.axme.runtime.tracker for stage in (first, second)]

    trackers[0].tick("first")

    assert set(trackers[0].ticks()) == {"first"}
    assert trackers[1].ticks() == {}
    assert first.axme.runtime.ledger.id != second.axme.runtime.ledger.id
    assert until(lambda: first.redis.admin.keys(f"axme:*{first.axme.runtime.ledger.id}*"), "keys of the first")


def test_how_often_a_leg_may_die_is_the_setting_however_it_is_given():
    """In the configuration, to ``Axme``, or for one task, which goes first."""
    conf, given = an_app("conf"), an_app("given")
    conf.conf.update(AXME_MAX_ATTEMPTS=2, axme_ledger_url="sqlite://")

    for app, axme in ((conf, Axme(conf)), (given, Axme(given, ledger_url="sqlite://", max_attempts=2))):

        @axme.task(name="shop.usual", shared=False)
        def usual() -> None:
            """As the setting says."""

        @axme.task(name="shop.own", shared=False, max_attempts=7)
        def own() -> None:
            """As it says itself."""

        assert app.axme.read_work(usual.s()).max_attempts == 2
        assert app.axme.read_work(own.s()).max_attempts == 7
