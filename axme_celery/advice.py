"""Advice: which tasks of a Celery project lose work today, why, and what to do first. Pure: it judges facts read elsewhere.

A rule is a function of one task and the project. It returns a reason, or None
where it does not apply; so each is tested without a project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from .durations import words

#: So many tasks of one prefix are named by a pattern.
FAMILY = 2
#: Places named in one sentence.
SHOWN = 3


class Risk(StrEnum):
    """What may become of a task's work, worst first."""

    LOSES = "LOSES"  # it is not done, and nobody is told
    DOUBLES = "DOUBLES"  # it is done more than once, at the same time even
    REPEATS = "REPEATS"  # what was done already is done again
    HIDES = "HIDES"  # nobody can see whether it was done
    OK = "OK"
    KEPT = "KEPT"  # its calls are intents


_ORDER = {risk: place for place, risk in enumerate(Risk)}


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """One task, as the application has it."""

    name: str
    #: An ``@axme.task``, or named in ``axme_tasks``.
    kept: bool = False
    acks_late: bool = False
    reject_on_worker_lost: bool = False
    ignore_result: bool = False
    #: ``autoretry_for``, or ``self.retry`` in its code.
    retries: bool = False
    #: Hard limit; None: it may run for ever.
    time_limit_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Use:
    """A place in the project's code that puts tasks together, or sends one for later."""

    #: "chord" (its header's members), "chain" (all but its last link), "countdown".
    kind: str
    tasks: tuple[str, ...]
    #: "proj/views.py:12".
    place: str
    #: Of a countdown; None when the code works it out.
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry of the beat schedule."""

    name: str
    task: str
    countdown_seconds: float | None = None
    #: How often, for people: "every 1d", "<crontab: 0 4 * * * (m/h/dM/MY/d)>".
    every: str = ""


@dataclass(frozen=True, kw_only=True)
class ProjectFacts:
    """A project's tasks, how its code uses them, and the settings that decide what becomes of them."""

    tasks: tuple[TaskFacts, ...] = ()
    uses: tuple[Use, ...] = ()
    entries: tuple[Entry, ...] = ()
    #: Whether there is an ``Axme(app)``.
    installed: bool = False
    broker: str = "redis"
    #: Of brokers that have one.
    visibility_timeout_seconds: float | None = None
    #: "redis", "db+postgresql"; None: no results are kept.
    result_backend: str | None = None
    result_expires_seconds: float | None = 86400.0


@dataclass(frozen=True)
class Reason:
    """Why a task is at risk."""

    risk: Risk
    why: str


@dataclass(frozen=True)
class TaskAdvice:
    """What there is to say of one task."""

    task: str
    risk: Risk
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Advice:
    """What there is to say of a project."""

    #: Worst first.
    tasks: tuple[TaskAdvice, ...] = ()
    #: What to do, in this order.
    first: tuple[str, ...] = field(default=())


def advise(project: ProjectFacts) -> Advice:
    """Judge every task, and say what to do first."""
    told = sorted((_of(task, project) for task in project.tasks), key=lambda one: (_ORDER[one.risk], one.task))
    return Advice(tuple(told), tuple(_first(project, told)))


def _of(task: TaskFacts, project: ProjectFacts) -> TaskAdvice:
    if task.kept:
        return TaskAdvice(task.name, Risk.KEPT)
    reasons = sorted((r for rule in RULES if (r := rule(task, project)) is not None), key=lambda r: _ORDER[r.risk])
    return TaskAdvice(task.name, reasons[0].risk if reasons else Risk.OK, tuple(reasons))


# -- the rules ----------------------------------------------------------------------


def early(task: TaskFacts, project: ProjectFacts) -> Reason | None:
    """Acknowledged before it runs."""
    if task.acks_late:
        return None
    return Reason(
        Risk.LOSES,
        "it is acknowledged before it runs (acks_late is off): a worker that is killed, or out of memory, loses it",
    )


def child(task: TaskFacts, project: ProjectFacts) -> Reason | None:
    """Acknowledged when its pool child dies."""
    if not task.acks_late or task.reject_on_worker_lost:
        return None
    return Reason(
        Risk.LOSES,
        "acks_late without reject_on_worker_lost: when its pool child is killed it is acknowledged and marked FAILURE",
    )


def given_twice(task: TaskFacts, project: ProjectFacts) -> Reason | None:
    """Unacknowledged for longer than the broker waits."""
    timeout = project.visibility_timeout_seconds
    if not task.acks_late or timeout is None or (task.time_limit_seconds or timeout + 1) <= timeout:
        return None
    return Reason(
        Risk.DOUBLES,
        f"acks_late: when it runs for longer than the visibility timeout ({words(timeout)}) the broker gives it to another "
        f"worker too, at the same time; no time_limit keeps it below",
    )


def long_countdown(task: TaskFacts, project: ProjectFacts) -> Reason | None:
    """Sent for later than the broker waits."""
    timeout = project.visibility_timeout_seconds
    if timeout is None:
        return None
    waits = {f"beat entry {e.name}": e.countdown_seconds for e in project.entries if e.task == task.name}
    waits = {place: seconds for place, seconds in waits.items() if seconds is not None}
    waits |= {use.place: use.seconds for use in _uses(project, "countdown", task.name)}
    known = {place: seconds for place, seconds in waits.items() if seconds is not None and seconds > timeout}
    if known:
        place, longest = max(known.items(), key=lambda one: one[1])
        return Reason(
            Risk.DOUBLES,
            f"sent with a countdown of {words(longest)} ({place}): the broker gives it out anew every {words(timeout)} "
            f"meanwhile, so it runs about {int(longest // timeout)} times",
        )
    unknown = [place for place, seconds in waits.items() if seconds is None]
    if unknown:
        return Reason(
            Risk.DOUBLES,
            f"sent with a countdown or eta that the code works out ({_places(unknown)}): one longer than {words(timeout)} "
            f"makes it run more than once",
        )
    return None


def in_chord(task: TaskFacts, project: ProjectFacts) -> Reason | None:
    """A chord waits for it."""
    uses = _uses(project, "chord", task.name)
    if not uses:
        return None
    never = [] if _comes_back(task) else ["when it is lost"]
    if project.result_backend is not None and project.result_expires_seconds is not None:
        never.append(f"when it takes longer than result_expires ({words(project.result_expires_seconds)})")
    if not never:
        return None
    return Reason(
        Risk.LOSES,
        f"a chord waits for it ({_places(use.place for use in uses)}): {', or '.join(never)}, the body is never called",
    )


def in_chain(task: TaskFacts, project: ProjectFacts) -> Reason | None:
    """Others come after it in a chain."""
    uses = _uses(project, "chain", task.name)
    if not uses or _comes_back(task):
        return None
    return Reason(
        Risk.LOSES,
        f"a chain goes on after it ({_places(use.place for use in uses)}): its message alone holds the rest, which is lost "
        f"with it",
    )


def periodic(task: TaskFacts, project: ProjectFacts) -> Reason | None:
    """Beat sends it, once a period."""
    entries = [entry for entry in project.entries if entry.task == task.name]
    if not entries or _comes_back(task):
        return None
    return Reason(Risk.LOSES, f"beat sends it ({entries[0].every}): one that is lost comes again only with the next")


def retried(task: TaskFacts, project: ProjectFacts) -> Reason | None:
    """A retry starts over."""
    if not task.retries:
        return None
    return Reason(Risk.REPEATS, "it is retried: each time from its start, so what it had done by then is done again")


def unseen(task: TaskFacts, project: ProjectFacts) -> Reason | None:
    """Its result is nowhere."""
    if project.result_backend is not None and not task.ignore_result:
        return None
    why = "its result is ignored" if project.result_backend is not None else "there is no result backend"
    return Reason(Risk.HIDES, f"{why}: whether it was done, nobody can see")


#: What is said of a task, within one level in this order.
RULES: tuple[Callable[[TaskFacts, ProjectFacts], Reason | None], ...] = (
    early, child, in_chord, in_chain, periodic, long_countdown, given_twice, retried, unseen,
)  # fmt: skip


def _comes_back(task: TaskFacts) -> bool:
    """Whether the broker gives it out again when its worker dies, be it an hour later."""
    return task.acks_late and task.reject_on_worker_lost


def _uses(project: ProjectFacts, kind: str, task: str) -> list[Use]:
    return [use for use in project.uses if use.kind == kind and task in use.tasks]


def _places(places: Iterable[str]) -> str:
    named = list(dict.fromkeys(places))
    return ", ".join(named[:SHOWN]) + (f" and {len(named) - SHOWN} more" if len(named) > SHOWN else "")


# -- what to do first -----------------------------------------------------------------


def _first(project: ProjectFacts, told: list[TaskAdvice]) -> list[str]:
    steps: list[str] = []
    if not project.installed:
        steps.append("put axme = Axme(app) beside your Celery app: by itself it changes nothing")
    doubles = [one.task for one in told if any(reason.risk is Risk.DOUBLES for reason in one.reasons)]
    if doubles:
        steps.append(
            f"axme_tasks = {patterns(doubles, told)}: they run once, their countdowns are kept in the ledger and not by workers"
        )
    composed = [use for use in project.uses if use.kind in ("chord", "chain") and not _all_kept(use, told)]
    loses = [one.task for one in told if one.risk is Risk.LOSES and one.task not in doubles]
    weight = {task: -sum(task in use.tasks for use in composed) for task in loses}
    loses.sort(key=lambda task: (weight[task], task))
    if loses:
        steps.append(
            f"{'then ' if doubles else ''}axme_tasks = {patterns([*doubles, *loses], told)}: after a crash they run again, so "
            f"see first that each may run twice"
        )
    if composed:
        kinds = " and ".join(sorted({f"{use.kind}s" for use in composed}))
        steps.append(
            f"hand these {kinds} to axme.submit(...), so that their joins are counted in the ledger: "
            f"{_places(use.place for use in composed)}"
        )
    repeats = [one.task for one in told if any(reason.risk is Risk.REPEATS for reason in one.reasons)]
    if repeats:
        steps.append(f"put @step on what must not be done twice in {_places(repeats)}")
    return steps


def _all_kept(use: Use, told: list[TaskAdvice]) -> bool:
    kept = {one.task for one in told if one.risk is Risk.KEPT}
    return bool(use.tasks) and all(task in kept for task in use.tasks)


def patterns(tasks: list[str], told: list[TaskAdvice]) -> list[str]:
    """Names for ``axme_tasks``: "reports.*" where all of a family are among them, else each by its name."""
    families: dict[str, list[str]] = {}
    for one in told:
        families.setdefault(one.task.rpartition(".")[0], []).append(one.task)
    chosen: dict[str, None] = {}
    for task in tasks:
        family = task.rpartition(".")[0]
        members = families[family]
        whole = bool(family) and len(members) >= FAMILY and all(member in tasks for member in members)
        # A pattern also reaches what is deeper below, which must be meant then.
        deeper = [one.task for one in told if one.task.startswith(f"{family}.") and one.task not in tasks]
        chosen[f"{family}.*" if whole and not deeper else task] = None
    return list(chosen)
