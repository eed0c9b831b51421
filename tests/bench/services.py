"""The two servers of a run: private ones, or those named in the environment.

Private: Redis with ``appendfsync everysec`` and PostgreSQL with fsync on, each otherwise as installed, on free ports,
removed at the end. ``AXME_BENCH_REDIS_URL`` names an *empty* Redis instead, ``AXME_BENCH_POSTGRES_URL`` a PostgreSQL
whose user may create databases.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.servers import PrivatePostgres, PrivateRedis, create_database, drop_database, libpq_url

REDIS_CONFIG = {"appendonly": "yes", "appendfsync": "everysec"}


class NotEmpty(Exception):
    """The Redis named for the run holds keys; the run would delete them."""


@dataclass(frozen=True)
class Services:
    """Addresses of the servers of this run.

    redis_url:    of database 0; a run uses 0 (broker) and 1 (results) and empties both after each turn.
    postgres_url: SQLAlchemy URL of a database from which others are created, one for each turn.
    directory:    where PostgreSQL keeps its data, to tell what an fsync meets there; None when it is not ours.
    """

    redis_url: str
    postgres_url: str
    directory: Path | None

    @contextlib.contextmanager
    def for_one_turn(self) -> Iterator[str]:
        """A new database, by its SQLAlchemy URL; afterwards it is gone and Redis is empty again."""
        database_url = create_database(self.postgres_url)
        try:
            yield database_url
        finally:
            # Both after the turn, not before the next: dropping makes PostgreSQL write its checkpoint
            # now, outside everybody's measurement.
            drop_database(self.postgres_url, database_url)
            empty(self.redis_url)

    @property
    def postgres_libpq_url(self) -> str:
        return libpq_url(self.postgres_url)


def redis_database(url: str, number: int) -> str:
    """The URL of another numbered database on the same Redis."""
    return f"{url.rpartition('/')[0]}/{number}"


def empty(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()


@contextlib.contextmanager
def open_services() -> Iterator[Services]:
    """Start what is not named in the environment, and stop what was started.

    Raises NotEmpty for a named Redis that holds any key, and MissingService where a program is not installed.
    """
    with contextlib.ExitStack() as stack:
        if named_redis := os.environ.get("AXME_BENCH_REDIS_URL"):
            redis_url = redis_database(named_redis.rstrip("/") + "/" * (named_redis.count("/") < 3), 0)
            with redis.Redis.from_url(redis_url) as client:
                if keyspace := client.info("keyspace"):
                    raise NotEmpty(f"AXME_BENCH_REDIS_URL holds keys in {', '.join(keyspace)}; name an empty Redis")
        else:
            redis_url = stack.enter_context(PrivateRedis(REDIS_CONFIG)).url
        if named_postgres := os.environ.get("AXME_BENCH_POSTGRES_URL"):
            scheme, _, rest = named_postgres.partition("://")
            yield Services(redis_url, f"{scheme.partition('+')[0]}+psycopg://{rest}", None)
        else:
            postgres = stack.enter_context(PrivatePostgres())
            yield Services(redis_url, postgres.url, postgres.folder)
