"""Fixtures every test may use: real services, and a loud ending for tests that did not run."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable, Iterator

import kombu
import pytest

from . import services
from .servers import PrivatePostgres, PrivateRedis, close_all, create_database, drop_database
from .staging import app, axme, becomes, stage, stage_on_each_database  # noqa: F401
from .unrun import (  # noqa: F401
    pytest_make_collect_report,
    pytest_runtest_makereport,
    pytest_terminal_summary,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # One test process asks for RabbitMQ, so that at most one has to be started: it takes seconds.
    for item in items:
        if "rabbitmq_url" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("rabbitmq"))


def pytest_configure() -> None:
    # A shell starts what it puts in the background with SIGINT ignored, and every process started here would inherit
    # that: those that are to be interrupted would never end.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    close_all()


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A fresh, empty PostgreSQL database for this test."""
    yield from _database()


@pytest.fixture(scope="module")
def module_postgres_url() -> Iterator[str]:
    """A PostgreSQL database, empty at first, that the tests of this module share."""
    yield from _database()


@pytest.fixture
def postgres_copy() -> Iterator[Callable[[str], str]]:
    """``postgres_copy(url)``: a copy of that database for this test. Nobody may be connected to it meanwhile."""
    copies: list[str] = []

    def copy(url: str) -> str:
        copies.append(create_database(services.postgres(), url))
        return copies[-1]

    yield copy
    for url in copies:
        drop_database(services.postgres(), url)


def _database() -> Iterator[str]:
    server = services.postgres()
    url = create_database(server)
    yield url
    drop_database(server, url)


@pytest.fixture
def redis_url() -> str:
    """An empty Redis database that no other test process uses."""
    services.flush_redis()
    return services.redis_url()


@pytest.fixture
def rabbitmq_url() -> str:
    """A RabbitMQ, perhaps shared: take queue names from ``rabbitmq_queue``. The one service that may be missing."""
    try:
        return services.rabbitmq()
    except services.MissingService as missing:
        pytest.skip(str(missing))


@pytest.fixture
def rabbitmq_queue(rabbitmq_url: str) -> Iterator[str]:
    """The name of a queue and an exchange that are this test's own; both are deleted after it."""
    name = f"axme-test-{uuid.uuid4().hex[:12]}"
    yield name
    with kombu.Connection(rabbitmq_url) as connection, connection.channel() as channel:
        channel.queue_delete(name)
        channel.exchange_delete(name)


@pytest.fixture
def private_redis() -> Iterator[PrivateRedis]:
    """A running Redis to kill, pause or reconfigure."""
    with PrivateRedis() as server:
        yield server


@pytest.fixture
def private_postgres() -> Iterator[PrivatePostgres]:
    """A running PostgreSQL to kill, crash, pause or restart."""
    with PrivatePostgres() as server:
        yield server
