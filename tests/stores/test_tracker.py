"""The tracker: one suite, run on Redis, on PostgreSQL and on SQLite."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import MetaData

from axme_celery.ledger.engine import Engines
from axme_celery.tracker import Lease, Timer, open_tracker
from axme_celery.tracker.clock import to_microseconds, to_moment
from axme_celery.tracker.redis import RedisTracker
from axme_celery.tracker.sql import SqlTracker
from axme_celery.tracker.tables import tracker_tables

from .conftest import MovedClock

Tracker = RedisTracker | SqlTracker


@pytest.fixture(params=["redis", "sqlite", "sqlite in memory", "postgres"])
def open_one(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Tracker]]:
    """Opens trackers on one empty store: each call gives another, as another process would have."""
    opened: list[Tracker] = []
    redis_url, engines = None, Engines("sqlite://")
    match request.param:
        case "redis":
            redis_url = request.getfixturevalue("redis_url")
        case "sqlite":
            engines = Engines(f"sqlite:///{tmp_path}/ledger.db")
        case "postgres":
            engines = Engines(request.getfixturevalue("module_postgres_url"))
    metadata = MetaData()
    tracker_tables(metadata)
    metadata.create_all(engines.durable)
    namespace = uuid.uuid4().hex

    def opens(clock: Callable[[], datetime] | None = None) -> Tracker:
        tracker = open_tracker(redis_url, namespace, lambda: engines.durable, clock)
        opened.append(tracker)
        return tracker

    yield opens
    for tracker in opened:
        tracker.close()
    metadata.drop_all(engines.durable)
    engines.dispose()


@pytest.fixture
def tracker(open_one: Callable[..., Tracker], clock: MovedClock) -> Tracker:
    return open_one(clock)


def timers_due(clock: MovedClock, *seconds: float) -> list[Timer]:
    return [Timer("wait", f"w{n}", clock.now + timedelta(seconds=after)) for n, after in enumerate(seconds)]


# -- leases --


def test_a_lease_lapses_when_its_term_has_passed_unrenewed(tracker: Tracker, clock: MovedClock) -> None:
    """A worker silent for the whole term has lost its legs, not one moment earlier."""
    tracker.hold([Lease("a", 1), Lease("b", 3)], 15)

    clock.pass_seconds(14.999)
    assert tracker.lapsed(10) == []
    clock.pass_seconds(0.001)
    assert sorted(tracker.lapsed(10), key=str) == [Lease("a", 1), Lease("b", 3)]


def test_a_renewed_lease_does_not_lapse(tracker: Tracker, clock: MovedClock) -> None:
    """Renewing counts the term from now."""
    tracker.hold([Lease("a", 1), Lease("b", 1)], 15)
    clock.pass_seconds(10)
    tracker.hold([Lease("a", 1)], 15)
    clock.pass_seconds(10)

    assert tracker.lapsed(10) == [Lease("b", 1)]


def test_a_lapsed_lease_stays_until_it_is_released(tracker: Tracker, clock: MovedClock) -> None:
    """A sweeper that dies between seeing it and requeueing the leg loses nothing."""
    tracker.hold([Lease("a", 1)], 5)
    clock.pass_seconds(6)

    assert tracker.lapsed(10) == tracker.lapsed(10) == [Lease("a", 1)]
    tracker.release([Lease("a", 1), Lease("never held", 1)])
    assert tracker.lapsed(10) == []


def test_lapsed_leases_come_the_longest_past_first_and_never_more_than_asked(
    tracker: Tracker, clock: MovedClock
) -> None:
    """A backlog is worked off in order, in bites."""
    for term, leg_id in ((3, "c"), (1, "a"), (2, "b")):
        tracker.hold([Lease(leg_id, 1)], term)
    clock.pass_seconds(10)

    assert tracker.lapsed(2) == [Lease("a", 1), Lease("b", 1)]


def test_two_runs_of_one_leg_have_two_leases(tracker: Tracker, clock: MovedClock) -> None:
    """A zombie renewing its lost run does not keep the next run's lease alive."""
    tracker.hold([Lease("a", 1), Lease("a", 2)], 5)
    clock.pass_seconds(4)
    tracker.hold([Lease("a", 1)], 5)
    clock.pass_seconds(2)

    assert tracker.lapsed(10) == [Lease("a", 2)]


def test_after_a_flush_seeded_leases_get_one_last_term(tracker: Tracker, clock: MovedClock) -> None:
    """Losing the tracker must not take legs from workers that live, nor leave those of dead ones forever."""
    tracker.hold([Lease("alive", 1), Lease("dead", 1)], 15)
    tracker.clear()
    assert tracker.lapsed(10) == []

    assert tracker.seed([Lease("alive", 1), Lease("dead", 1)], 15) == 2
    clock.pass_seconds(10)
    tracker.hold([Lease("alive", 1)], 15)
    clock.pass_seconds(6)
    assert tracker.seed([Lease("alive", 1), Lease("dead", 1), Lease("new", 1)], 15) == 1

    assert tracker.lapsed(10) == [Lease("dead", 1)]


def test_holding_after_a_flush_revives_the_lease(tracker: Tracker, clock: MovedClock) -> None:
    """A worker never has to know that the tracker was lost."""
    tracker.hold([Lease("a", 1)], 15)
    tracker.clear()
    tracker.hold([Lease("a", 1)], 15)
    clock.pass_seconds(16)

    assert tracker.lapsed(10) == [Lease("a", 1)]


def test_seeding_never_lengthens_a_lease(tracker: Tracker, clock: MovedClock) -> None:
    """The slow broom seeds all running legs again and again; a dead worker's lease still ends."""
    tracker.hold([Lease("a", 1)], 5)
    for _ in range(5):
        tracker.seed([Lease("a", 1)], 60)
        clock.pass_seconds(1)

    assert tracker.lapsed(10) == [Lease("a", 1)]


def test_settling_releases_the_lease(tracker: Tracker, clock: MovedClock) -> None:
    """The end of a leg is one call."""
    tracker.hold([Lease("a", 1)], 5)
    tracker.tell({"intent": 7}, [Lease("a", 1)])
    clock.pass_seconds(6)

    assert tracker.lapsed(10) == []


def test_strange_task_ids_come_back_whole(tracker: Tracker, clock: MovedClock) -> None:
    """A leg's id is a Celery task id, and callers may choose those."""
    strange = "täsk|with {all} 'of' it|7"
    tracker.hold([Lease(strange, 12)], 5)
    tracker.schedule([Timer("leg", strange, clock.now)])
    tracker.put_progress(strange, 1, None, None)
    clock.pass_seconds(6)

    assert tracker.lapsed(10) == [Lease(strange, 12)]
    assert [timer.id for timer in tracker.take(clock.now, 30, 10)] == [strange]
    assert set(tracker.progress([strange])) == {strange}


def test_the_store_s_own_clock_rules_where_none_is_given(open_one: Callable[..., Tracker]) -> None:
    """Leases end by the store's clock, whatever the workers' clocks say."""
    tracker = open_one()
    tracker.hold([Lease("short", 1)], 0.15)
    tracker.hold([Lease("long", 1)], 60)
    tracker.schedule([Timer("wait", "w", datetime.now(UTC))])
    assert tracker.lapsed(10) == []
    assert len(tracker.take(datetime.now(UTC), 0.15, 10)) == 1
    assert tracker.lock("broom", "one", 0.15)
    assert not tracker.lock("broom", "two", 0.15)
    tracker.tick("beat")
    tracker.put_progress("leg", 1, 2, None)

    time.sleep(0.2)

    assert tracker.lapsed(10) == [Lease("short", 1)]
    assert len(tracker.take(datetime.now(UTC), 60, 10)) == 1
    assert tracker.lock("broom", "two", 60)
    for moment in (tracker.ticks()["beat"], tracker.progress(["leg"])["leg"].at):
        assert abs(datetime.now(UTC) - moment) < timedelta(seconds=5)


# -- timers --


def test_timers_are_taken_when_due_in_order_and_unchanged(tracker: Tracker, clock: MovedClock) -> None:
    """What was scheduled comes back to the microsecond, the earliest first, nothing early."""
    late, soon, now = timers_due(clock, 2.000001, 2, 0)
    tracker.schedule([late, soon, now])

    assert tracker.take(clock.now + timedelta(seconds=2), 30, 10) == [now, soon]
    assert tracker.take(clock.now + timedelta(seconds=3), 30, 10) == [late]


def test_a_taken_timer_is_hidden_and_comes_back_by_itself(tracker: Tracker, clock: MovedClock) -> None:
    """A sweeper that dies with timers in its hands loses none of them."""
    timers = timers_due(clock, 0, 1)
    tracker.schedule(timers)
    until = clock.now + timedelta(seconds=1)

    assert tracker.take(until, 30, 10) == timers
    clock.pass_seconds(29.9)
    assert tracker.take(until, 30, 10) == []
    clock.pass_seconds(0.1)
    assert tracker.take(until, 30, 10) == timers
    assert tracker.take(until, 30, 10) == []


def test_an_unscheduled_timer_never_comes_back(tracker: Tracker, clock: MovedClock) -> None:
    """Seen or hidden, it is gone."""
    done, waiting = timers_due(clock, 0, 60)
    tracker.schedule([done, waiting])
    tracker.take(clock.now, 30, 10)

    tracker.unschedule([("wait", done.id), ("wait", waiting.id), ("wait", "never there")])
    clock.pass_seconds(3600)

    assert tracker.take(clock.now, 30, 10) == []


def test_a_timer_scheduled_again_while_hidden_takes_the_new_moment(tracker: Tracker, clock: MovedClock) -> None:
    """The next reminder of a wait is set while this one is in hand; the old moment is forgotten."""
    [timer] = timers_due(clock, 0)
    tracker.schedule([timer])
    tracker.take(clock.now, 30, 10)

    sooner, later = (Timer("wait", timer.id, clock.now + timedelta(seconds=after)) for after in (5, 100))
    tracker.schedule([sooner])
    clock.pass_seconds(5)
    assert tracker.take(clock.now, 30, 10) == [sooner]

    tracker.schedule([later])
    clock.pass_seconds(31)
    assert tracker.take(clock.now, 30, 10) == []
    clock.pass_seconds(64)
    assert tracker.take(clock.now, 30, 10) == [later]


def test_scheduling_again_moves_a_timer(tracker: Tracker, clock: MovedClock) -> None:
    """One moment for each thing that waits."""
    [timer] = timers_due(clock, 0)
    moved = Timer("wait", timer.id, clock.now + timedelta(seconds=10))
    tracker.schedule([timer])
    tracker.schedule([timer, moved])

    assert tracker.take(clock.now, 30, 10) == []
    clock.pass_seconds(10)
    assert tracker.take(clock.now, 30, 10) == [moved]


def test_refilling_sets_what_is_unknown_and_moves_nothing(tracker: Tracker, clock: MovedClock) -> None:
    """The slow broom refills from the ledger, perhaps behind its time: a taken timer stays with its taker."""
    taken, known, lost = timers_due(clock, 0, 10, 0)
    tracker.schedule([taken, known])
    tracker.take(clock.now, 30, 10)

    tracker.refill([taken, Timer("wait", known.id, clock.now), lost])
    assert tracker.take(clock.now, 30, 10) == [lost]
    clock.pass_seconds(10)
    assert tracker.take(clock.now, 30, 10) == [known]
    clock.pass_seconds(20)
    assert taken in tracker.take(clock.now, 30, 10)


def test_timers_of_different_kinds_do_not_meet(tracker: Tracker, clock: MovedClock) -> None:
    """A leg and a wait may have the same id."""
    timers = [Timer(kind, "same", clock.now) for kind in ("intent", "leg", "wait")]
    tracker.schedule(timers)
    tracker.unschedule([("leg", "same")])

    assert [timer.kind for timer in tracker.take(clock.now, 30, 10)] == ["intent", "wait"]


def test_a_timer_taken_far_ahead_comes_back_as_soon_as_any(tracker: Tracker, clock: MovedClock) -> None:
    """Hiding is counted from now: one sweep looking far ahead, by mistake or a wrong clock, hides nothing for long."""
    [timer] = timers_due(clock, 3600)
    tracker.schedule([timer])

    assert tracker.take(clock.now + timedelta(days=365), 30, 10) == [timer]
    clock.pass_seconds(31)
    assert tracker.take(clock.now, 30, 10) == []
    assert tracker.take(clock.now + timedelta(hours=1), 30, 10) == [timer]


def test_a_large_backlog_that_comes_back_is_taken_in_bites(tracker: Tracker, clock: MovedClock) -> None:
    """A sweeper that died holding many timers costs the next ones no more than their limit at a time."""
    timers = timers_due(clock, *range(-9, 1))
    tracker.schedule(timers)
    assert tracker.take(clock.now, 30, 10) == timers
    clock.pass_seconds(30)

    taken = [timer for _ in range(4) for timer in tracker.take(clock.now, 30, 3)]
    assert sorted(taken, key=lambda timer: timer.due_at) == timers


def test_the_last_moment_there_is_can_be_scheduled(tracker: Tracker, clock: MovedClock) -> None:
    """A wait without an end breaks nothing."""
    tracker.schedule([Timer("wait", "forever", datetime.max.replace(tzinfo=UTC))])

    assert tracker.take(clock.now, 30, 10) == []
    [forever] = tracker.take(datetime.max.replace(tzinfo=UTC), 30, 10)
    assert forever.due_at.year == 9999


def test_no_timer_is_taken_twice_within_its_hold(open_one: Callable[..., Tracker], clock: MovedClock) -> None:
    """Five beats are as good as one."""
    timers = timers_due(clock, *range(-400, 0))
    open_one(clock).schedule(timers)
    start = threading.Barrier(5)

    def sweep() -> list[Timer]:
        tracker = open_one(clock)
        start.wait()
        taken, empty = [], 0
        # A take may come back empty while another holds the rows it would have taken: look twice more.
        while empty < 3:
            bite = tracker.take(clock.now, 30, 7)
            taken += bite
            empty = 0 if bite else empty + 1
        return taken

    with ThreadPoolExecutor(5) as pool:
        taken = [timer for sweeper in [pool.submit(sweep) for _ in range(5)] for timer in sweeper.result()]

    assert sorted(taken, key=lambda timer: timer.due_at) == timers


def test_a_hundred_thousand_timers_are_taken_in_bites_that_stay_small(
    tracker: Tracker, clock: MovedClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A take costs what it takes, not what else waits or is hidden."""
    waiting = [Timer("wait", f"later-{n}", clock.now + timedelta(hours=1, seconds=n)) for n in range(50_000)]
    due = [Timer("wait", f"due-{n}", clock.now - timedelta(milliseconds=n)) for n in range(50_000)]
    began = time.monotonic()
    tracker.schedule(waiting + due)
    scheduled = time.monotonic() - began

    taken, seconds = [], []
    for _ in range(100):
        began = time.monotonic()
        taken.append(tracker.take(clock.now, 300, 500))
        seconds.append(time.monotonic() - began)

    with capsys.disabled():
        print(
            f"\n{type(tracker).__name__}: 100,000 scheduled in {scheduled:.2f} s; take(500) of 50,000 due: "
            f"first {seconds[0] * 1000:.1f} ms, last {seconds[-1] * 1000:.1f} ms, longest {max(seconds) * 1000:.1f} ms"
        )
    assert [timer for bite in taken for timer in bite] == due[::-1]
    assert tracker.take(clock.now, 300, 500) == []


def test_any_order_of_doings_gives_what_the_words_say(open_one: Callable[..., Tracker], clock: MovedClock) -> None:
    """A thousand random calls, moments and clock moves against a model of a few lines."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    tracker = open_one(clock)
    due: dict[tuple[str, str], datetime] = {}
    hidden_until: dict[tuple[str, str], datetime] = {}
    ends: dict[Lease, datetime] = {}

    for _ in range(1000):
        some = [("wait", str(dice.randrange(12))) for _ in range(dice.randrange(1, 4))]
        leases = [Lease(dice.choice("abcdef"), dice.randrange(1, 3)) for _ in range(dice.randrange(1, 4))]
        term = dice.randrange(1, 40)
        match dice.randrange(10):
            case 0 | 1:
                moments = {key: clock.now + timedelta(seconds=dice.uniform(-20, 60)) for key in some}
                tracker.schedule([Timer(*key, moment) for key, moment in moments.items()])
                due.update(moments)
                for key in some:
                    hidden_until.pop(key, None)
            case 2:
                tracker.unschedule(some)
                for key in some:
                    due.pop(key, None)
                    hidden_until.pop(key, None)
            case 3 | 4:
                until = clock.now + timedelta(seconds=dice.uniform(-5, 5))
                seen = [key for key in due if hidden_until.get(key, clock.now) <= clock.now]
                expected = sorted((due[key], *key) for key in seen if due[key] <= until)
                assert tracker.take(until, term, 100) == [Timer(kind, id, at) for at, kind, id in expected]
                hidden_until.update({(kind, id): clock.now + timedelta(seconds=term) for _, kind, id in expected})
            case 5:
                tracker.hold(leases, term)
                ends.update(dict.fromkeys(leases, clock.now + timedelta(seconds=term)))
            case 6:
                tracker.seed(leases, term)
                ends = {**dict.fromkeys(leases, clock.now + timedelta(seconds=term)), **ends}
            case 7:
                tracker.release(leases)
                ends = {lease: end for lease, end in ends.items() if lease not in leases}
            case 8:
                moments = {key: clock.now + timedelta(seconds=dice.uniform(-20, 60)) for key in some}
                tracker.refill([Timer(*key, moment) for key, moment in moments.items()])
                due = {**moments, **due}
            case 9:
                clock.pass_seconds(dice.uniform(0, 15))
        assert set(tracker.lapsed(100)) == {lease for lease, end in ends.items() if end <= clock.now}


# -- live notices --


def test_listening_ends_by_itself(tracker: Tracker) -> None:
    """No notice, no hang."""
    began = time.monotonic()
    assert tracker.listen("quiet", 0.1, after=0) is False
    assert tracker.listen("quiet", 0, after=0) is False
    assert time.monotonic() - began < 1


def test_telling_nobody_is_nothing(tracker: Tracker) -> None:
    """Most notices are heard by no one."""
    tracker.tell({"unheard": 1})


# -- progress --


def test_progress_is_what_was_said_last(tracker: Tracker, clock: MovedClock) -> None:
    """With the moment it was said; what said nothing is left out."""
    tracker.put_progress("a", 46, 50, "page 46")
    clock.pass_seconds(1)
    tracker.put_progress("a", 47, 50, "page 47, 'Ünïcode'")
    tracker.put_progress("b", 0.5, None, None)

    found = tracker.progress(["a", "b", "silent"])

    assert set(found) == {"a", "b"}
    assert (found["a"].done, found["a"].total, found["a"].note) == (47, 50, "page 47, 'Ünïcode'")
    assert found["a"].at == clock.now
    assert (found["b"].done, found["b"].total, found["b"].note) == (0.5, None, None)
    assert tracker.progress([]) == {}


def test_progress_is_forgotten_after_a_day(tracker: Tracker, clock: MovedClock) -> None:
    """It is for eyes; nothing keeps it."""
    tracker.put_progress("a", 1, 2, None)
    clock.pass_seconds(86_399)
    assert set(tracker.progress(["a"])) == {"a"}
    clock.pass_seconds(1)
    assert tracker.progress(["a"]) == {}


def test_progress_of_very_many_legs_is_read_at_once(tracker: Tracker) -> None:
    """A group of thousands fits the page that shows it."""
    tracker.put_progress("leg-2999", 1, 1, None)
    assert set(tracker.progress([f"leg-{n}" for n in range(3000)])) == {"leg-2999"}


# -- sweepers --


def test_sweepers_are_remembered_for_an_hour(tracker: Tracker, clock: MovedClock) -> None:
    """How doctor sees that no beat runs, or several."""
    tracker.tick("gone")
    clock.pass_seconds(3000)
    tracker.tick("beat")
    assert set(tracker.ticks()) == {"gone", "beat"}
    clock.pass_seconds(600)
    tracker.tick("beat")

    assert tracker.ticks() == {"beat": clock.now}
    clock.pass_seconds(3600)
    assert tracker.ticks() == {}


def test_a_lock_has_one_owner_until_it_ends(tracker: Tracker, clock: MovedClock) -> None:
    """Its owner renews it; another gets it when it has run out."""
    assert tracker.lock("timers", "one:1", 10)
    assert not tracker.lock("timers", "two:2", 10)
    assert tracker.lock("leases", "two:2", 10)
    clock.pass_seconds(9)
    assert tracker.lock("timers", "one:1", 10)
    clock.pass_seconds(9)
    assert not tracker.lock("timers", "two:2", 10)
    clock.pass_seconds(1)
    assert tracker.lock("timers", "two:2", 10)
    assert not tracker.lock("timers", "one:1", 10)


# -- the store --


def test_clearing_forgets_everything(tracker: Tracker, clock: MovedClock) -> None:
    """And nothing that is not there trips it."""
    tracker.hold([Lease("a", 1)], 1)
    tracker.schedule(timers_due(clock, 0, 1))
    tracker.take(clock.now, 10, 1)
    tracker.put_progress("a", 1, 1, None)
    tracker.tick("beat")
    tracker.lock("timers", "one", 100)

    tracker.clear()
    tracker.clear()

    clock.pass_seconds(60)
    assert tracker.lapsed(10) == []
    assert tracker.take(clock.now, 10, 10) == []
    assert tracker.progress(["a"]) == {}
    assert tracker.ticks() == {}
    assert tracker.lock("timers", "two", 1)


def test_nothing_to_do_is_done(tracker: Tracker) -> None:
    """Empty lists are no special case for a caller."""
    tracker.hold([], 5)
    tracker.seed([], 5)
    tracker.release([])
    tracker.schedule([])
    tracker.refill([])
    tracker.unschedule([])
    tracker.ping()
    assert tracker.eviction_policy() == "noeviction"


def test_a_closed_tracker_opens_again_when_used(tracker: Tracker) -> None:
    """Closing gives connections back; it ends nothing."""
    tracker.close()
    tracker.ping()


def test_moments_survive_the_way_there_and_back() -> None:
    """Exact in whole microseconds, clamped at the calendar's end."""
    for moment in (datetime(1970, 1, 1, tzinfo=UTC), datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)):
        assert to_moment(to_microseconds(moment)) == moment
        assert to_moment(str(float(to_microseconds(moment)))) == moment
    assert to_moment(1e300).year == 9999
