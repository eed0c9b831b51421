"""What the suites of the stores share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from axme_celery.ledger import SqlLedger, migrate, sqlite_pool

from .ledgers import handles


class MovedClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 10, 5, 8, 30, 0, 123456, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


# -- ledgers --------------------------------------------------------------------


@pytest.fixture(scope="module")
def migrated(module_postgres_url: str) -> str:
    """A PostgreSQL database with an empty ledger, to be copied."""
    migrate.upgrade(module_postgres_url)
    return module_postgres_url


@pytest.fixture
def postgres_ledger_url(migrated: str, postgres_copy: Callable[[str], str]) -> str:
    """An empty ledger on PostgreSQL."""
    return postgres_copy(migrated)


@pytest.fixture(params=["postgresql", "sqlite"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty ledger on each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    found: str = request.getfixturevalue("postgres_ledger_url")
    return found


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[SqlLedger]:
    """An empty ledger on each database."""
    yield from _opened(ledger_url)


@pytest.fixture
def postgres_ledger(postgres_ledger_url: str) -> Iterator[SqlLedger]:
    """An empty ledger on PostgreSQL."""
    yield from _opened(postgres_ledger_url)


@pytest.fixture
def sqlite_ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    """An empty ledger in a file."""
    yield from _opened(f"sqlite:///{tmp_path}/ledger.db")


def _opened(url: str) -> Iterator[SqlLedger]:
    ledger = SqlLedger(url)
    yield ledger
    # Whatever the test did, every connection was given back, or is kept ready for the next.
    if ledger.engines.is_sqlite:
        pool = ledger.engines.durable.pool
        assert isinstance(pool, sqlite_pool.ForkedEmptyPool)
        assert sqlite_pool._door._own.count == 0
        # Not how many are inside the door: it is the whole process's, and another test's application may be at its own ledger.
        if Path("/proc/self/fd").is_dir():
            assert len(handles(ledger)) <= len(pool._idle)
    else:
        assert ledger.engines.durable.pool.checkedout() == len(ledger.engines._ready)  # type: ignore[attr-defined]
    ledger.close()
