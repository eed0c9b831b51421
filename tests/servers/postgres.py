"""A PostgreSQL of our own, and databases on any PostgreSQL."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from . import janitor
from .process import PrivateServer, ServerDidNotStart, as_user, folder_for_servers, open_to_all
from .programs import MissingService, postgres_program


class PrivatePostgres(PrivateServer):
    """A PostgreSQL cluster; fsync is on unless told otherwise. Data outlives ``stop``, ``kill`` and ``crash``."""

    name = "postgres"
    stop_signal = signal.SIGINT  # its "fast" shutdown: open transactions are rolled back

    def __init__(self, config: Mapping[str, str] | None = None, *, fsync: bool = True) -> None:
        super().__init__(config)
        self.fsync = fsync
        self.data = self.folder / "data"
        shutil.copytree(_empty_cluster(), self.data, symlinks=True)
        _give_to(self.user(), self.folder)

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database everybody may connect to; use ``create_database`` for one to work in."""
        return self.database_url("postgres")

    def database_url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def find_program(self) -> Path:
        return _postgres_for_us()

    def arguments(self) -> list[str]:
        config = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "on" if self.fsync else "off",
        }
        options = [word for key, value in {**config, **self.config}.items() for word in ("-c", f"{key}={value}")]
        return ["-D", str(self.data), *options]

    def answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(libpq_url(self.url), connect_timeout=2):
            return True
        return False

    def user(self) -> int | None:
        return _unprivileged()

    def crash(self) -> None:
        """``pg_ctl stop -m immediate``: no checkpoint, recovery at the next start."""
        self.stop(signal.SIGQUIT)

    def create_database(self, template: str | None = None) -> str:
        """A new database, empty or a copy of the one at the URL ``template``; returns its SQLAlchemy URL."""
        return create_database(self.url, template)


# -- databases --


def libpq_url(url: str) -> str:
    """SQLAlchemy's URL as libpq and psycopg read it."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def create_database(server_url: str, template: str | None = None) -> str:
    """Create a database on the server at ``server_url``; returns its URL. Nobody may be connected to ``template``."""
    name = f"axme_test_{os.getpid()}_{uuid.uuid4().hex[:12]}"
    source = _database_of(template) if template else "template0"
    with psycopg.connect(libpq_url(server_url), autocommit=True) as connection:
        janitor.promise_database(libpq_url(server_url), name)
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(source)))
    head, _, tail = server_url.partition("?")
    return head.rpartition("/")[0] + "/" + name + (f"?{tail}" if tail else "")


def drop_database(server_url: str, url: str) -> None:
    """Drop the database at ``url``, whoever is still connected to it."""
    name = _database_of(url)
    with psycopg.connect(libpq_url(server_url), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
    janitor.release(name)


def _database_of(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


# -- PostgreSQL refuses to run as root --


@functools.cache
def _unprivileged() -> int | None:
    """The user id a server runs as when we are root: postgres where there is one, else nobody."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise MissingService("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")


def _give_to(uid: int | None, folder: Path) -> None:
    if uid is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, uid, pwd.getpwuid(uid).pw_gid, follow_symlinks=False)


@functools.cache
def _scratch() -> Path:
    """A folder of this test process, removed after its end."""
    folder = Path(tempfile.mkdtemp(prefix="axme-test-postgres-", dir=folder_for_servers()))
    janitor.promise_folder(folder)
    _give_to(_unprivileged(), folder)
    return folder


@functools.cache
def _postgres_for_us() -> Path:
    """The postgres program at a place its user can reach; a wheel inside root's home is copied out of it."""
    program = postgres_program()
    if _unprivileged() is None or open_to_all(program):
        return program
    # The programs of a wheel find their libraries from where they are, in "<package>.libs" beside the package.
    package = program.parents[2]
    for folder in package.parent.glob(f"{package.name}*"):
        if folder.name in (package.name, f"{package.name}.libs"):
            shutil.copytree(folder, _scratch() / "program" / folder.name, symlinks=True)
    return _scratch() / "program" / program.relative_to(package.parent)


@functools.cache
def _empty_cluster() -> Path:
    """A data folder fresh from initdb, made once per process and copied for each server."""
    data = _scratch() / "cluster"
    initdb = _postgres_for_us().with_name("initdb")
    how = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    command = [str(initdb), "-D", str(data), *how]
    environment = dict(os.environ, LC_ALL="C")
    made = subprocess.run(
        command, cwd=_scratch(), env=environment, capture_output=True, text=True, **as_user(_unprivileged())
    )
    if made.returncode != 0:
        raise ServerDidNotStart(f"{initdb} failed:\n{made.stdout[-1500:]}{made.stderr[-1500:]}")
    return data
