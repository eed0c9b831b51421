"""The doctor: every check on made-up facts, and the facts themselves from real servers."""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from axme_celery import doctor, facts
from axme_celery.doctor import CHECKS, Facts, Finding, Level, diagnose
from axme_celery.ledger.migrate import upgrade

from .command_line import desk_fixture, served_fixture, until  # noqa: F401

#: A project with nothing wrong: whatever a test changes in it is what a check is to find.
HEALTHY = Facts(
    secret_characters=43, result_backend="redis", visibility_timeout_seconds=3600.0, broker_eviction="noeviction",
    ledger_revision="0001", ledger_head="0001", clock_offset_seconds=0.0, hosts=("a",), tracker="redis",
    tracker_eviction="noeviction", tracker_offset_seconds=0.0, sweepers={"gen7@a": 0.4},
)  # fmt: skip

#: What makes tasks that no worker takes.
UNREAD = (("task_serializer", "pickle", "accept_content"),)


def found(about: str, **changed: object) -> Finding | None:
    """What is said about one thing when these facts differ from a healthy project's."""
    told = {finding.about: finding for finding in diagnose(dataclasses.replace(HEALTHY, **changed))}
    return told.get(about)


# -- the checks ----------------------------------------------------------------------


def test_a_healthy_project_is_told_so():
    """Nothing but OK, and nothing to change."""
    findings = diagnose(HEALTHY)

    assert {finding.level for finding in findings} == {Level.OK}
    assert all(finding.change is None for finding in findings)
    assert len(findings) >= 12


def test_every_check_can_find_something():
    """Each of them is wired, and each of the facts of a sick project is noticed."""
    sick = Facts(
        tick_seconds=1, lease_seconds=2, secret_characters=8,
        accept_content=("json", "pickle"), task_always_eager=True, result_backend="rpc", broker_error="refused",
        visibility_timeout_seconds=1.0, broker_eviction="allkeys-lru", ledger="sqlite", ledger_revision="0001",
        ledger_head="0001", clock_offset_seconds=60, overdue_seconds=600, outbox_due=3, outbox_lag_seconds=600,
        parked_legs=1, open_dead_letters=2, hosts=("a", "b"), tracker_error="refused", tracker="redis",
        tracker_eviction="volatile-ttl",
    )  # fmt: skip
    refused, late = Facts(settings_error="unknown setting axme_x"), Facts(ledger_revision="0001", ledger_head="0002")

    apart = {doctor.settings: refused, doctor.ledger: late}
    findings = {check(apart.get(check, sick)) for check in CHECKS if check is not doctor.sweepers}

    assert None not in findings
    assert all(f is not None and f.level is not Level.OK and f.change for f in findings)


@pytest.mark.parametrize(
    ("about", "changed", "level", "said"),
    [
        ("settings", {"settings_error": "unknown setting axme_x"}, Level.PROBLEM, "axme_x"),
        ("lease", {"lease_seconds": 2.0, "tick_seconds": 1.0}, Level.WARNING, "three ticks"),
        ("secret", {"secret_characters": None}, Level.WARNING, "not set"),
        ("secret", {"secret_characters": 31}, Level.PROBLEM, "31 characters"),
        ("eager", {"task_always_eager": True}, Level.PROBLEM, "none becomes an intent"),
        ("serializers", {"accept_content": ("json", "pickle")}, Level.PROBLEM, "accept_content takes pickle"),
        ("serializers", {"accept_content": ("application/x-python-serialize",)}, Level.PROBLEM, "pickle"),
        ("serializers", {"result_accept_content": ("pickle",)}, Level.PROBLEM, "result_accept_content"),
        ("serializers", {"accept_content": ("json", "yaml")}, Level.WARNING, "yaml"),
        ("serializers", {"unaccepted": UNREAD}, Level.PROBLEM, "task_serializer is pickle"),
        ("results", {"result_backend": None}, Level.OK, "no result backend"),
        ("results", {"result_backend": "rpc"}, Level.WARNING, "intents outlive it"),
        ("results", {"longest_wait_seconds": 2e5, "result_backend": "db+postgresql"}, Level.WARNING, "never fire its body"),
        ("results", {"longest_wait_seconds": 2 * 86400.0}, Level.WARNING, "reads PENDING until the intent ends"),
        ("broker", {"broker_error": "Connection refused"}, Level.PROBLEM, "Connection refused"),
        ("visibility timeout", {"longest_countdown": ("mail", 7200.0)}, Level.PROBLEM, "mail is due in 2h"),
        ("visibility timeout", {"longest_countdown": ("mail", 60.0)}, Level.OK, "1h"),
        ("visibility timeout", {"visibility_timeout_seconds": 10.0}, Level.WARNING, "acks_late"),
        ("broker memory", {"broker_eviction": "allkeys-lru"}, Level.PROBLEM, "allkeys-lru"),
        ("tracker memory", {"tracker_eviction": "volatile-lru"}, Level.PROBLEM, "leases and timers"),
        ("ledger", {"ledger_error": "refused"}, Level.PROBLEM, "refused"),
        ("ledger", {"ledger_revision": None}, Level.PROBLEM, "migrate"),
        ("ledger", {"ledger_revision": "0001", "ledger_head": "0002"}, Level.PROBLEM, "needs 0002"),
        ("ledger", {"ledger_revision": "0003", "ledger_head": "0002"}, Level.OK, "0003"),
        ("ledger", {"ledger": "sqlite", "ledger_revision": None}, Level.OK, "at the first use"),
        ("hosts", {"ledger": "sqlite", "hosts": ("a", "b")}, Level.PROBLEM, "a, b"),
        ("clocks", {"clock_offset_seconds": 0.4}, Level.OK, "400ms"),
        ("clocks", {"clock_offset_seconds": 5.0}, Level.WARNING, "this host is 5s ahead of"),
        ("clocks", {"clock_offset_seconds": -20.0}, Level.PROBLEM, "this host is 20s behind"),
        ("clocks", {"tracker_offset_seconds": 5.0}, Level.WARNING, "Redis is 5s ahead of"),
        ("tracker", {"tracker_error": "refused"}, Level.PROBLEM, "refused"),
        ("beat", {"sweepers": {}}, Level.PROBLEM, "nobody has swept within the last hour"),
        ("beat", {"sweepers": {"gen7@a": 100.0}}, Level.PROBLEM, "for 1m 40s"),
        ("beat", {"sweepers": {"gen7@a": 1.0, "gen8@b": 2.0}}, Level.WARNING, "several beats"),
        ("beat", {"sweepers": {"gen7@a": 1.0, "gen8@b": 100.0}}, Level.OK, "gen7@a swept 1s ago"),
        ("beat", {"sweepers": {"gen7@a": 1.0, "keeper@a:9": 1.0}}, Level.OK, "gen7@a"),
        ("beat", {"sweepers": {"keeper@a:9": 1.0}}, Level.WARNING, "no beat"),
        ("beat", {"sweepers": {"cli@a:9": 1.0}}, Level.WARNING, "no beat"),
        ("timers", {"overdue_seconds": 300.0}, Level.WARNING, "overdue by 5m"),
        ("timers", {"overdue_seconds": 3.0}, Level.OK, "none"),
        ("outbox", {"outbox_due": 7, "outbox_lag_seconds": 300.0}, Level.WARNING, "7 deliveries"),
        ("parked", {"parked_legs": 2}, Level.WARNING, "decides: 2"),
        ("dead letters", {"open_dead_letters": 4}, Level.WARNING, "open: 4"),
    ],
)  # fmt: skip
def test_a_misconfiguration_is_found_and_named(about, changed, level, said):
    """At its level; and whatever is not OK says what to change."""
    finding = found(about, **changed)

    assert finding is not None and finding.level is level
    assert said in finding.found + (finding.change or "")
    assert (finding.change is None) == (level is Level.OK)


def test_a_long_wait_is_no_danger_to_results_that_outlive_it():
    """result_expires longer than it, or none at all; the sweep saves the chord on Redis, not AsyncResult."""
    wait = 2 * 86400.0
    for expires in (3 * 86400.0, None):
        assert found("results", longest_wait_seconds=wait, result_expires_seconds=expires).level is Level.OK

    on_redis = found("results", longest_wait_seconds=wait)
    raised = found("results", longest_wait_seconds=wait, result_backend="db", result_chord_expires_seconds=wait)

    for finding in (on_redis, raised):
        assert finding.level is Level.WARNING and "chord" not in finding.found + finding.change


def test_what_does_not_apply_is_not_mentioned():
    """No visibility timeout on RabbitMQ, no eviction without Redis, one host of SQLite, a lease of many ticks."""
    told = {f.about for f in diagnose(dataclasses.replace(
        HEALTHY, broker="amqp", visibility_timeout_seconds=None, broker_eviction=None, tracker="sql", ledger="sqlite",
        tracker_eviction=None,
    ))}  # fmt: skip

    assert told.isdisjoint(
        {"visibility timeout", "broker memory", "tracker memory", "hosts", "lease", "eager", "parked"}
    )


def test_an_unreachable_ledger_is_said_once():
    """What cannot be known without it is not guessed at."""
    told = diagnose(dataclasses.replace(HEALTHY, ledger_error="refused", overdue_seconds=0.0))

    assert {f.about for f in told}.isdisjoint({"beat", "timers", "outbox"})


#: What is known only from a ledger that can be read, and so are not the secret and the lease: from settings that can.
OF_THE_LEDGER = {"tracker", "tracker memory", "beat", "timers", "outbox"}


@pytest.mark.parametrize(
    ("changed", "untold"),
    [
        ({"settings_error": "unknown setting axme_x", "ledger_revision": None}, {*OF_THE_LEDGER, "ledger", "secret"}),
        ({"ledger_error": "refused", "ledger_revision": None}, OF_THE_LEDGER),
        ({"ledger_revision": None}, OF_THE_LEDGER),
        ({"ledger_head": "0002"}, OF_THE_LEDGER),
        ({"tracker": "sql"}, {"tracker memory"}),
    ],
    ids=["settings refused", "no ledger", "no tables", "old tables", "no redis"],
)
def test_nothing_is_said_to_be_well_that_was_not_looked_at(changed, untold):
    """An OK is worth something."""
    assert {f.about for f in diagnose(dataclasses.replace(HEALTHY, **changed))}.isdisjoint(untold)


# -- the facts, from real servers --------------------------------------------------------


def test_a_running_project_has_no_problems(served):
    """Worker and beat run: the doctor ends with 0 and names the beat."""
    served.reach(served.submit("doors.add", 1, 1), "COMPLETED")

    result = served.run("doctor")

    assert "problems: 0" in result.stdout
    assert "PROBLEM" not in result.stdout
    assert "redis answers" in result.stdout and "sqlite answers, its tables are at 0001" in result.stdout
    assert "swept" in result.stdout and "this host" in result.stdout


def test_with_json_findings_and_facts_are_one_document(served):
    served.reach(served.submit("doors.add", 1, 1), "COMPLETED")

    document = served.json("doctor")

    assert {f["about"] for f in document["findings"]} >= {"broker", "ledger", "tracker", "beat", "clocks", "secret"}
    gathered = document["facts"]
    assert gathered["visibility_timeout_seconds"] == 3600 and gathered["broker_eviction"] == "noeviction"
    assert len(gathered["hosts"]) == 1 and len(gathered["sweepers"]) >= 1
    assert abs(gathered["clock_offset_seconds"]) < 0.5 and abs(gathered["tracker_offset_seconds"]) < 0.5


def test_the_doctor_ends_with_1_on_a_problem(desk):
    """Here: nobody sweeps."""
    desk.submit("doors.add", 1, 1)

    result = desk.run("doctor", code=1)

    assert "PROBLEM  beat" in result.stdout and "-> run celery" in result.stdout


def test_the_doctor_changes_nothing(desk):
    """It does not even make a SQLite ledger."""
    result = desk.run("doctor")

    assert "made at the first use" in result.stdout
    assert not (desk.folder / "ledger.db").exists()


def test_settings_that_are_refused_are_a_finding(desk):
    wrong = desk.another(axme_lease_second=5)

    out = wrong.run("doctor", code=1).stdout
    assert "did you mean axme_lease_seconds" in out and "problems: 1," in out


def test_servers_that_are_away_are_findings(desk, private_redis, tmp_path):
    """Broker, tracker and ledger each, in words and within seconds."""
    away = desk.another(broker_url=private_redis.url, result_backend=private_redis.url)
    assert away.axme.runtime.ledger.intents({}, None, 1) == []
    private_redis.kill()

    out = away.run("doctor", code=1).stdout

    assert "PROBLEM  broker" in out and "PROBLEM  tracker" in out
    lost = desk.another(axme_ledger_url="postgresql+psycopg://nobody@127.0.0.1:1/none")
    assert "PROBLEM  ledger" in lost.run("doctor", code=1).stdout


def test_a_broker_that_hangs_is_a_finding_not_a_hang(desk, private_redis, monkeypatch):
    """Accepting connections and saying nothing."""
    monkeypatch.setattr(facts, "ASK_SECONDS", 1.0)
    hung = desk.another(broker_url=private_redis.url, axme_redis_url=desk.config["broker_url"])
    with private_redis.paused():
        began = time.monotonic()
        found = facts.gather(hung.axme)

    assert "no answer within 1 seconds" in found.broker_error
    assert time.monotonic() - began < 10


def test_a_redis_that_evicts_is_found(desk, private_redis):
    """As broker and as tracker."""
    private_redis.admin.config_set("maxmemory-policy", "allkeys-lru")
    evicting = desk.another(broker_url=private_redis.url)
    evicting.axme.runtime.ledger.now()
    assert list(evicting.axme.intents()) == []

    out = evicting.run("doctor", code=1).stdout

    assert "PROBLEM  broker memory" in out and "PROBLEM  tracker memory" in out and "allkeys-lru" in out


@pytest.mark.parametrize("prefix", ["", "shop:"], ids=["plain", "prefixed"])
def test_a_countdown_that_outlives_the_visibility_timeout_is_found(desk, private_redis, prefix):
    """Of a message that a worker holds until it is due: the broker will hand it out again before."""
    options = {"visibility_timeout": 1800, "global_keyprefix": prefix}
    held = desk.another(broker_url=private_redis.url, broker_transport_options=options)
    held.app.tasks["doors.plain"].apply_async(countdown=7200)
    with held.app.connection_for_read() as connection:
        message = connection.default_channel.basic_get(desk.config["task_default_queue"])
        assert message is not None  # taken and not acknowledged, as a worker does

        found = facts.gather(held.axme)

    task, countdown = found.longest_countdown
    assert task == "doors.plain" and 7100 < countdown <= 7200
    assert found.visibility_timeout_seconds == 1800
    assert doctor.visibility_timeout(found).level is Level.PROBLEM


def test_a_countdown_on_the_beat_schedule_is_found(desk):
    schedule = {"nightly": {"task": "doors.plain", "schedule": 60.0, "options": {"countdown": 9000}}}

    assert facts.gather(desk.another(beat_schedule=schedule).axme).longest_countdown == ("doors.plain", 9000.0)
    # Of a task whose calls are intents the ledger keeps it.
    named = desk.another(beat_schedule=schedule, axme_tasks=["doors.*"])
    assert facts.gather(named.axme).longest_countdown is None


def test_a_postgresql_that_is_not_migrated_is_found(desk, postgres_url):
    late = desk.another(axme_ledger_url=postgres_url)
    assert "run: axme-celery -A yourproject migrate" in late.run("doctor", code=1).stdout

    upgrade(postgres_url)

    assert "postgresql answers" in late.run("doctor", code=1).stdout  # nobody sweeps
    assert abs(facts.gather(late.axme).clock_offset_seconds) < 0.5


def test_a_clock_that_is_wrong_is_found(desk, postgres_url, monkeypatch):
    """This host's, held against the database's."""
    upgrade(postgres_url)

    class Fast(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(seconds=90)

    monkeypatch.setattr(facts, "datetime", Fast)

    offset = facts.gather(desk.another(axme_ledger_url=postgres_url).axme).clock_offset_seconds

    assert 89 < offset < 91


def test_hosts_are_those_of_legs_and_of_sweepers(desk):
    """A SQLite ledger that two hosts use is seen, though each looks well from where it runs."""
    desk.submit("doors.add", 1, 1)
    ledger = desk.axme.runtime.ledger
    with ledger.engines.connect() as connection, connection.begin():
        connection.execute(text("UPDATE axme_legs SET worker = 'node-1:123'"))
    desk.axme.runtime.tracker.tick("gen99@node-2")
    desk.axme.runtime.tracker.tick("keeper@node-3:17")

    found = facts.gather(desk.axme)

    assert found.hosts == ("node-1", "node-2", "node-3")
    assert doctor.one_host_of_sqlite(found).level is Level.PROBLEM


def test_how_the_work_goes_is_read_from_the_ledger(desk):
    """Overdue timers, what is held up, letters, parked legs, the longest wait."""
    intents = [desk.submit("doors.add", number, 0) for number in range(2)]
    ledger = desk.axme.runtime.ledger
    now = ledger.now()

    def write(statement: str, **values: object) -> None:
        with ledger.engines.connect() as connection, connection.begin():
            connection.execute(text(statement), values)

    def at(**ago: float) -> str:
        return f"{now - timedelta(**ago):%Y-%m-%d %H:%M:%S.%f}"

    write("UPDATE axme_intents SET deadline_at = :at WHERE id = :id", at=at(minutes=5), id=intents[0].id)
    write("UPDATE axme_legs SET status = 'PARKED' WHERE intent_id = :id", id=intents[1].id)
    write(
        "INSERT INTO axme_outbox (id, kind, intent_id, run, body, next_at, attempts)"
        " VALUES ('o', 'NOTICE', :id, 0, '{}', :at, 0)",
        id=intents[0].id, at=at(minutes=3),
    )  # fmt: skip
    write(
        "INSERT INTO axme_dead_letters (id, kind, intent_id, code, reason, at, state)"
        " VALUES ('d', 'leg', :id, 'c', 'r', :at, 'OPEN')",
        id=intents[1].id, at=at(),
    )  # fmt: skip
    write(
        'INSERT INTO axme_waits (id, intent_id, leg_id, name, nth, position, run, kind, status, title, request, "to",'
        " opened_at, timeout_at, reminders, votes, delegations, escalations)"
        " VALUES ('w', :id, 'l', 'n', 1, 0, 1, 'HUMAN', 'OPEN', 't', '{}', '[]',"
        " :opened, :timeout, 0, '[]', '[]', 0)",
        id=intents[1].id, opened=at(hours=1), timeout=at(days=-2),
    )  # fmt: skip

    found = facts.gather(desk.axme)

    assert 299 < found.overdue_seconds < 320
    assert found.outbox_due == 1 and 179 < found.outbox_lag_seconds < 200
    assert (found.parked_legs, found.open_dead_letters) == (1, 1)
    assert found.longest_wait_seconds == 2 * 86400 + 3600


def test_pickle_in_a_real_configuration_is_found(desk):
    unsafe = desk.another(accept_content=["json", "pickle"], result_accept_content=["json", "application/x-yaml"])

    finding = doctor.content(facts.gather(unsafe.axme))

    assert finding.level is Level.PROBLEM and "accept_content takes pickle" in finding.found and "yaml" in finding.found


def test_a_serializer_that_no_worker_accepts_is_found(desk):
    """By whichever name it is accepted: its own, or its content type's."""
    unread = facts.gather(desk.another(task_serializer="pickle", accept_content=["json"]).axme)
    taken = {"accept_content": ["application/x-python-serialize"], "result_accept_content": ["json"]}
    read = facts.gather(desk.another(task_serializer="pickle", **taken).axme)

    assert unread.unaccepted == UNREAD and read.unaccepted == ()
    finding = doctor.content(unread)
    assert finding.level is Level.PROBLEM and "no worker takes" in finding.found


def test_how_an_offset_is_measured():
    """Our clock ahead of theirs, behind it, and the same within the time that asking took."""
    before, after = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)

    assert facts._offset(before, after, before - timedelta(seconds=9)) == 9
    assert facts._offset(before, after, after + timedelta(seconds=9)) == -9
    assert facts._offset(before, after, before + timedelta(seconds=0.5)) == 0


def test_figures_are_the_same_from_postgresql(desk, postgres_url):
    """The queries are written once for both."""
    upgrade(postgres_url)
    desk.another(axme_ledger_url=postgres_url).submit("doors.add", 1, 1).cancel("no")

    found = facts.gather(desk.another(axme_ledger_url=postgres_url).axme)

    assert found.ledger_error is None and found.overdue_seconds == 0 and found.longest_wait_seconds == 0
    assert json.loads(json.dumps(dataclasses.asdict(found)))["ledger"] == "postgresql"
