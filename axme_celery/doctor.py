"""The doctor: what is wrong with how a project is set up, and what to change. Pure: it judges facts gathered elsewhere.

A check is a function of the facts. It returns a finding, or None where it does
not apply or its facts could not be had: an OK is only said of what was looked
at. So each is tested without a server, and read without knowing one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from .durations import words

#: A secret shorter than this can be guessed.
SECRET_CHARACTERS = 32
_NEW_SECRET = "set it to what this prints: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
#: A clock this far off is worth a word: plain Celery's ETAs are off by as much.
CLOCK_SECONDS = 1.0
#: Sweepers seen within so many ticks (and at least so many seconds) are at it now.
RECENT_TICKS, RECENT_SECONDS = 5, 10.0
#: Late by more than this many ticks (and at least so many seconds) is more than a busy moment.
LATE_TICKS, LATE_SECONDS = 5, 10.0


class Level(StrEnum):
    """How bad it is."""

    OK = "OK"
    WARNING = "WARNING"  # works, but not as one would think
    PROBLEM = "PROBLEM"  # promises are not kept, or will not be


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    level: Level
    #: What it is about, one word or two: "broker", "visibility timeout".
    about: str
    #: What is so.
    found: str
    #: What to change; None when nothing needs to be.
    change: str | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the checks look at. What could not be found out is None, with the error beside it."""

    # -- the configuration --
    #: Why the axme_* settings are refused, or None.
    settings_error: str | None = None
    tick_seconds: float = 1.0
    lease_seconds: float = 15.0
    #: Characters of axme_secret_key; None when not set.
    secret_characters: int | None = None
    accept_content: tuple[str, ...] = ("json",)
    result_accept_content: tuple[str, ...] = ("json",)
    #: (setting, serializer, setting that does not take it): what is sent and would not be read.
    unaccepted: tuple[tuple[str, str, str], ...] = ()
    task_always_eager: bool = False
    #: Scheme of the result backend ("redis", "rpc", "db+postgresql"); None when there is none.
    result_backend: str | None = None
    #: None: results do not expire.
    result_expires_seconds: float | None = 86400.0
    result_chord_expires_seconds: float | None = None

    # -- the broker --
    broker: str = "redis"
    broker_error: str | None = None
    #: Of brokers that have one.
    visibility_timeout_seconds: float | None = None
    #: (task, seconds) of the ordinary message that is due latest, or the beat entry with the longest countdown.
    longest_countdown: tuple[str, float] | None = None
    #: What the broker's Redis does when it is full; None when it is no Redis or does not say.
    broker_eviction: str | None = None

    # -- the ledger --
    #: "postgresql" or "sqlite".
    ledger: str = "postgresql"
    ledger_error: str | None = None
    ledger_revision: str | None = None
    #: The revision this version of the package needs; later ones will do.
    ledger_head: str | None = None
    #: This host's clock minus the ledger's, seconds.
    clock_offset_seconds: float | None = None
    overdue_seconds: float = 0.0
    outbox_due: int = 0
    outbox_lag_seconds: float = 0.0
    parked_legs: int = 0
    open_dead_letters: int = 0
    longest_wait_seconds: float = 0.0
    #: Hosts that ran legs lately or swept, as they name themselves.
    hosts: tuple[str, ...] = ()

    # -- the tracker --
    #: "redis" or "sql".
    tracker: str = "sql"
    tracker_error: str | None = None
    tracker_eviction: str | None = None
    #: The tracker's clock minus the ledger's, seconds.
    tracker_offset_seconds: float | None = None
    #: Sweeper -> seconds since its last sweep.
    sweepers: dict[str, float] = field(default_factory=dict)

    @property
    def ledger_is_read(self) -> bool:
        """Whether its figures, and the tracker, which is asked for by the ledger's id, are known at all."""
        revision, head = self.ledger_revision, self.ledger_head
        if self.settings_error is not None or self.ledger_error is not None:
            return False
        return revision is not None and head is not None and revision >= head


def diagnose(facts: Facts) -> list[Finding]:
    """What every check finds, in the order of ``CHECKS``."""
    return [finding for check in CHECKS if (finding := check(facts)) is not None]


# -- the configuration ---------------------------------------------------------


def settings(facts: Facts) -> Finding | None:
    """The axme_* settings can be read."""
    if facts.settings_error is not None:
        return Finding(
            Level.PROBLEM, "settings", facts.settings_error, "correct it; nothing of this extension runs before"
        )
    return Finding(Level.OK, "settings", "every axme_* setting is known and in range")


def lease(facts: Facts) -> Finding | None:
    """A lease outlasts a few ticks."""
    if facts.settings_error is not None or facts.lease_seconds >= 3 * facts.tick_seconds:
        return None
    return Finding(
        Level.WARNING, "lease",
        f"axme_lease_seconds ({words(facts.lease_seconds)}) is less than three ticks ({words(facts.tick_seconds)} each): "
        f"a live worker that is slow for a moment may lose its legs",
        "make axme_lease_seconds three times axme_tick_seconds or more",
    )  # fmt: skip


def secret(facts: Facts) -> Finding | None:
    """The history is sealed with a key that cannot be guessed."""
    if facts.settings_error is not None:
        return None
    if facts.secret_characters is None:
        return Finding(
            Level.WARNING, "secret",
            "axme_secret_key is not set: whoever can write the database can rewrite the history unnoticed",
            f"before the first intent, {_NEW_SECRET}; histories that ended before it is set are not protected by it",
        )  # fmt: skip
    if facts.secret_characters < SECRET_CHARACTERS:
        return Finding(
            Level.PROBLEM, "secret", f"axme_secret_key has {facts.secret_characters} characters, few enough to be guessed",
            _NEW_SECRET,
        )  # fmt: skip
    return Finding(Level.OK, "secret", f"axme_secret_key has {facts.secret_characters} characters")


def eager(facts: Facts) -> Finding | None:
    """Tasks run in workers."""
    if not facts.task_always_eager:
        return None
    return Finding(
        Level.PROBLEM, "eager", "task_always_eager is on: calls run at once in the caller, and none becomes an intent",
        "leave it out; for tests there is axme_celery.testing",
    )  # fmt: skip


def content(facts: Facts) -> Finding | None:
    """No message can run code, and each can be read."""
    taken = {
        "accept_content": _dangerous(facts.accept_content),
        "result_accept_content": _dangerous(facts.result_accept_content),
    }
    if bad := {setting: names for setting, names in taken.items() if names}:
        listed = "; ".join(f"{setting} takes {', '.join(names)}" for setting, names in bad.items())
        return Finding(
            Level.PROBLEM if any("pickle" in names for names in bad.values()) else Level.WARNING, "serializers",
            f"{listed}: whoever can write to the broker or the result backend can make that code in your workers",
            'use ["json"], and task_serializer and result_serializer "json"',
        )  # fmt: skip
    if facts.unaccepted:
        listed = "; ".join(
            f"{setting} is {name}, which {taker} does not take" for setting, name, taker in facts.unaccepted
        )
        return Finding(
            Level.PROBLEM, "serializers", f"{listed}: no worker takes such a task, no caller reads such a result",
            'use task_serializer and result_serializer "json"',
        )  # fmt: skip
    return Finding(Level.OK, "serializers", "only data is accepted, no pickle and no yaml")


def _dangerous(accepted: tuple[str, ...]) -> list[str]:
    found = set()
    for name in accepted:
        if "pickle" in name or "python-serialize" in name:
            found.add("pickle")
        elif "yaml" in name:
            found.add("yaml")
    return sorted(found)


def results(facts: Facts) -> Finding | None:
    """AsyncResult says what it seems to say."""
    backend, expires = facts.result_backend, facts.result_expires_seconds
    if backend is None:
        return Finding(
            Level.OK,
            "results",
            "no result backend: AsyncResult.get() cannot wait; intents keep their results in the ledger",
        )
    if backend.startswith("rpc"):
        return Finding(
            Level.WARNING, "results",
            "result backend rpc: only the process that submitted gets a result, and only while it lives; intents outlive it",
            "use a backend that keeps results (redis, a database), or read them from the intent",
        )  # fmt: skip
    longest = facts.longest_wait_seconds
    if expires and expires < longest:
        chord = facts.result_chord_expires_seconds
        # On Redis the sweep renews the chords that wait for a leg.
        survives = (chord is not None and chord >= longest) or backend in ("redis", "rediss", "sentinel")
        fate = "" if survives else ", and a plain Celery chord around it would never fire its body"
        return Finding(
            Level.WARNING, "results",
            f"a wait is open for up to {words(longest)}, longer than result_expires ({words(expires)}): after that "
            f"AsyncResult reads PENDING until the intent ends{fate}",
            f"raise result_expires above {words(longest)}"
            + (f", and set result_chord_expires to {words(longest)} or more" if fate else ""),
        )  # fmt: skip
    return Finding(Level.OK, "results", f"kept in {backend}, {'for ' + words(expires) if expires else 'for ever'}")


# -- the broker --------------------------------------------------------------------


def broker(facts: Facts) -> Finding | None:
    """The broker answers."""
    if facts.broker_error is not None:
        return Finding(
            Level.PROBLEM, "broker", f"it cannot be reached: {facts.broker_error}",
            "start it, or correct broker_url; intents are kept meanwhile and start when it is back",
        )  # fmt: skip
    return Finding(Level.OK, "broker", f"{facts.broker} answers")


def visibility_timeout(facts: Facts) -> Finding | None:
    """The broker does not hand out again what a worker still holds."""
    timeout = facts.visibility_timeout_seconds
    if timeout is None:
        return None
    if facts.longest_countdown is not None and facts.longest_countdown[1] > timeout:
        task, countdown = facts.longest_countdown
        return Finding(
            Level.PROBLEM, "visibility timeout",
            f"{task} is due in {words(countdown)}, but the broker hands a message out again every {words(timeout)}: "
            f"it will run more than once",
            "name it in axme_tasks or make it an @axme.task, whose long countdowns are kept in the ledger, "
            'or raise broker_transport_options["visibility_timeout"] above the longest countdown',
        )  # fmt: skip
    if timeout < facts.lease_seconds:
        return Finding(
            Level.WARNING, "visibility timeout",
            f"the broker hands a message out again after {words(timeout)}, sooner than a lease ends "
            f"({words(facts.lease_seconds)}): legs are safe, the second copy finds its run taken, "
            f"but ordinary tasks with acks_late or a countdown run twice",
            'leave broker_transport_options["visibility_timeout"] at its default: recovery does not depend on it',
        )  # fmt: skip
    return Finding(
        Level.OK, "visibility timeout",
        f"{words(timeout)}; a dead worker's legs go on after its lease, whatever this says, "
        f"but ordinary tasks with a longer countdown than this would run more than once",
    )  # fmt: skip


def broker_eviction(facts: Facts) -> Finding | None:
    """A full Redis refuses messages rather than throw others away."""
    return _eviction("broker memory", "the broker's Redis", "messages of queued tasks", facts.broker_eviction)


# -- the ledger ----------------------------------------------------------------------


def ledger(facts: Facts) -> Finding | None:
    """The ledger answers and has the tables this version needs."""
    if facts.settings_error is not None:
        return None
    if facts.ledger_error is not None:
        return Finding(
            Level.PROBLEM, "ledger", f"it cannot be used: {facts.ledger_error}",
            "see that axme_ledger_url is right and the database runs",
        )  # fmt: skip
    if facts.ledger == "sqlite" and facts.ledger_revision is None:
        return Finding(Level.OK, "ledger", "sqlite has no tables yet; they are made at the first use")
    if facts.ledger_revision is None or facts.ledger_head is None or facts.ledger_revision < facts.ledger_head:
        return Finding(
            Level.PROBLEM, "ledger",
            f"its tables are at {facts.ledger_revision or 'nothing'}, and this version needs {facts.ledger_head}",
            "run: axme-celery -A yourproject migrate",
        )  # fmt: skip
    return Finding(Level.OK, "ledger", f"{facts.ledger} answers, its tables are at {facts.ledger_revision}")


def one_host_of_sqlite(facts: Facts) -> Finding | None:
    """SQLite is for one machine."""
    if facts.ledger != "sqlite" or len(facts.hosts) < 2:
        return None
    return Finding(
        Level.PROBLEM, "hosts",
        f"a SQLite ledger is used from several hosts ({', '.join(facts.hosts)}): over a network its file gets damaged",
        "keep the ledger in PostgreSQL: axme_ledger_url = 'postgresql+psycopg://user@host/name'",
    )  # fmt: skip


def clocks(facts: Facts) -> Finding | None:
    """Host, tracker and ledger agree on the time."""
    offsets = {"this host": facts.clock_offset_seconds, "the tracker's Redis": facts.tracker_offset_seconds}
    known = {who: offset for who, offset in offsets.items() if offset is not None}
    if not known:
        return None
    who, offset = max(known.items(), key=lambda one: abs(one[1]))
    if abs(offset) < CLOCK_SECONDS:
        return Finding(Level.OK, "clocks", f"{' and '.join(known)}: within {words(abs(offset))} of the ledger's")
    return Finding(
        Level.PROBLEM if abs(offset) >= facts.lease_seconds else Level.WARNING, "clocks",
        f"{who} is {words(abs(offset))} {'ahead of' if offset > 0 else 'behind'} the ledger's clock: waits and deadlines "
        f"go by the ledger's, but countdowns of ordinary tasks and the times in logs are off by as much",
        "keep every machine's clock by NTP",
    )  # fmt: skip


# -- the tracker -----------------------------------------------------------------------


def tracker(facts: Facts) -> Finding | None:
    """The tracker answers."""
    if facts.tracker_error is not None:
        return Finding(
            Level.PROBLEM, "tracker", f"it cannot be used: {facts.tracker_error}",
            "see that axme_redis_url is right and Redis runs; "
            "nothing is lost meanwhile, but timers fire late and dead workers are noticed late",
        )  # fmt: skip
    if not facts.ledger_is_read:
        return None
    where = "Redis" if facts.tracker == "redis" else "the ledger's database"
    return Finding(Level.OK, "tracker", f"{where} answers")


def tracker_eviction(facts: Facts) -> Finding | None:
    """A full Redis keeps leases and timers."""
    if facts.tracker != "redis" or not facts.ledger_is_read:
        return None
    return _eviction("tracker memory", "the tracker's Redis", "leases and timers", facts.tracker_eviction)


def _eviction(about: str, where: str, what: str, policy: str | None) -> Finding | None:
    if policy is None:
        return None
    if policy == "noeviction":
        return Finding(Level.OK, about, "nothing is evicted")
    return Finding(
        Level.PROBLEM, about, f"{where} evicts keys when it is full ({policy}), {what} among them",
        "set maxmemory-policy noeviction, and keep caches in another Redis",
    )  # fmt: skip


def sweepers(facts: Facts) -> Finding | None:
    """One beat sweeps."""
    if facts.tracker_error is not None or not facts.ledger_is_read:
        return None
    within = max(RECENT_TICKS * facts.tick_seconds, RECENT_SECONDS)
    recent = sorted(name for name, age in facts.sweepers.items() if age <= within)
    beats = [name for name in recent if not name.startswith(("keeper@", "cli@"))]
    if len(beats) > 1:
        return Finding(
            Level.WARNING, "beat",
            f"several beats run at once ({', '.join(beats)}): intents do not mind, but every ordinary periodic task "
            f"is sent that many times",
            "run one beat",
        )  # fmt: skip
    if beats:
        return Finding(Level.OK, "beat", f"{beats[0]} swept {words(facts.sweepers[beats[0]])} ago")
    if recent:
        return Finding(
            Level.WARNING, "beat",
            f"no beat has swept for {words(within)}; {', '.join(recent)} did in its place, less often: timers are late",
            "run celery -A yourproject beat",
        )  # fmt: skip
    last = min(facts.sweepers.values(), default=None)
    when = "within the last hour" if last is None else f"for {words(last)}"
    return Finding(
        Level.PROBLEM, "beat",
        f"nobody has swept {when}: timers do not fire, legs of dead workers stay where they are",
        "run celery -A yourproject beat and a worker, or call sweep from cron every minute",
    )  # fmt: skip


# -- how the work goes --------------------------------------------------------------------


def timers(facts: Facts) -> Finding | None:
    """What is due is done."""
    if not facts.ledger_is_read:
        return None
    return _late(
        facts, "timers", facts.overdue_seconds, f"a timer is overdue by {words(facts.overdue_seconds)}",
        "see that a beat and a worker run; if they do, look into their logs for brooms that stopped", "none is overdue",
    )  # fmt: skip


def outbox(facts: Facts) -> Finding | None:
    """What must leave does leave."""
    if not facts.ledger_is_read:
        return None
    return _late(
        facts, "outbox", facts.outbox_lag_seconds,
        f"{facts.outbox_due} deliveries are due, the first for {words(facts.outbox_lag_seconds)}",
        "see that the broker takes messages, and that a beat and a worker run", "nothing is held up",
    )  # fmt: skip


def _late(facts: Facts, about: str, late_seconds: float, found: str, change: str, good: str) -> Finding:
    if late_seconds <= max(LATE_TICKS * facts.tick_seconds, LATE_SECONDS):
        return Finding(Level.OK, about, good)
    return Finding(Level.WARNING, about, found, change)


def parked(facts: Facts) -> Finding | None:
    """No leg rests until an operator decides."""
    if not facts.parked_legs:
        return None
    return Finding(
        Level.WARNING, "parked", f"legs that rest until somebody decides: {facts.parked_legs}",
        "see why with dead-letters list, then unpark each (with --accept-drift to go on with the code as it is)",
    )  # fmt: skip


def letters(facts: Facts) -> Finding | None:
    """No dead letter waits for anybody."""
    if not facts.open_dead_letters:
        return None
    return Finding(
        Level.WARNING, "dead letters", f"open: {facts.open_dead_letters}",
        "see them with dead-letters list; replay or discard them",
    )  # fmt: skip


#: In the order they are reported.
CHECKS: tuple[Callable[[Facts], Finding | None], ...] = (
    settings, lease, ledger, one_host_of_sqlite, clocks, broker, visibility_timeout, broker_eviction,
    tracker, tracker_eviction, sweepers, timers, outbox, parked, letters, results, content, eager, secret,
)  # fmt: skip
