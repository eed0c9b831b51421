"""Real workers under load while everything around them fails, and afterwards the whole history, rule by rule.

``run_live`` lets the crowd of clients work on a cluster while two hands of nemeses act on it, stops the nemeses, lets
everything end, and checks. Whether it passed is in ``Figures.findings``: a run that did not reach what it meant to reach
has findings too. Nothing waits for ever: no progress for a minute ends the run with all there is to know (``Stuck``).
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from . import nemeses as trouble
from . import witness
from .checker import Finding, Rule, check, coverage, extra_executions, vacuous
from .cluster import Cluster
from .facts import History, collect
from .nemeses import Act, Hand, Nemesis

#: Without any progress for so long, the run is stuck.
STUCK_SECONDS = 60.0
#: After the last nemesis everything has ended within this.
ENDING_SECONDS = 240.0
#: What Celery's own part of a leg's end and the last sweeps may take after the last intent has ended.
CLEARING_SECONDS = 40.0
#: A soak is made of runs of this length, each with its own check.
SOAK_RUN_SECONDS = 300.0
#: No caller is held up by a hung broker: far below the time it hangs, far above what a busy machine adds.
HELD_UP_SECONDS = 1.5

Say = Callable[[str], None]


class Stuck(Exception):
    """Nothing moves any more. The message is the diagnosis."""


@dataclass(frozen=True)
class Times:
    """How long some calls took, in milliseconds."""

    count: int
    p50: float
    p99: float
    longest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        ordered = sorted(s * 1000 for s in seconds)
        if not ordered:
            return cls(0, 0.0, 0.0, 0.0)
        last = len(ordered) - 1
        return cls(len(ordered), ordered[round(last * 0.5)], ordered[round(last * 0.99)], ordered[last])

    def __str__(self) -> str:
        return f"p50 {self.p50:.0f} ms, p99 {self.p99:.0f} ms, longest {self.longest:.0f} ms ({self.count} calls)"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a run did and found."""

    seed: int
    #: How long nemeses acted, and how long it then took until everything had ended.
    seconds: float
    ending_seconds: float
    findings: tuple[Finding, ...]
    #: How the intents ended.
    ended: Mapping[str, int]
    #: What each nemesis did.
    done: Mapping[str, int]
    #: Executions of steps, those beyond the first of each, and runs whose worker was lost.
    executions: int
    extra: int
    lost_runs: int
    #: Runs that were claimed again after the database lost the claim in a crash.
    reclaimed: int
    #: How the clients' calls ended: "answer ok", "answer fail" (somebody else was first), "submit info" (unknown), ...
    calls: Mapping[str, int]
    #: Reports of the early job that came before their wait, and after it.
    early: int
    late: int
    #: What calls took while the broker hung, and otherwise: "submit", "answer", "complete_tool".
    hung: Mapping[str, Times]
    usual: Mapping[str, Times]
    #: Programs that ended by themselves, with their exit codes.
    deaths: Mapping[str, Sequence[int]]
    reached: Mapping[str, int]
    #: Nemeses that could not act here, and why.
    not_run: tuple[str, ...]
    folder: Path

    @property
    def passed(self) -> bool:
        return not self.findings

    def __str__(self) -> str:
        intents = sum(self.ended.values())
        lines = [
            f"live chaos, seed {self.seed}: {self.seconds:.0f} s of trouble, {self.ending_seconds:.0f} s to the end",
            f"  {intents} intents: " + ", ".join(f"{n} {status}" for status, n in sorted(self.ended.items())),
            f"  {self.executions} executions of steps, {self.extra} beyond the first, {self.lost_runs} runs lost"
            f" ({self.reclaimed} claimed again after the database lost the claim)",
            f"  {self.early} reports before their wait, {self.late} after; "
            + ", ".join(f"{n} {call}" for call, n in sorted(self.calls.items())),
        ]
        for name, count in self.done.items():
            lines.append(f"  {count:6} x {trouble.BY_NAME[name].what}")
        for name, times in self.usual.items():
            lines.append(f"  {name}: {times}")
        for name, times in self.hung.items():
            lines.append(f"  {name} while the broker hung: {times}")
        if self.deaths:
            lines.append(
                "  ended by themselves: " + ", ".join(f"{name} {codes}" for name, codes in self.deaths.items())
            )
        lines += [f"  NOT RUN: {why}" for why in self.not_run]
        lines += [f"  BROKEN: {finding}" for finding in self.findings]
        broken = f"{len(self.findings)} findings; history and logs are in {self.folder}"
        lines.append("  every promise held" if self.passed else f"  {broken}")
        return "\n".join(lines)


def run_live(
    seed: int,
    intents: int = 100_000,
    seconds: float = 60.0,
    nemeses: Sequence[Nemesis] = trouble.ALL,
    *,
    at_once: int = 24,
    minimums: Mapping[str, int] | None = None,
    say: Say = print,
) -> Figures:
    """Let at most ``intents`` be submitted, ``at_once`` of them open, while these nemeses act for so many seconds.

    minimums: how often each state, move and kind of line must have been reached; see ``checker.coverage``.
    The folder with history and logs is removed if all promises held. Raises Stuck.
    """
    cluster = Cluster(seed)
    with cluster:
        say(f"live chaos, seed {seed}, in {cluster.folder}")
        run = _Run(cluster, seed, nemeses, say)
        began = time.monotonic()
        try:
            cluster.start(at_once=at_once, intents=intents)
            run.act(seconds)
            stopped = time.monotonic()
            run.let_all_end()
        except Exception:
            say(f"seed {seed}: history and logs are in {cluster.folder}")
            raise
        ended = time.monotonic()
        leftovers = run.leftovers()
        cluster.stop_programs()
        figures = run.figures(seconds, stopped - began, ended - stopped, leftovers, minimums or {})
    if figures.passed:
        cluster.forget()
    return figures


def run_soak(minutes: float, seed: int, *, say: Say = print) -> list[Figures]:
    """Runs of five minutes, one after another with seeds drawn from this one, for so many minutes; each is said."""
    until, seeds, found = time.monotonic() + minutes * 60, random.Random(seed), list[Figures]()
    while not found or time.monotonic() < until:
        left = until - time.monotonic()
        found.append(run_live(seeds.randrange(1 << 31), seconds=max(60.0, min(SOAK_RUN_SECONDS, left)), say=say))
        say(str(found[-1]))
    return found


class _Run:
    """One run on a cluster."""

    def __init__(self, cluster: Cluster, seed: int, nemeses: Sequence[Nemesis], say: Say) -> None:
        self._cluster, self._seed, self._nemeses, self._say = cluster, seed, tuple(nemeses), say
        self._not_run = tuple(
            why for n in nemeses if n is trouble.BY_NAME["shift clock"] and (why := cluster.wall.missing) is not None
        )
        self._hands = [
            Hand(cluster, mine, f"{seed}:{hand}", pause_seconds)
            for hand, pause_seconds in (("processes", 0.5), ("stores", 1.2))
            if (mine := [n for n in nemeses if n.hand == hand])
        ]
        self._progress: tuple[Any, ...] = ()
        self._progressed_at = time.monotonic()

    # -- the run ------------------------------------------------------------------

    def act(self, seconds: float) -> None:
        """Nemeses act and clients work, for so long; on a slow machine up to twice that, until enough was done."""
        began = time.monotonic()
        for hand in self._hands:
            hand.start()
        while not any(hand.trouble for hand in self._hands):
            passed = time.monotonic() - began
            if passed > 2 * seconds or (passed > seconds and not self._undone(seconds)):
                break
            self._look_after()
            time.sleep(0.3)
        self._cluster.close_doors()
        for hand in self._hands:
            hand.stop()
        for hand in self._hands:
            if hand.trouble is not None:
                raise hand.trouble

    def _undone(self, seconds: float) -> list[Finding]:
        """What the nemeses should have done in so many seconds and have not."""
        meant = [n for n in self._nemeses if not (self._not_run and n.name == "shift clock")]
        return vacuous(trouble.done(self._acts), trouble.least(meant, seconds))

    @property
    def _acts(self) -> list[Act]:
        return [act for hand in self._hands for act in hand.acts]

    def let_all_end(self) -> None:
        """All is well again: what was submitted ends."""
        cluster = self._cluster
        cluster.set_beats(1)
        cluster.wall.shift(0.0)
        until = time.monotonic() + ENDING_SECONDS
        while not (cluster.folder / "all-submitted").exists() or self._open() != 0:
            self._look_after()
            if time.monotonic() > until:
                raise Stuck(f"not everything ended within {ENDING_SECONDS:.0f} s\n{self.diagnosis()}")
            time.sleep(0.3)

    def leftovers(self) -> tuple[str, ...]:
        """What is still in the outbox and the tracker after everything has ended, and had time to be cleared away."""
        until = time.monotonic() + CLEARING_SECONDS
        while (found := self._left()) and time.monotonic() < until:
            self._cluster.keep_up()
            time.sleep(0.3)
        return found

    def _look_after(self) -> None:
        self._cluster.keep_up()
        now, progress = time.monotonic(), self._ask(_PROGRESS)
        if progress is not None and progress != self._progress:
            self._progress, self._progressed_at = progress, now
        if now > self._progressed_at + STUCK_SECONDS:
            raise Stuck(f"no progress for {STUCK_SECONDS:.0f} s\n{self.diagnosis()}")

    def _open(self) -> int | None:
        found = self._ask("SELECT count(*) FROM axme_intents WHERE ended_at IS NULL")
        return None if found is None else int(found[0])

    def _ask(self, sql: str) -> tuple[Any, ...] | None:
        rows = self._cluster.rows(sql)
        return rows[0] if rows else None

    def _left(self) -> tuple[str, ...]:
        found = [f"outbox: {row}" for row in self._cluster.rows(_QUESTIONS["outbox"])]
        client = self._cluster.redis.admin
        for key in client.scan_iter(match="axme:*"):
            name = key.decode()
            if name.rpartition(":")[2] in ("leases", "timers", "hidden"):
                found += [f"{name}: {member.decode()}" for member in client.zrange(key, 0, -1)]
        return tuple(found)

    # -- what came of it ------------------------------------------------------------

    def figures(
        self,
        meant_seconds: float,
        seconds: float,
        ending_seconds: float,
        leftovers: tuple[str, ...],
        minimums: Mapping[str, int],
    ) -> Figures:
        lines, facts = witness.read(self._cluster.history), collect(self._cluster.axme)
        crashes = [act for act in self._acts if act.name == "crash postgres"]
        lost_runs = sum(1 for f in facts.values() for event in f.events if event.type == "intent.leg_lost")
        history = History(lines=lines, intents=facts, faults=lost_runs, leftovers=leftovers)
        reached, done = coverage(history), trouble.done(self._acts)
        reclaimed = reclaimed_after_crash(lines, crashes)
        findings = [f for f in check(history) if not (f.rule is Rule.TWICE and f.intent in reclaimed)]
        findings += [*kept_once(history), *vacuous(reached, minimums), *self._undone(meant_seconds)]
        hangs = [act for act in self._acts if act.name == "hang redis"]
        hung, usual = timed(lines, hangs)
        for op, times in hung.items():
            if times.longest > HELD_UP_SECONDS * 1000:
                findings.append(Finding(Rule.LATE, "", f"{op} was held up while the broker hung: {times}"))
        steps = [line for line in lines if line["ev"] == "S"]
        early = [e for f in facts.values() for e in f.early if e.job_id.endswith(":early")]
        jobs = sum(1 for f in facts.values() for w in f.waits if (w.job_id or "").endswith(":early") and w.outcome)
        return Figures(
            seed=self._seed,
            seconds=seconds,
            ending_seconds=ending_seconds,
            findings=tuple(findings),
            ended=Counter(f.intent.status.value for f in facts.values()),
            done={n.name: done[n.name] for n in self._nemeses},
            executions=len(steps),
            extra=extra_executions(steps),
            lost_runs=lost_runs,
            reclaimed=len(reclaimed),
            calls=Counter(f"{line['op']} {line['ev']}" for line in lines if "op" in line and line["ev"] != "invoke"),
            early=len(early),
            late=jobs - sum(1 for e in early if e.wait_id is not None),
            hung=hung,
            usual=usual,
            deaths=self._cluster.deaths,
            reached=reached,
            not_run=self._not_run,
            folder=self._cluster.folder,
        )

    def diagnosis(self) -> str:
        """All there is to know of a run that does not go on."""
        parts = [f"seed {self._seed}", f"open intents: {self._open()}"]
        for title, sql in _QUESTIONS.items():
            parts += [f"-- {title} --", *map(str, self._cluster.rows(sql)[:40])]
        with contextlib.suppress(redis.RedisError):
            client = self._cluster.redis.admin
            parts.append("-- redis --")
            for key in sorted(client.scan_iter(match="*", count=1000)):
                kind = client.type(key)
                size = {b"list": client.llen, b"zset": client.zcard, b"hash": client.hlen}.get(kind)
                if size is not None and not key.startswith(b"celery-task-meta"):
                    parts.append(f"{key.decode()}: {size(key)}")
        for hand in self._hands:
            parts += [f"-- last of {hand.name} --", *map(str, hand.acts[-10:])]
        for program in self._cluster.programs:
            parts += [f"-- {program.name}, process {program.pid}, died {program.died} --", program.log_end()]
        parts += ["-- stacks --", self._cluster.write_stacks()]
        text = "\n".join(parts)
        (self._cluster.folder / "diagnosis.txt").write_text(text)
        return text


#: What moves when work is done, and not when it only fails again.
_PROGRESS = """
    SELECT (SELECT count(*) FROM axme_intents), (SELECT count(*) FROM axme_intents WHERE ended_at IS NOT NULL),
           (SELECT count(*) FROM axme_checkpoints), (SELECT count(*) FROM axme_waits WHERE status <> 'OPEN')
"""

_QUESTIONS = {
    "legs of open intents": """
        SELECT i.status, i.waiting_reason, i.seq, l.id, l.task, l.status, l.run, l.attempts, l.worker, l.due_at, l.resends
        FROM axme_legs l JOIN axme_intents i ON i.id = l.intent_id WHERE i.ended_at IS NULL ORDER BY i.created_at
    """,
    "open waits": "SELECT id, leg_id, name, nth, kind, opened_at, timeout_at, due_at FROM axme_waits WHERE status = 'OPEN'",
    "outbox": "SELECT kind, leg_id, run, next_at, held_until, attempts, last_error FROM axme_outbox ORDER BY next_at",
    "database time": "SELECT now()",
    "connections": """
        SELECT pid, state, wait_event_type, wait_event, left(query, 120), now() - state_change
        FROM pg_stat_activity WHERE application_name = 'axme-celery'
    """,
}


# -- what only a live run can show ------------------------------------------------------


def kept_once(history: History) -> Iterator[Finding]:
    """Each key is one intent, each wait for an agent has one child, and every client was taken in."""
    keys = Counter(f.intent.key for f in history.intents.values() if f.intent.parent_wait_id is None)
    names = Counter(f.leg.signature["args"][0] for f in history.intents.values() if f.intent.parent_wait_id is None)
    for what, counted in (("key", keys), ("work", names)):
        for name, count in counted.items():
            if count > 1 or name is None:
                yield Finding(Rule.LOST, "", f"{count} intents have the {what} {name}")
    parents = Counter(f.intent.parent_wait_id for f in history.intents.values() if f.intent.parent_wait_id)
    waits = {w.id for f in history.intents.values() for w in f.waits}
    for wait_id, count in parents.items():
        if count > 1 or wait_id not in waits:
            there = "there" if wait_id in waits else "not there"
            yield Finding(Rule.LOST, "", f"{count} child intents for wait {wait_id}, which is {there}")
    for line in history.lines:
        if line.get("op") == "submit" and line["ev"] == "fail":
            yield Finding(Rule.LOST, "", f"submit {line['key']} was refused: {line['why']}")


def reclaimed_after_crash(lines: Sequence[witness.Line], crashes: Sequence[Act]) -> set[str]:
    """Intents one of whose runs started twice with a crash of the database in between.

    A claim need not have reached the disk: a database that crashes may forget it, and the same run is claimed anew.
    """
    bodies: dict[tuple[str, int], list[float]] = {}
    for line in lines:
        if line["ev"] == "B":
            bodies.setdefault((line["intent"], line["run"]), []).append(line["t"] / 1e9)

    def crashed_between(first: float, second: float) -> bool:
        return any(first <= crash.ended and crash.began <= second for crash in crashes)

    return {
        intent
        for (intent, _), times in bodies.items()
        if len(times) > 1 and all(crashed_between(a, b) for a, b in itertools.pairwise(times))
    }


def timed(lines: Sequence[witness.Line], hangs: Sequence[Act]) -> tuple[dict[str, Times], dict[str, Times]]:
    """How long calls took: those under way while the broker hung, and the others."""
    asked = {line["id"]: line["t"] / 1e9 for line in lines if line["ev"] == "invoke"}
    hung: dict[str, list[float]] = {"submit": [], "answer": [], "complete_tool": []}
    usual: dict[str, list[float]] = {"submit": [], "answer": [], "complete_tool": []}
    for line in lines:
        if line.get("op") in hung and line["ev"] != "invoke":
            began, ended = asked[line["id"]], line["t"] / 1e9
            during = any(began < hang.ended and hang.began < ended for hang in hangs)
            (hung if during else usual)[line["op"]].append(ended - began)
    return {op: Times.of(s) for op, s in hung.items()}, {op: Times.of(s) for op, s in usual.items()}
