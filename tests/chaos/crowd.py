"""The clients of the live part, each a program of its own: ``python -m tests.chaos.crowd WHO``.

submitter   submits reference intents as long as it may, cancels a few at random moments; killed, it submits again
            whatever it was not told of
warehouse   the tool: reads in the history where each intent is, and reports the early job within milliseconds of its
            wait, the late one some time after
ana, bob    people: both see every human wait, and by a plan that both know they answer it alone, against each other,
            against its timeout, or against a cancel, at the same moment

Who is told "unknown" asks again, as real clients do.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import json
import os
import random
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from axme_celery.errors import AxmeError, NotFound
from axme_celery.ledger import tables
from axme_celery.model import Wait

from . import project, witness
from .client import Client
from .reference import TOOL

folder = Path(os.environ["CHAOS_FOLDER"])
#: A human wait that is still open so long after the plan for it was carried out is answered plainly.
PATIENCE_SECONDS = 3.0
#: After an answer of unknown outcome.
AGAIN_SECONDS = 0.2


def is_closing() -> bool:
    """Nothing new is submitted any more."""
    return (folder / "closing").exists()


def is_hurried() -> bool:
    """Submit and answer now, whatever the plan was: the broker hangs, and nobody may notice."""
    return (folder / "hurry").exists()


@dataclass(order=True)
class Errand:
    """Something to do at a moment (seconds of this process's monotonic clock)."""

    at: float
    number: int
    do: Callable[[], None] = field(compare=False)


class Agenda:
    """Errands, each done when it is due."""

    def __init__(self) -> None:
        self._errands: list[Errand] = []
        self._numbers = itertools.count()

    def add(self, after_seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._errands, Errand(time.monotonic() + after_seconds, next(self._numbers), do))

    def work(self, until: float) -> None:
        """Do what is due until that moment, and sleep in between."""
        while True:
            now = time.monotonic()
            while self._errands and self._errands[0].at <= now:
                heapq.heappop(self._errands).do()
                now = time.monotonic()
            wake_at = min(until, self._errands[0].at) if self._errands else until
            if now >= until:
                return
            time.sleep(max(0.0, wake_at - now))

    def __bool__(self) -> bool:
        return bool(self._errands)


# -- the submitter -----------------------------------------------------------------


class Submitter:
    """Submits intents 1..n, never more than ``at_once`` of them open."""

    def __init__(self, client: Client, seed: int, intents: int, at_once: int) -> None:
        self._client, self._seed, self._intents, self._at_once = client, seed, intents, at_once
        self._agenda = Agenda()

    def work(self) -> None:
        before = [line for line in witness.read(folder / "history.jsonl") if line.get("op") == "submit"]
        asked = {line["key"] for line in before}
        kept = {line["key"] for line in before if line["ev"] == "ok"}
        for number in range(1, self._intents + 1):
            name = name_of(number)
            if name in kept:
                continue
            while not is_closing() and self._open() >= self._at_once:
                self._agenda.work(time.monotonic() + 0.1)
                if is_hurried():
                    break
            # What a life before this one may have submitted is submitted to the end.
            if is_closing() and name not in asked:
                break
            self._submit(number, name)
            self._agenda.work(time.monotonic())
        (folder / "all-submitted").touch()
        while True:
            self._agenda.work(time.monotonic() + 1.0)

    def _submit(self, number: int, name: str) -> None:
        rng = random.Random(f"{self._seed}:{number}")
        kind = kind_of(self._seed, number)
        human: dict[str, Any] = {}
        if rng.random() < 0.5:
            human = {"timeout": rng.uniform(0.5, 2.0), "on_timeout": rng.choice(("fail", "rejected"))}
        deadline = rng.uniform(0.5, 3.0) if kind == "hurried" else None
        canceled_after = rng.uniform(0.0, 2.5) if kind == "canceled" else None
        task = kind if kind in ("family", "poison") else "reference"
        work = project.tasks.work(task, name, rest_seconds=rng.uniform(0.1, 1.0), human=human)
        handle = None
        while handle is None:
            handle = self._client.submit(work, key=name, deadline=deadline)
            if handle is None:
                time.sleep(AGAIN_SECONDS)
        if canceled_after is not None:
            self._agenda.add(canceled_after, lambda: self._cancel(handle.id))

    def _cancel(self, intent_id: str) -> None:
        self._client.cancel(intent_id, "submitter")

    def _open(self) -> int:
        """How many intents are open; many, when the ledger does not say."""
        query = select(func.count()).select_from(tables.intents).where(tables.intents.c.ended_at.is_(None))
        try:
            with project.axme.runtime.ledger.engines.connect() as connection:
                return int(connection.scalar(query) or 0)
        except Exception:
            return self._at_once


#: What every twenty intents are, in an order that the seed gives: "hurried" has a deadline it hardly makes, "canceled"
#: is canceled wherever it then is, "poison" kills its worker.
_TWENTY = ["reference"] * 14 + ["family"] * 2 + ["poison"] + ["hurried"] * 2 + ["canceled"]


def kind_of(seed: int, number: int) -> str:
    """What this intent is."""
    twenty = list(_TWENTY)
    random.Random(f"{seed}:twenty:{(number - 1) // 20}").shuffle(twenty)
    return twenty[(number - 1) % 20]


def name_of(number: int) -> str:
    return f"intent-{number:05d}"


# -- the warehouse -------------------------------------------------------------------


class Warehouse:
    """Reports the two jobs of every reference intent."""

    def __init__(self, client: Client, seed: int) -> None:
        self._client = client
        self._random = random.Random(f"{seed}:warehouse")
        self._agenda = Agenda()
        self._names: dict[str, str] = {}
        self._begun: set[str] = set()

    def work(self) -> None:
        for line in follow(folder / "history.jsonl"):
            if line is None:
                self._agenda.work(time.monotonic() + 0.001)
            elif "op" not in line:
                self._heed(line)

    def _heed(self, line: witness.Line) -> None:
        intent_id, step = line["intent"], line.get("step")
        if line["ev"] == "B":
            self._name(intent_id)
        elif step == "charge" and line["ev"] in ("N", "X"):
            # The wait opens some milliseconds from now: sometimes the report is there before, sometimes after.
            self._begin(intent_id, "early", self._random.uniform(0.0, self._random.choice((0.012, 0.06))))
        elif step == "tell" and line["ev"] == "N":
            self._begin(intent_id, "late", self._random.choice((0.0, self._random.uniform(0.0, 0.5))))

    def _begin(self, intent_id: str, which: str, after_seconds: float) -> None:
        # Only reference intents come by the early job's place; others have a step of the late one's name.
        name = self._name(intent_id)
        if name is None:
            self._agenda.add(AGAIN_SECONDS, lambda: self._begin(intent_id, which, 0.0))
            return
        job = f"{name}:{which}"
        if job not in self._begun and (which == "early" or f"{name}:early" in self._begun):
            self._begun.add(job)
            times = 2 if self._random.random() < 0.15 else 1
            self._agenda.add(after_seconds, lambda: self._report(job, times))

    def _report(self, job: str, times: int) -> None:
        self._client.complete_tool(TOOL, job, {"rows": zlib.crc32(job.encode())})
        if self._client.last == "info":
            self._agenda.add(AGAIN_SECONDS, lambda: self._report(job, times))
        elif times > 1:
            self._agenda.add(self._random.uniform(0.0, 0.3), lambda: self._report(job, times - 1))

    def _name(self, intent_id: str) -> str | None:
        """What the intent was named: its work's first argument."""
        if intent_id not in self._names:
            with contextlib.suppress(NotFound, AxmeError):
                self._names[intent_id] = project.axme.intent(intent_id).payload["args"][0]
        return self._names.get(intent_id)


def follow(path: Path) -> Iterator[witness.Line | None]:
    """The lines of a history as they are written; None whenever there is none just now."""
    with path.open("rb") as file:
        rest = b""
        while True:
            data = file.read(1 << 16)
            if not data:
                yield None
                continue
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield json.loads(line)


# -- people ----------------------------------------------------------------------------


class Person:
    """Answers human waits by the plan."""

    def __init__(self, client: Client, seed: int, me: str) -> None:
        self._client, self._seed, self._me = client, seed, me
        self._agenda = Agenda()
        #: When each wait was last attended to.
        self._seen: dict[str, float] = {}

    def work(self) -> None:
        while True:
            try:
                waits = project.axme.runtime.ledger.inbox([], None, 500)
            except AxmeError:
                waits = []
            for wait in waits:
                last = self._seen.get(wait.id)
                if last is None:
                    self._seen[wait.id] = self._plan(wait)
                elif time.monotonic() > last + PATIENCE_SECONDS or (last > time.monotonic() and is_hurried()):
                    self._seen[wait.id] = time.monotonic()
                    self._answer(wait, "approved")
            self._agenda.work(time.monotonic() + 0.05)

    def _plan(self, wait: Wait) -> float:
        """Put on the agenda what this person does about the wait; returns when that will be."""
        shared = random.Random(f"{self._seed}:{wait.id}")
        plan = shared.choices(("alone", "race", "clock", "cancel", "silence"), (20, 30, 25, 10, 15))[0]
        actor = shared.choice(("ana", "bob"))
        moment = wait.opened_at.timestamp() + shared.choice((shared.uniform(0.1, 0.6), shared.uniform(0.6, 5.0)))
        if wait.timeout_at is not None and plan == "clock":
            # The sweep that lets it expire comes within a tick of the timeout.
            moment = wait.timeout_at.timestamp() + shared.uniform(-0.02, 0.6)
        elif plan in ("clock", "silence"):
            plan = "race" if wait.timeout_at is None else plan
        # Both mean the same moment; what the system makes of it is a matter of milliseconds.
        after = moment - time.time() + random.uniform(0.0, 0.004)
        outcome = "approved" if self._me == actor else "rejected"
        match plan:
            case "silence":
                assert wait.timeout_at is not None
                return time.monotonic() + wait.timeout_at.timestamp() - time.time()
            case "alone" if self._me != actor:
                pass
            case "cancel" if self._me != actor:
                self._agenda.add(after, lambda: self._cancel(wait.intent_id))
            case _:
                self._agenda.add(after, lambda: self._answer(wait, outcome))
        return time.monotonic() + max(0.0, after)

    def _answer(self, wait: Wait, outcome: str) -> None:
        self._client.answer(wait.id, outcome, self._me)
        if self._client.last == "info":
            self._agenda.add(AGAIN_SECONDS, lambda: self._answer(wait, outcome))

    def _cancel(self, intent_id: str) -> None:
        self._client.cancel(intent_id, self._me)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.chaos.crowd")
    arguments.add_argument("who")
    arguments.add_argument("--seed", type=int, required=True)
    arguments.add_argument("--intents", type=int, default=0)
    arguments.add_argument("--at-once", type=int, default=20)
    given = arguments.parse_args()
    client = Client(project.axme)
    match given.who:
        case "submitter":
            Submitter(client, given.seed, given.intents, given.at_once).work()
        case "warehouse":
            Warehouse(client, given.seed).work()
        case person:
            Person(client, given.seed, person).work()


if __name__ == "__main__":
    main()
