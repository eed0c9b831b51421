"""The services under the tests: ours alone, gone when we are, and taken from where it was said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import kombu
import psutil
import psycopg
import pytest
import redis

from . import services
from .servers import (
    MissingService,
    PrivatePostgres,
    PrivateRabbitmq,
    PrivateRedis,
    ServerDidNotStart,
    create_database,
    drop_database,
    libpq_url,
    process,
)

ROOT = Path(__file__).parents[1]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own; a value of "" removes the variable."""
    merged = {**os.environ, **environment}
    merged = {key: value for key, value in merged.items() if value}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=merged, capture_output=True, text=True, check=False)


def soon(claim: Callable[[], bool], within_seconds: float = 15) -> bool:
    until = time.monotonic() + within_seconds
    while not claim() and time.monotonic() < until:
        time.sleep(0.05)
    return claim()


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []


# -- servers of our own --


def test_a_killed_redis_comes_back_empty_at_the_same_url(private_redis):
    """What a test of "Redis restarted empty" stands on."""
    client = redis.Redis.from_url(private_redis.url)
    client.set("key", "value")
    first_pid = private_redis.pid

    private_redis.kill()
    with pytest.raises(redis.ConnectionError):
        client.get("key")
    private_redis.start()

    assert client.get("key") is None
    assert private_redis.pid not in (None, first_pid)


def test_a_paused_redis_hangs_and_then_goes_on(private_redis):
    """Hung, not down: it is the worse of the two."""
    client = redis.Redis.from_url(private_redis.url, socket_timeout=0.3, retry=None)
    client.set("key", "value")

    with private_redis.paused(), pytest.raises(redis.TimeoutError):
        client.get("key")

    assert client.get("key") == b"value"


def test_a_redis_takes_its_own_settings():
    with PrivateRedis({"maxmemory-policy": "allkeys-lru"}) as server:
        client = redis.Redis.from_url(server.url)
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}


@pytest.mark.parametrize("how", ["stop", "crash", "kill"])
def test_postgres_keeps_what_was_committed(private_postgres, how):
    """Stopped in order, with -m immediate, or with kill -9."""
    url = private_postgres.create_database()
    rows(url, "CREATE TABLE kept AS SELECT 1 AS number")
    open_transaction = psycopg.connect(libpq_url(url))
    open_transaction.execute("INSERT INTO kept VALUES (2)")

    getattr(private_postgres, how)()
    with pytest.raises(psycopg.OperationalError):
        rows(url, "SELECT 1")
    private_postgres.start()

    assert rows(url, "SELECT number FROM kept") == [(1,)]
    open_transaction.close()


def test_a_paused_postgres_hangs_in_every_backend(private_postgres):
    url = libpq_url(private_postgres.url)
    with psycopg.connect(url, autocommit=True) as connection:
        with private_postgres.paused():
            backend = psutil.Process(connection.info.backend_pid)
            assert soon(lambda: backend.status() == psutil.STATUS_STOPPED)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_closing_one_server_leaves_the_others_alone(private_redis):
    """Only what was started is stopped, and only the one that was asked for."""
    with PrivateRedis() as other:
        other_pid, other_folder = other.pid, other.folder
        assert other.port != private_redis.port

    assert not psutil.pid_exists(other_pid)
    assert not other_folder.exists()
    assert redis.Redis.from_url(private_redis.url).ping()


def test_a_server_does_not_take_another_for_itself(private_redis, monkeypatch):
    """Something else answers on the port: that is a failure, with the log's reason, not a server of ours."""
    monkeypatch.setattr(process, "RETRY_SECONDS", 0.2)
    second = PrivateRedis()
    second.port = private_redis.port

    with pytest.raises(ServerDidNotStart, match="Address already in use"):
        second.start()

    second.close()
    assert redis.Redis.from_url(private_redis.url).ping()


def test_a_forked_child_that_exits_stops_no_server(private_redis):
    """Pool children run exit handlers too."""
    child = os.fork()
    if child == 0:
        try:
            process.close_all()
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    assert redis.Redis.from_url(private_redis.url).ping()


def test_what_a_killed_test_process_left_is_put_back():
    """kill -9 of the tests: servers, folders and databases go all the same."""
    code = """
import os, signal
from tests.servers import PrivatePostgres, PrivateRedis, create_database
from tests.services import postgres
redis, own = PrivateRedis().start(), PrivatePostgres().start()
print(redis.pid, redis.folder, own.pid, own.folder, create_database(postgres()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = run(code, AXME_TEST_POSTGRES_URL=services.postgres())
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    redis_pid, redis_folder, postgres_pid, postgres_folder, url = ended.stdout.split()

    name = url.rpartition("/")[2]
    for pid in (redis_pid, postgres_pid):
        assert soon(lambda pid=pid: not psutil.pid_exists(int(pid)))
    for folder in (redis_folder, postgres_folder):
        assert soon(lambda folder=folder: not Path(folder).exists())
    assert soon(lambda: rows(services.postgres(), f"SELECT 1 FROM pg_database WHERE datname = '{name}'") == [])


@pytest.mark.slow
def test_our_own_rabbitmq_carries_a_message_and_leaves_nothing_running():
    """Its own node, cookie and port mapper: the machine's are not touched."""
    try:
        server = PrivateRabbitmq().start()
    except MissingService as missing:
        pytest.skip(str(missing))
    with server, kombu.Connection(server.url) as connection:
        queue = connection.SimpleQueue("letters")
        queue.put("hello")
        assert queue.get(timeout=5).payload == "hello"
        queue.close()
        ours = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        mapper_port = str(server.mapper.port)

    assert soon(lambda: not any(one.is_running() for one in ours))
    assert not [one for one in psutil.process_iter(["cmdline"]) if mapper_port in (one.info["cmdline"] or [])]


# -- where they are taken from --


def test_a_named_redis_is_the_one_that_is_used_a_database_for_each_test_process(private_redis):
    code = "from tests import services; print(services.redis_url())"

    first = run(code, AXME_TEST_REDIS_URL=private_redis.url, PYTEST_XDIST_WORKER="")
    second = run(code, AXME_TEST_REDIS_URL=private_redis.url, PYTEST_XDIST_WORKER="gw1")

    assert first.stdout.strip() == private_redis.url
    assert second.stdout.strip() == private_redis.url.removesuffix("/0") + "/1"


def test_a_named_postgres_is_the_one_that_is_used(private_postgres):
    named = libpq_url(private_postgres.url)

    said = run("from tests import services; print(services.postgres())", AXME_TEST_POSTGRES_URL=named)

    assert said.stdout.strip() == private_postgres.url


@pytest.mark.parametrize(
    ("variable", "url", "function"),
    [
        ("AXME_TEST_POSTGRES_URL", "postgresql://nobody@127.0.0.1:9/none", "postgres"),
        ("AXME_TEST_REDIS_URL", "redis://127.0.0.1:9/0", "redis_url"),
        ("AXME_TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:9//", "rabbitmq"),
    ],
)
def test_a_named_service_that_cannot_be_used_is_not_replaced_by_another(variable, url, function):
    """Who names one means that one."""
    said = run(f"from tests import services; services.{function}()", **{variable: url})

    assert said.returncode == 1
    assert f"MissingService: {variable} cannot be used" in said.stderr


def test_a_missing_program_leaves_no_folder_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("AXME_TEST_IGNORE_INSTALLED", "1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(MissingService, match="RabbitMQ is missing"):
        PrivateRabbitmq()

    assert list(tmp_path.iterdir()) == []


def test_with_nothing_installed_redis_and_postgres_come_from_wheels():
    """A stranger's machine. RabbitMQ has no wheel, and is named with the way to get it."""
    bare = {"AXME_TEST_IGNORE_LOCAL": "1", "AXME_TEST_IGNORE_INSTALLED": "1", "PATH": "/nowhere"}
    named = {"AXME_TEST_POSTGRES_URL": "", "AXME_TEST_REDIS_URL": "", "AXME_TEST_RABBITMQ_URL": ""}

    said = run("import runpy; runpy.run_module('tests.services', run_name='__main__')", **bare, **named)

    assert said.returncode == 0, said.stderr
    postgres, redis_, rabbitmq = said.stdout.splitlines()
    assert postgres.startswith("postgres: postgresql+psycopg://postgres@127.0.0.1:")
    assert redis_.startswith("redis_url: redis://127.0.0.1:")
    assert rabbitmq.startswith("rabbitmq: RabbitMQ is missing: apt-get install rabbitmq-server")
    assert ":5432/" not in postgres
    assert ":6379/" not in redis_


# -- the fixtures --


def test_a_postgres_database_is_empty_and_a_copy_has_what_its_template_had(postgres_url, postgres_copy):
    everything = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    assert rows(postgres_url, everything) == []
    rows(postgres_url, "CREATE TABLE kept AS SELECT 1 AS number")

    copy = postgres_copy(postgres_url)

    assert copy != postgres_url
    assert rows(copy, "SELECT number FROM kept") == [(1,)]


def test_a_dropped_database_is_gone_whoever_is_connected():
    url = create_database(services.postgres())
    with psycopg.connect(libpq_url(url)):
        drop_database(services.postgres(), url)

    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(libpq_url(url))


def test_redis_is_empty_at_the_start_of_each_test(redis_url):
    client = redis.Redis.from_url(redis_url)
    client.set("left", "behind")

    services.flush_redis()

    assert client.dbsize() == 0


def test_rabbitmq_gives_a_queue_of_ones_own(rabbitmq_url, rabbitmq_queue):
    with kombu.Connection(rabbitmq_url) as connection:
        queue = connection.SimpleQueue(rabbitmq_queue)
        queue.put({"to": "ana"})
        assert queue.get(timeout=5).payload == {"to": "ana"}
        queue.close()


def test_postgres_runs_without_fsync_only_when_asked():
    """Crash tests must mean what they say."""
    with PrivatePostgres() as safe, PrivatePostgres(fsync=False) as fast:
        assert rows(safe.url, "SHOW fsync") == [("on",)]
        assert rows(fast.url, "SHOW fsync") == [("off",)]
