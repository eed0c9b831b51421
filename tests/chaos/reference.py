"""The reference intents: what is run, and killed, in every part of this package.

``reference`` has twelve steps: one in a transaction with the user's own table, one at most once, one with retries, one
that raises and is handled; a human wait, two tool waits (one answered before it opens, one after) and a time wait. Its
result holds what every step and wait gave it. Each step's value is random, so that a second execution cannot pass for
the first.

``family`` waits for a child intent. ``poison`` kills its worker each time it is run.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Column, Integer, MetaData, String, Table, insert

from axme_celery import current_intent, current_step, step, wait_for_agent, wait_for_human, wait_for_time, wait_for_tool
from axme_celery.errors import StepInterrupted, ToolFailed, WaitTimedOut
from axme_celery.leg import required

from . import links
from .witness import digest, note

#: The user's own table. No unique key: a booking made twice is to be seen.
bookings = Table(
    "chaos_bookings", MetaData(), Column("intent", String(36)), Column("run", Integer), Column("ref", String(32))
)

TOOL = "warehouse"
REFERENCE, FAMILY, CHILD, POISON = "chaos.reference", "chaos.family", "chaos.child", "chaos.poison"
#: How many runs a poison leg gets.
POISON_ATTEMPTS = 3
KILLED = 137

F = TypeVar("F", bound=Callable[..., Any])


def linger() -> None:
    """How long a step takes: no time, unless whoever runs the reference intents puts something else here."""


def witnessed(fn: F) -> F:
    """A step's function that says when it starts and when it returns."""

    @functools.wraps(fn)
    def call(*args: Any) -> Any:
        now = current_step()
        where = {"intent": current_intent().id, "step": now.name, "nth": now.nth, "run": now.run}
        note("S", **where, attempt=now.attempt)
        linger()
        value = fn(*args)
        note("E", **where, value=digest(value))
        return value

    return call  # type: ignore[return-value]


def _token(*parts: Any) -> str:
    return ":".join([*map(str, parts), os.urandom(4).hex()])


@step
@witnessed
def plan(name: str) -> dict[str, Any]:
    return {"name": name, "token": _token("plan")}


@step
@witnessed
def fetch(page: int) -> list[Any]:
    return [page, _token("page")]


@step(at_most_once=True)
@witnessed
def charge(amount: int) -> str:
    return _token("charge", amount)


@step(retries=2, backoff=0.01)
@witnessed
def flaky() -> str:
    attempt = current_step().attempt
    if attempt == 1:
        raise ConnectionError("the first try of each run fails")
    return _token("flaky", attempt)


@step
@witnessed
def broken() -> None:
    raise ValueError("this step always fails")


@step(transaction=True)
@witnessed
def book(connection: Any, what: str) -> str:
    ref = _token("ref")
    row = {"intent": current_intent().id, "run": current_step().run, "ref": ref}
    connection.execute(insert(bookings), row)
    return ref


@step
@witnessed
def tell(whom: str, about: str) -> str:
    return _token("told", whom, digest(about))


@step
@witnessed
def pack(parts: list[Any]) -> dict[str, Any]:
    return {"count": len(parts), "token": _token("pack")}


@step
@witnessed
def ship(box: dict[str, Any]) -> str:
    return _token("ship", box["token"])


@step
@witnessed
def close(everything: str) -> str:
    return _token("close", everything)


@step
@witnessed
def lethal() -> None:
    os._exit(KILLED)


class Body:
    """One run of an intent's body: does steps and waits, and says what they gave."""

    def __init__(self) -> None:
        self._leg = required("a reference intent")
        self._who = {"intent": self._leg.intent.id, "run": self._leg.leg.run}
        self._calls: Counter[str] = Counter()
        self.parts: list[Any] = []
        note("B", **self._who)

    def do(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Do a step, and keep what it gave for the result."""
        return self._ask("N", fn.__name__, lambda: fn(*args), (ValueError, StepInterrupted))

    def wait(self, name: str, wait: Callable[[], Any]) -> Any:
        """Wait for something, and keep its outcome for the result."""
        note("W+", **self._who, step=name, nth=self._calls[name] + 1)
        return self._ask("W-", name, wait, (ToolFailed, WaitTimedOut))

    def end(self) -> dict[str, Any]:
        result = {"parts": self.parts}
        note("D", **self._who, value=digest(result))
        return result

    def _ask(self, ev: str, name: str, ask: Callable[[], Any], handled: tuple[type[Exception], ...]) -> Any:
        self._calls[name] += 1
        where = {**self._who, "step": name, "nth": self._calls[name]}
        if ev == "W-":
            # Read after the wait gave back: the moment it can first be acted on.
            where_now = lambda: {"now": self._leg.rt.ledger.now().isoformat()}  # noqa: E731
        else:
            where_now = dict
        try:
            value = ask()
        except handled as error:
            value = {"raised": type(error).__name__}
            ev = "X" if ev == "N" else ev
        note(ev, **where, **where_now(), value=digest(value))
        self.parts.append([name, self._calls[name], value])
        return value


def _decide(**how: Any) -> dict[str, Any]:
    decision = wait_for_human("Send it?", to="ana", **how)
    return {"outcome": decision.outcome, "by": decision.by}


def _reference(name: str, rest_seconds: float, human: dict[str, Any]) -> dict[str, Any]:
    body = Body()
    body.do(plan, name)
    pages = [body.do(fetch, page) for page in (1, 2, 3)]
    body.do(charge, 42)
    early = body.wait(f"wait_for_tool:{TOOL}", lambda: wait_for_tool(TOOL, f"{name}:early"))
    body.do(flaky)
    body.do(broken)
    decision = body.wait("wait_for_human", lambda: _decide(**human))
    ref = body.do(book, str(decision.get("outcome")))
    body.do(tell, "ana", ref)
    late = body.wait(f"wait_for_tool:{TOOL}", lambda: wait_for_tool(TOOL, f"{name}:late"))
    box = body.do(pack, [*pages, early, late])
    body.wait("wait_for_time", lambda: wait_for_time(rest_seconds))
    sent = body.do(ship, box)
    body.do(close, digest([sent, decision, body.parts]))
    return body.end()


def _child(name: str) -> dict[str, Any]:
    body = Body()
    body.do(plan, name)
    return body.end()


def _question(name: str) -> dict[str, Any]:
    body = Body()
    body.wait("wait_for_human", lambda: _decide(timeout=3600))
    return body.end()


def _board(name: str) -> dict[str, Any]:
    body = Body()
    body.wait("wait_for_human", lambda: _decide(timeout=3600, quorum=2))
    return body.end()


def _job(name: str) -> dict[str, Any]:
    body = Body()
    body.wait(f"wait_for_tool:{TOOL}", lambda: wait_for_tool(TOOL, f"{name}:late"))
    return body.end()


def _nap(name: str) -> dict[str, Any]:
    body = Body()
    body.wait("wait_for_time", lambda: wait_for_time(3600))
    return body.end()


def _poison(name: str) -> dict[str, Any]:
    body = Body()
    body.do(plan, name)
    body.do(lethal)
    return body.end()


class Tasks:
    """The reference intents as tasks of one application."""

    def __init__(self, axme: Any) -> None:
        self.reference = axme.task(name=REFERENCE, max_attempts=100)(_reference)
        self.child = axme.task(name=CHILD, max_attempts=100)(_child)
        self.poison = axme.task(name=POISON, max_attempts=POISON_ATTEMPTS)(_poison)
        #: One wait each: for a person, for a tool, for an hour to pass.
        self.question = axme.task(name="chaos.question", max_attempts=100)(_question)
        #: One wait for two of three people.
        self.board = axme.task(name="chaos.board", max_attempts=100)(_board)
        self.job = axme.task(name="chaos.job", max_attempts=100)(_job)
        self.nap = axme.task(name="chaos.nap", max_attempts=100)(_nap)
        child = self.child

        def family(name: str) -> dict[str, Any]:
            body = Body()
            body.do(plan, name)
            given = body.wait("wait_for_agent", lambda: wait_for_agent(child.s(name)))
            body.do(tell, "parent", digest(given))
            return body.end()

        self.family = axme.task(name=FAMILY, max_attempts=100)(family)
        #: An ordinary task: a pipeline's legs need not be durable tasks.
        self.link = axme.app.task(name=links.LINK, shared=False)(links.link)

    def work(self, kind: str, name: str, *, rest_seconds: float = 2.0, human: dict[str, Any] | None = None) -> Any:
        """The signature to submit. human: arguments of its human wait, as a timeout."""
        if kind == "reference":
            return self.reference.s(name, rest_seconds, human or {})
        if kind == "pipeline":
            return links.canvas(self.link)
        return getattr(self, kind).s(name)
