"""migrate, sweep, prune: what an operator or cron calls."""

from __future__ import annotations

import functools
import itertools
import sqlite3
from datetime import timedelta
from types import SimpleNamespace

import pytest

from axme_celery import sweep as brooms

from .command_line import desk_fixture, until  # noqa: F401

# -- migrate --


def test_migrate_makes_the_tables_and_may_be_run_again(desk, postgres_url):
    desk.app.conf.axme_ledger_url = postgres_url

    assert "brought from nothing to 0001" in desk.run("migrate").stdout
    assert desk.run("migrate").stdout == "the ledger is up to date (0001)\n"
    assert desk.run("list").stdout == "no intents\n"


def test_migrate_makes_a_sqlite_ledger_too(desk, tmp_path):
    desk.run("migrate")

    with sqlite3.connect(tmp_path / "ledger.db") as ledger:
        names = {name for (name,) in ledger.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"axme_intents", "axme_events", "axme_outbox"} <= names


def test_migrate_with_sql_only_prints_it(desk, postgres_url):
    """For those who let nobody but themselves change a database."""
    desk.app.conf.axme_ledger_url = postgres_url

    assert "CREATE TABLE axme_intents" in desk.run("migrate", "--sql").stdout

    assert "brought from nothing" in desk.run("migrate").stdout, "nothing had been changed"


def test_migrate_says_that_the_database_is_away(desk, tmp_path):
    """Code 4."""
    desk.app.conf.axme_ledger_url = f"sqlite:///{tmp_path}/no/such/folder/ledger.db"

    desk.run("migrate", code=4)


# -- sweep --


def test_sweep_does_what_is_due_and_says_what(desk):
    """An intent whose deadline has passed ends, without beat or worker."""
    intent = desk.submit("doors.add", 1, 2, deadline="1ms")

    until(
        lambda: "timers 1" in desk.run("sweep").stdout or intent.refresh().status == "TIMED_OUT",
        "sweep of the deadline",
    )

    assert intent.refresh().status == "TIMED_OUT"
    assert desk.json("sweep").keys() <= {"refilled"}


def test_sweep_from_cron_does_all_that_is_due_however_long_it_takes(desk, monkeypatch):
    """The next may be a minute away."""
    intents = [desk.submit("doors.add", 1, 2, deadline="1ms") for _ in range(5)]
    clock = itertools.count(step=3600)
    monkeypatch.setattr(brooms, "BATCH", 2)
    monkeypatch.setattr(brooms, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    # The tracker is told of the deadlines in the background.
    until(lambda: desk.axme.drain(1), "drain")
    desk.run("sweep")

    assert {intent.refresh().status for intent in intents} == {"TIMED_OUT"}


def test_sweep_sends_what_nobody_sent(desk, private_redis):
    """A message that could not leave when its intent was submitted leaves with the next sweep."""
    broken = desk.another(broker_url=private_redis.url, broker_connection_timeout=1)
    private_redis.kill()
    intent = broken.axme.submit(broken.app.signature("doors.add", args=(1, 2)))
    assert broken.axme.drain(20)
    with desk.app.connection_for_read() as connection:
        arrived = functools.partial(connection.default_channel.basic_get, desk.config["task_default_queue"])
        assert arrived() is None
        message = until(lambda: desk.run("sweep") and arrived(), "sweep that sends it")
    assert message.headers["axme"] == {"intent": intent.id, "run": 1}


def test_rebuild_fills_a_tracker_from_the_ledger(desk):
    """Whatever was in it: it is an index."""
    rt = desk.axme.runtime
    intent = desk.submit("doors.add", 1, 2, deadline="30s")
    rt.tracker.put_progress("stale", 1, 2, None)
    taken = rt.tracker.take(rt.ledger.now() + timedelta(hours=1), 0.001, 10)
    rt.tracker.unschedule([(timer.kind, timer.id) for timer in taken])

    assert desk.json("sweep", "--rebuild")["refilled"] == 1

    assert rt.tracker.progress(["stale"]) == {}
    (timer,) = rt.tracker.take(rt.ledger.now() + timedelta(hours=1), 1, 10)
    assert (timer.kind, timer.id) == ("intent", intent.id)


def test_a_sweep_with_nothing_to_do_says_so(desk):
    assert desk.run("sweep").stdout == "nothing was due\n"
    assert desk.json("sweep") == {}


def test_a_sweep_is_seen_by_the_others(desk):
    """So that a worker's keeper need not sweep, and the doctor knows."""
    desk.run("sweep")

    (name,) = desk.axme.runtime.tracker.ticks()
    assert name.startswith("cli@")


# -- prune --


@pytest.fixture
def old(desk):
    """Three ended intents, and one that is open."""
    ended = [desk.submit("doors.add", number, 0).cancel("enough") for number in range(3)]
    assert desk.axme.drain()
    return ended, desk.submit("doors.add", 9, 9)


def test_prune_deletes_what_ended_long_ago_and_nothing_else(desk, old):
    ended, alive = old
    assert "0 intents" in desk.run("prune", "--older-than", "1h").stdout

    assert desk.json("prune", "--older-than", "0")["pruned"] == 3

    assert [intent.id for intent in desk.axme.intents()] == [alive.id]
    desk.run("show", ended[0].id, code=3)


def test_a_dry_run_only_counts(desk, old):
    assert "3 intents would be deleted" in desk.run("prune", "--older-than", "0", "--dry-run").stdout

    assert len(list(desk.axme.intents())) == 4


def test_prune_deletes_in_batches(desk, old, monkeypatch):
    """However many there are, no transaction is long."""
    from axme_celery.cli import upkeep

    monkeypatch.setattr(upkeep, "BATCH", 2)

    result = desk.run("prune", "--older-than", "0")

    assert "3 intents were deleted" in result.stdout and "2 deleted so far" in result.stderr


def test_prune_goes_by_axme_retention(desk, old):
    assert desk.another(axme_retention="1h").json("prune")["pruned"] == 0

    soon = desk.another(axme_retention="1s")
    until(lambda: soon.run("prune") and len(list(desk.axme.intents())) == 1, "three that are older than a second")


def test_prune_without_an_age_deletes_nothing(desk, old):
    """There is no default age: history is not deleted by accident."""
    assert "--older-than" in desk.run("prune", code=2).stderr
    assert "no duration" in desk.run("prune", "--older-than", "old", code=2).stderr

    assert len(list(desk.axme.intents())) == 4


def test_what_has_an_open_dead_letter_stays(desk):
    """Somebody may still want to replay it."""
    intent = desk.submit("doors.add", 1, 2, deadline="1ms")
    until(lambda: desk.run("sweep") and intent.refresh().status == "TIMED_OUT", "end of the deadline")
    assert desk.axme.drain()

    assert desk.json("prune", "--older-than", "0")["pruned"] == 0

    desk.run("dead-letters", "discard", "--all", "-y")
    assert desk.json("prune", "--older-than", "0")["pruned"] == 1
