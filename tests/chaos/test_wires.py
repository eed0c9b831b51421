"""The proxy that loses replies and the copier of messages: they do what the live part believes they do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from kombu import Connection

from tests.servers import PrivatePostgres, PrivateRedis, libpq_url

from .wires import Copier, LossyProxy, pushed


@pytest.fixture(scope="module")
def postgres() -> Iterator[PrivatePostgres]:
    with PrivatePostgres(fsync=False) as server:
        yield server


@pytest.fixture
def proxy(postgres: PrivatePostgres) -> Iterator[LossyProxy]:
    proxy = LossyProxy(postgres.port, seed=1).start()
    yield proxy
    proxy.close()


def through(proxy: LossyProxy, postgres: PrivatePostgres) -> psycopg.Connection:
    """A connection by way of the proxy."""
    url = libpq_url(postgres.url).replace(f":{postgres.port}/", f":{proxy.port}/")
    return psycopg.connect(url + "?sslmode=disable&gssencmode=disable", connect_timeout=5)


def count(postgres: PrivatePostgres, table: str, expected: int) -> int:
    """How many rows there are, once there are as many as expected or two seconds have passed."""
    until = time.monotonic() + 2.0
    with psycopg.connect(libpq_url(postgres.url), autocommit=True) as direct:
        while True:
            (found,) = direct.execute(f"SELECT count(*) FROM {table}").fetchone()
            if found == expected or time.monotonic() > until:
                return found
            time.sleep(0.01)


def test_a_lost_reply_to_a_commit_is_an_error_for_the_client_and_a_row_for_the_server(proxy, postgres):
    """The caller is told that the connection broke; what it committed is there."""
    with through(proxy, postgres) as connection:
        connection.execute("CREATE TABLE told (n int)")
    proxy.lose("COMMIT", 1)
    connection = through(proxy, postgres)
    connection.execute("INSERT INTO told VALUES (1)")
    with pytest.raises(psycopg.OperationalError):
        connection.commit()

    assert proxy.lost == {"COMMIT": 1}
    assert count(postgres, "told", 1) == 1


def test_only_as_many_replies_are_lost_as_were_asked_for(proxy, postgres):
    """The next commit is answered again."""
    with through(proxy, postgres) as connection:
        connection.execute("CREATE TABLE asked (n int)")
    proxy.lose("COMMIT", 1)
    with pytest.raises(psycopg.OperationalError), through(proxy, postgres) as connection:
        connection.execute("INSERT INTO asked VALUES (1)")
    with through(proxy, postgres) as connection:
        connection.execute("INSERT INTO asked VALUES (2)")

    assert proxy.lost == {"COMMIT": 1}
    assert count(postgres, "asked", 2) == 2


@pytest.mark.parametrize("earlier", [0, 10], ids=["as a statement", "as a prepared statement"])
def test_the_reply_to_a_checkpoint_is_lost_however_its_insert_travels(proxy, postgres, earlier):
    """The driver prepares a statement after some executions; the row is there either way, and the client is not told."""
    table = f"axme_checkpoints_{earlier}"
    connection = through(proxy, postgres)
    connection.autocommit = True
    connection.execute(f"CREATE TABLE {table} (n int)")
    insert = f"INSERT INTO {table} VALUES (%s)"
    for number in range(earlier):
        connection.execute(insert, (number,))
    proxy.lose("checkpoint", 1)
    with pytest.raises(psycopg.OperationalError):
        connection.execute(insert, (earlier,))

    assert proxy.lost == {"checkpoint": 1}
    assert count(postgres, table, earlier + 1) == earlier + 1


def test_a_client_learns_that_its_server_crashed(proxy, postgres):
    """It does not wait for an answer that nobody will give, whether it is asking or idle meanwhile."""
    idle, asking = through(proxy, postgres), through(proxy, postgres)
    asking.autocommit = True
    with ThreadPoolExecutor(1) as pool:
        question = pool.submit(asking.execute, "SELECT pg_sleep(60)")
        time.sleep(0.3)
        postgres.kill()
        with pytest.raises(psycopg.OperationalError):
            question.result(timeout=5)
    with pytest.raises(psycopg.OperationalError):
        idle.execute("SELECT 1")
    postgres.start()
    with through(proxy, postgres) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_every_message_of_the_queue_arrives_three_times_while_the_copier_is_on():
    """Also from a queue that is emptied at once; and no copy is copied again."""
    with PrivateRedis() as server, Connection(server.url) as broker:
        copier = Copier(server.port)
        queue, other = broker.SimpleQueue("celery"), broker.SimpleQueue("other")
        copier.switch(True)
        time.sleep(0.5)
        for number in range(5):
            queue.put({"number": number, "text": 'a "quoted" \\ back\nslash ü'})
        other.put({"number": 99})
        got = [queue.get(timeout=5) for _ in range(15)]
        copier.switch(False)
        time.sleep(0.3)
        queue.put({"number": 5})
        last = queue.get(timeout=5)

        assert sorted(message.payload["number"] for message in got) == sorted([0, 1, 2, 3, 4] * 3)
        assert {message.payload["text"] for message in got} == {'a "quoted" \\ back\nslash ü'}
        assert last.payload == {"number": 5}
        assert server.admin.llen("celery") == 0 and server.admin.llen("other") == 1
        assert copier.copied == 5
        for message in (*got, last):
            message.ack()
        copier.close()


def test_what_is_pushed_to_other_queues_or_read_is_no_message_of_the_queue():
    """Only the command that publishes is copied."""
    assert (
        pushed(b'1.0 [0 127.0.0.1:1] "LPUSH" "celery" "{\\"a\\": \\"\\xc3\\xbc\\"}"', b"celery") == b'{"a": "\xc3\xbc"}'
    )
    for line in (
        b'1.0 [0 127.0.0.1:1] "LPUSH" "celery2" "x"',
        b'1.0 [0 127.0.0.1:1] "RPUSH" "celery" "x"',
        b'1.0 [0 127.0.0.1:1] "BRPOP" "celery" "1"',
        b"+OK",
    ):
        assert pushed(line, b"celery") is None
