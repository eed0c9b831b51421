"""The PostgreSQL, Redis and RabbitMQ that tests run against, and where they come from.

PostgreSQL  AXME_TEST_POSTGRES_URL, else the one on 127.0.0.1:5432 if it lets us in and create databases, else our own.
            Databases of ours are named ``axme_test_...`` and dropped.
RabbitMQ    AXME_TEST_RABBITMQ_URL, else the one on 127.0.0.1:5672 if it lets guest in, else our own.
            Queues of ours have names of their own and are deleted.
Redis       AXME_TEST_REDIS_URL, else our own: tests flush it, so one that somebody uses must be named to be taken.
            With n test processes, n databases from the one named are flushed.

Our own are those of ``tests.servers``, one of each for a test process, started
when first asked for. ``AXME_TEST_IGNORE_LOCAL=1`` passes over the standard ports.

``python -m tests.services`` says what would be used here.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import kombu
import psycopg
import redis

from .servers import (
    MissingService,
    PrivatePostgres,
    PrivateRabbitmq,
    PrivateRedis,
    PrivateServer,
    ServerDidNotStart,
    libpq_url,
)

__all__ = [
    "MissingService",
    "PrivatePostgres",
    "PrivateRabbitmq",
    "PrivateRedis",
    "flush_redis",
    "postgres",
    "rabbitmq",
    "redis_url",
]

CONNECT_SECONDS = 3
OLDEST_POSTGRES = 130000  # DROP DATABASE ... WITH (FORCE)


@functools.cache
def postgres() -> str:
    """URL of a PostgreSQL where we may create databases. Raises MissingService."""
    if named := os.environ.get("AXME_TEST_POSTGRES_URL"):
        url = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+psycopg://", named)
        if trouble := _postgres_trouble(url):
            raise MissingService(f"AXME_TEST_POSTGRES_URL cannot be used: {trouble}")
        return url
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or "postgres"
    for name, database in (("postgres", "postgres"), (user, "postgres"), (user, user)):
        url = f"postgresql+psycopg://{name}@127.0.0.1:5432/{database}"
        if _look_on_standard_ports() and not _postgres_trouble(url):
            return url
    return _own(PrivatePostgres)


@functools.cache
def redis_url() -> str:
    """URL of a Redis database that this test process alone uses and may flush. Raises MissingService."""
    named = os.environ.get("AXME_TEST_REDIS_URL")
    if not named:
        return _own(PrivateRedis)
    parts = urlsplit(named)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    url = urlunsplit(parts._replace(path=f"/{int(parts.path.strip('/') or 0) + worker}"))
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=CONNECT_SECONDS) as client:
            client.ping()
    except redis.RedisError as error:
        raise MissingService(f"AXME_TEST_REDIS_URL cannot be used as {url}: {error}") from None
    return url


def flush_redis() -> None:
    """Empty the database of ``redis_url()``; all of them, if the server is our own."""
    with redis.Redis.from_url(redis_url()) as client:
        if os.environ.get("AXME_TEST_REDIS_URL"):
            client.flushdb()
        else:
            client.flushall()


@functools.cache
def rabbitmq() -> str:
    """URL of a RabbitMQ virtual host; it may be shared, so give queues names of their own. Raises MissingService."""
    if named := os.environ.get("AXME_TEST_RABBITMQ_URL"):
        if trouble := _rabbitmq_trouble(named):
            raise MissingService(f"AXME_TEST_RABBITMQ_URL cannot be used: {trouble}")
        return named
    url = "amqp://guest:guest@127.0.0.1:5672//"
    if _look_on_standard_ports() and not _rabbitmq_trouble(url):
        return url
    return _own(PrivateRabbitmq)


def _own(kind: Callable[[], PrivateServer]) -> str:
    try:
        return kind().start().url
    except ServerDidNotStart as failure:
        raise MissingService(str(failure)) from failure


def _look_on_standard_ports() -> bool:
    return not os.environ.get("AXME_TEST_IGNORE_LOCAL")


def _postgres_trouble(url: str) -> str | None:
    """Why tests cannot use it, None when they can."""
    try:
        with psycopg.connect(libpq_url(url), connect_timeout=CONNECT_SECONDS) as connection:
            if connection.info.server_version < OLDEST_POSTGRES:
                return f"it is of version {connection.info.server_version}, and at least {OLDEST_POSTGRES} is needed"
            query = "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
            row = connection.execute(query).fetchone()
            return None if row and row[0] else "its user may not create databases"
    except psycopg.Error as error:
        return str(error).strip()


def _rabbitmq_trouble(url: str) -> str | None:
    try:
        with kombu.Connection(url, connect_timeout=CONNECT_SECONDS) as connection:
            connection.connect()
            return None
    except Exception as error:  # whatever the transport raises: refused, no such host, wrong password
        return str(error) or type(error).__name__


if __name__ == "__main__":
    for service in (postgres, redis_url, rabbitmq):
        try:
            print(f"{service.__name__}: {service()}")
        except MissingService as missing:
            print(f"{service.__name__}: {missing}")
