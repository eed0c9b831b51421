"""Gather the facts the doctor judges: ask configuration, broker, ledger and tracker, each within a few seconds.

Whatever does not answer becomes a fact too. Nothing is changed by asking.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .doctor import Facts
from .durations import moment
from .errors import AxmeError, BadSetting
from .signals import keeps

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

    from .config import Settings
    from .extension import Axme

T = TypeVar("T")

#: Each server has this long to answer.
ASK_SECONDS = 8.0
#: So many of the messages that workers hold are looked at.
SAMPLE = 1000

Found = dict[str, Any]


def gather(axme: Axme) -> Facts:
    """The facts of a project, from where this is called."""
    found: Found = _configuration(axme.app)
    found |= _asked("broker_error", lambda: _broker(axme.app))
    try:
        settings = axme.settings
    except BadSetting as refused:
        return Facts(**found, settings_error=str(refused))
    found |= {
        "tick_seconds": settings.tick_seconds,
        "lease_seconds": settings.lease_seconds,
        "secret_characters": len(settings.secret_key) if settings.secret_key else None,
    }
    found |= _asked("ledger_error", lambda: _ledger(settings))
    found["tracker"] = "sql" if settings.redis_url is None else "redis"
    if (found.get("ledger_revision") or "") >= found.get("ledger_head", "?"):
        found |= _asked("tracker_error", lambda: _tracker(settings))
    hosts = {*found.pop("leg_hosts", ()), *(_host(sweeper) for sweeper in found.get("sweepers", ()))}
    return Facts(**found, hosts=tuple(sorted(hosts)))


def _asked(error_name: str, ask: Callable[[], Found]) -> Found:
    """What was answered, or the error: unreachable, refused, or silent for ASK_SECONDS."""
    answers: list[Found] = []

    def run() -> None:
        try:
            answers.append(ask())
        except AxmeError as error:
            answers.append({error_name: str(error)})
        except Exception as error:  # whatever a transport or driver raises
            answers.append({error_name: f"{type(error).__name__}: {error}"})

    # In a thread, for a hung server may never answer at all.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(ASK_SECONDS)
    return answers[0] if answers else {error_name: f"no answer within {ASK_SECONDS:g} seconds"}


# -- the configuration ------------------------------------------------------------


def _configuration(app: Celery) -> Found:
    conf = app.conf
    backend = conf.result_backend
    return {
        "accept_content": _names(conf.accept_content),
        "result_accept_content": _names(conf.result_accept_content or conf.accept_content),
        "unaccepted": tuple(_unaccepted(conf)),
        "task_always_eager": bool(conf.task_always_eager),
        "result_backend": None if not backend or backend == "disabled://" else str(backend).partition("://")[0],
        "result_expires_seconds": _seconds(conf.result_expires),
        "result_chord_expires_seconds": _seconds(conf.get("result_chord_expires")),
        "longest_countdown": _longest(_scheduled(app)),
    }


def _names(accepted: Any) -> tuple[str, ...]:
    return tuple(sorted(str(name) for name in accepted or ()))


def _unaccepted(conf: Any) -> Iterator[tuple[str, str, str]]:
    """(setting, serializer, the setting that does not take it) of what Celery here would send and not read."""
    taken = {"accept_content": _names(conf.accept_content)}
    taken["result_accept_content"] = _names(conf.result_accept_content) or taken["accept_content"]
    for setting, taker in (("task_serializer", "accept_content"), ("result_serializer", "result_accept_content")):
        serializer = str(conf.get(setting))
        # Celery takes a serializer's own name and that of its content type for one.
        if _content_type(serializer) not in map(_content_type, taken[taker]):
            yield setting, serializer, taker


def _content_type(name: str) -> str:
    from kombu.serialization import registry

    return str(registry.name_to_type.get(name, name))


def _seconds(value: Any) -> float | None:
    """Celery's durations: seconds or a timedelta; 0 and None are for ever."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return float(value) if value else None


def _scheduled(app: Celery) -> dict[str, float]:
    """Task -> countdown, of beat entries that have one; not of tasks whose countdowns are kept in the ledger."""
    found = {}
    for entry in (app.conf.beat_schedule or {}).values():
        options = (entry.get("options") or {}) if isinstance(entry, Mapping) else {}
        if isinstance(options.get("countdown"), int | float) and not _is_kept(app, str(entry["task"])):
            found[str(entry["task"])] = float(options["countdown"])
    return found


def _is_kept(app: Celery, task: str) -> bool:
    try:
        return keeps(app.axme, task)
    except BadSetting:
        return False


def _longest(countdowns: Mapping[str, float]) -> tuple[str, float] | None:
    return max(countdowns.items(), key=lambda one: one[1], default=None)


# -- the broker -----------------------------------------------------------------------


def _broker(app: Celery) -> Found:
    with app.connection_for_read() as connection:
        connection.connect()
        driver = connection.transport.driver_type
        found: Found = {"broker": driver}
        if driver == "redis":
            found |= _redis_broker(connection, _scheduled(app))
        elif driver == "sqs":
            found["visibility_timeout_seconds"] = float(connection.transport_options.get("visibility_timeout", 1800))
        return found


def _redis_broker(connection: Connection, scheduled: dict[str, float]) -> Found:
    channel: Any = connection.default_channel
    client = channel.client
    now = datetime.now(UTC)
    held = dict(scheduled)
    # Messages with an ETA are held by workers, unacknowledged, until they are due. (This command is none of those
    # the channel's client puts its prefix before.)
    for number, (_, packed) in enumerate(client.hscan_iter(channel.global_keyprefix + channel.unacked_key, count=100)):
        if number >= SAMPLE:
            break
        task, eta = _eta(packed)
        if eta is not None:
            held[task] = max(held.get(task, 0.0), (eta - now).total_seconds())
    return {
        "visibility_timeout_seconds": float(channel.visibility_timeout),
        "longest_countdown": _longest(held),
        "broker_eviction": client.info("memory").get("maxmemory_policy"),
    }


def _eta(packed: bytes | str) -> tuple[str, datetime | None]:
    """(task, when it is due) of a message a worker holds; None for one without an ETA, or in no known form."""
    try:
        headers = json.loads(packed)[0]["headers"]
        return str(headers["task"]), None if headers.get("eta") is None else moment(headers["eta"], "eta")
    except (ValueError, TypeError, KeyError, IndexError, AxmeError):
        return "", None


# -- the stores ------------------------------------------------------------------------


def _ledger(settings: Settings) -> Found:
    from .ledger import SqlLedger, schema

    ledger = SqlLedger(settings.ledger_url)
    is_sqlite, path = ledger.engines.is_sqlite, ledger.engines.url.database
    found: Found = {"ledger": "sqlite" if is_sqlite else "postgresql", "ledger_head": schema.REVISION}
    if is_sqlite and not (path and Path(path).exists()):
        return found  # asking SQLite would make the file
    try:
        found["ledger_revision"] = ledger.revision()
        if found["ledger_revision"] is None or found["ledger_revision"] < found["ledger_head"]:
            return found
        before = datetime.now(UTC)
        ledger_now = ledger.now(fresh=True)
        found["clock_offset_seconds"] = _offset(before, datetime.now(UTC), ledger_now)
        figures = dataclasses.asdict(ledger.health())
        del figures["open_intents"]
        found["leg_hosts"] = figures.pop("hosts")
        return found | figures
    finally:
        ledger.close()


def _tracker(settings: Settings) -> Found:
    from .ledger import SqlLedger
    from .tracker import open_tracker

    ledger = SqlLedger(settings.ledger_url)
    tracker = open_tracker(settings.redis_url, ledger.id, lambda: ledger.engines.durable)
    try:
        tracker.ping()
        found: Found = {"tracker_eviction": tracker.eviction_policy()}
        redis_now = None
        if settings.redis_url is not None:
            before = ledger.now(fresh=True)
            redis_now = _redis_time(settings.redis_url)
            # What an offset of this host does to it cancels out: both were asked within a moment.
            found["tracker_offset_seconds"] = -_offset(before, ledger.now(fresh=True), redis_now)
        now = redis_now or ledger.now(fresh=True)
        found["sweepers"] = {who: max(0.0, (now - at).total_seconds()) for who, at in tracker.ticks().items()}
        return found
    finally:
        tracker.close()
        ledger.close()


def _redis_time(url: str) -> datetime:
    from redis import Redis

    with Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
        seconds, microseconds = client.time()
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)


def _offset(before: datetime, after: datetime, there: datetime) -> float:
    """How far our clock is ahead of one that said ``there`` between two looks at ours; 0 within the time that took."""
    if before <= there <= after:
        return 0.0
    return (before - there).total_seconds() if there < before else (after - there).total_seconds()


def _host(sweeper: str) -> str:
    """ "gen12@host" and "keeper@host:12" -> "host"."""
    return sweeper.partition("@")[2].partition(":")[0] or sweeper
