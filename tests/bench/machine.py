"""What the figures were taken on: machine, kernel, versions, and how the servers are set."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import redis

PACKAGES = ("axme-celery", "celery", "kombu", "redis", "SQLAlchemy", "psycopg", "dbos", "absurd-sdk", "absurdctl")


def describe(*, redis_url: str, postgres_url: str, directory: Path) -> list[tuple[str, str]]:
    """(label, value) pairs for the table of conditions. Reads files and asks the two servers; changes nothing."""
    return [
        ("processor", f"{processor()}, {os.cpu_count()} cores"),
        ("memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"),
        ("kernel", f"{platform.system()} {platform.release()}"),
        ("file system of the databases", file_system(directory)),
        ("a write that the disk has, before the run", f"{synced_write_ms(directory):.3f} ms"),
        ("load before the run", f"{os.getloadavg()[0]:.2f}"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("PostgreSQL", postgres(postgres_url)),
        ("Redis", redis_server(redis_url)),
        ("SQLite", sqlite()),
        ("packages", ", ".join(packages())),
        ("commit", commit()),
    ]


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def file_system(directory: Path) -> str:
    """Its type, because a commit costs nothing where ``fsync`` does nothing (tmpfs)."""
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines() if Path("/proc/mounts").exists() else []:
        _device, mount, kind = line.split()[:3]
        if directory.resolve().is_relative_to(mount) and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]


def synced_write_ms(directory: Path, count: int = 200) -> float:
    """What 8 KiB written and synced take there, the median: every durable commit waits for that, in all subjects alike.

    So the slower the disk, the less do ratios say of the programs.
    """
    where = directory if os.access(directory, os.W_OK) else Path(tempfile.gettempdir())
    taken = []
    with tempfile.TemporaryFile(dir=where) as file:
        for _ in range(count):
            before = time.perf_counter()
            os.write(file.fileno(), bytes(8192))
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - before)
    return statistics.median(taken) * 1000


def postgres(url: str) -> str:
    with psycopg.connect(url) as connection:
        values = {}
        for name in ("server_version", "fsync", "synchronous_commit", "shared_buffers"):
            row = connection.execute(f"SHOW {name}").fetchone()
            values[name] = row[0] if row else "unknown"
    version = values.pop("server_version").split()[0]
    return f"{version}, " + ", ".join(f"{name} {value}" for name, value in values.items())


def redis_server(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        info = client.info("server")
        append_only = client.config_get("append*")
    return f"{info['redis_version']}, appendonly {append_only['appendonly']}, appendfsync {append_only['appendfsync']}"


def sqlite() -> str:
    import sqlite3

    return f"{sqlite3.sqlite_version}, journal_mode WAL, synchronous FULL in the bare insert"


def packages() -> list[str]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return found


def commit() -> str:
    """The commit measured, with a mark when the tree differs from it; "unknown" outside a clone."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()
