"""A small project with intents: what the workers of these tests run, and what the tests submit.

Like any project it reads its configuration where it is told to: ``E2E_CONFIG`` holds
Celery's settings as JSON, ``E2E_FOLDER`` the folder for what its tasks leave behind.
Each effect is a line of a file, with the process and the moment, so that a test can
count what really happened rather than believe a record of it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery, Task, signals

from axme_celery import (
    Axme,
    ToolFailed,
    current_intent,
    current_step,
    progress,
    step,
    wait_for_agent,
    wait_for_human,
    wait_for_time,
    wait_for_tool,
)
from axme_celery.demo import files
from tests.e2e import library  # noqa: F401, its tasks belong to every app

folder = Path(os.environ["E2E_FOLDER"])
files.register()
app = Celery("e2e")
app.conf.update(json.loads(os.environ["E2E_CONFIG"]))
# Imported by workers as they start, not by those who submit.
app.conf.include = ["tests.e2e.included"]
axme = Axme(app)
# Several of this project live in one test process, each with tasks of its own.
durable, ordinary = partial(axme.task, shared=False), partial(app.task, shared=False)

#: A held step goes on by itself after this long, should its test have died.
HOLD_SECONDS = 60.0


def note(what: str, **facts: Any) -> None:
    """One effect on the outside world, written at once."""
    line = json.dumps({"what": what, "pid": os.getpid(), "at": time.monotonic(), **facts}) + "\n"
    with open(folder / "effects.jsonl", "ab", buffering=0) as effects:
        effects.write(line.encode())


def stay(place: str) -> None:
    """Stand still here while a test holds this place."""
    held = folder / f"hold-{place}"
    give_up_at = time.monotonic() + HOLD_SECONDS
    while held.exists() and time.monotonic() < give_up_at:
        time.sleep(0.01)


def _tell(signal_name: str) -> None:
    """Note this signal of Celery's for the tasks of which a test wants to know."""

    def handler(sender: Any = None, task_id: str | None = None, request: Any = None, **rest: Any) -> None:
        if sender is not None and sender.name in HEARD:
            id = task_id or (request or sender.request).id
            note("signal", name=id, signal=signal_name, state=str(rest.get("state") or ""))

    getattr(signals, signal_name).connect(handler, weak=False)


#: Tasks whose signals are noted.
HEARD = {"e2e.plain", "e2e.retried", "e2e.fails", "e2e.ask"}
for name in ("task_prerun", "task_success", "task_retry", "task_failure", "task_postrun"):
    _tell(name)

# -- durable tasks ----------------------------------------------------------------


@step
def page(name: str, number: int) -> int:
    """A step that says when it starts and when it is done."""
    note("started", name=name, page=number, run=current_step().run)
    stay(f"{name}-{number}")
    note("done", name=name, page=number, run=current_step().run)
    return number


@durable(name="e2e.pages")
def pages(name: str, count: int) -> list[int]:
    """So many steps, one after another."""
    return [page(name, number) for number in range(1, count + 1)]


@durable(name="e2e.double")
def double(number: int) -> int:
    return 2 * number


@durable(name="e2e.journey", deadline="10m")
def journey(name: str) -> dict[str, Any]:
    """Steps, and each of the four waits."""
    before = page(name, 1)
    rows = wait_for_tool("warehouse", f"{name}-job", timeout="5m")
    decision = wait_for_human("Publish?", to="analysts", context={"rows": rows}, timeout="5m")
    wait_for_time(0.1)
    doubled = wait_for_agent(double.s(21), timeout="5m")
    after = page(name, 2)
    progress(2, 2)
    return {
        "intent": current_intent().id, "before": before, "rows": rows, "approved": decision.approved,
        "by": decision.by, "doubled": doubled, "after": after,
    }  # fmt: skip


@durable(name="e2e.ask")
def ask(name: str) -> str:
    """A step, a person, and a step."""
    page(name, 1)
    decision = wait_for_human(f"{name}?", to="ana")
    page(name, 2)
    return f"{decision.outcome} by {decision.by}"


@durable(name="e2e.nap")
def nap(name: str, seconds: float) -> str:
    """Rests for so long, and notes that it woke."""
    note("lies down", name=name)
    wait_for_time(seconds)
    note("woke", name=name)
    return name


@durable(name="e2e.quiet", ignore_result=True)
def quiet(name: str) -> str:
    wait_for_time(0.05)
    note("quiet", name=name)
    return name


class OutOfPaper(Exception):
    """The project's own kind of exception."""


@durable(name="e2e.out_of_paper")
def out_of_paper(tray: int) -> None:
    raise OutOfPaper(f"tray {tray} is empty")


@durable(
    name="e2e.stubborn", autoretry_for=(ConnectionError,), default_retry_delay=0, max_retries=5, retry_backoff=False
)
def stubborn(name: str, failures: int) -> str:
    """Fails so often and is retried by Celery's ``autoretry_for``; its step is done once all the same."""
    page(name, 1)
    tries = count_of("tried", name) + 1
    note("tried", name=name)
    if tries <= failures:
        raise ConnectionError(f"try {tries}")
    return f"after {tries} tries"


@durable(name="e2e.again", bind=True, max_retries=3)
def again(self: Task, name: str, countdown: float) -> dict[str, Any]:
    """Asks Celery to retry it, with a countdown and other arguments."""
    page(name, 1)
    note("tried", name=name, retries=self.request.retries)
    if self.request.retries == 0:
        raise self.retry(args=(name,), kwargs={"countdown": 7.0}, countdown=countdown)
    return {"retries": self.request.retries, "countdown": countdown}


@durable(name="e2e.endless", bind=True, max_retries=2, default_retry_delay=0)
def endless(self: Task, name: str) -> None:
    """Retried until Celery has had enough."""
    note("tried", name=name)
    try:
        raise ConnectionError("still no answer")
    except ConnectionError as error:
        raise self.retry(exc=error) from error


@durable(name="e2e.overrun", time_limit=1)
def overrun(name: str) -> None:
    """Runs into its hard time limit."""
    page(name, 1)
    note("overrunning", name=name)
    time.sleep(HOLD_SECONDS)


@durable(name="e2e.poison", max_attempts=3)
def poison(name: str) -> None:
    """Kills the process it runs in, each time."""
    note("killing", name=name)
    os.kill(os.getpid(), signal.SIGKILL)


@durable(name="e2e.polled")
def polled(name: str, answers_after: int) -> Any:
    """Waits for a tool that must be asked."""
    return wait_for_tool("printer", name, poll=ask_printer.s(name, answers_after), every=0.2)


@durable(name="e2e.busy")
def busy(name: str, seconds: float) -> str:
    """A step that never lets go of its processor."""
    return spin(name, seconds)


@step
def spin(name: str, seconds: float) -> str:
    note("spinning", name=name)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))
    return name


@durable(name="e2e.small")
def small(number: int) -> int:
    """What there are hundreds of: one step and a result."""
    return same(number)


@step
def same(number: int) -> int:
    return number


def count_of(what: str, name: str) -> int:
    """How often this effect has happened."""
    lines = (folder / "effects.jsonl").read_text().splitlines()
    return sum(1 for line in lines if (e := json.loads(line))["what"] == what and e.get("name") == name)


if os.environ.get("E2E_LATER"):

    @durable(name="e2e.later")
    def later(name: str) -> str:
        """What only newer workers know."""
        return f"{name} at last"


# -- ordinary tasks, nobody touched them --------------------------------------------


@ordinary(name="e2e.plain")
def plain(x: int, y: int = 1) -> int:
    return x + y


@ordinary(name="e2e.bound", bind=True)
def bound(self: Task, x: int) -> dict[str, Any]:
    """What a task sees of its own request."""
    return {
        "x": x, "id": self.request.id, "name": self.name, "retries": self.request.retries,
        "axme": self.request.get("axme"), "headers": self.request.headers,
    }  # fmt: skip


class ClassBased(Task):
    """A task the old way."""

    name = "e2e.class_based"

    def run(self, x: int) -> int:
        return x + 3


class_based = app.register_task(ClassBased())


class Counting(Task):
    """A base with a ``__call__`` of its own, as many projects have one."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        note("called", name=self.name)
        return super().__call__(*args, **kwargs)


@ordinary(name="e2e.counted", base=Counting)
def counted(x: int) -> int:
    return x + 4


class Hooked(Task):
    """A base with a hook of its own."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note("before_start", name=self.name, task_id=task_id)


@ordinary(name="e2e.hooked", base=Hooked, bind=True)
def hooked(self: Task, x: int) -> int:
    return x + 5


@ordinary(name="e2e.retried", autoretry_for=(ConnectionError,), default_retry_delay=0, retry_backoff=False)
def retried(name: str, failures: int) -> str:
    """An ordinary task with ``autoretry_for``."""
    tries = count_of("tried", name) + 1
    note("tried", name=name)
    if tries <= failures:
        raise ConnectionError(f"try {tries}")
    return f"after {tries} tries"


@ordinary(name="e2e.stepping", bind=True)
def stepping(self: Task, name: str, count: int) -> list[int]:
    """An ordinary task whose functions are steps: durable when it is submitted."""
    return [jot(name, number) for number in range(1, count + 1)]


@step
def jot(name: str, number: int) -> int:
    """A step that does not care whether it runs inside an intent."""
    note("jotted", name=name, page=number)
    return number


@ordinary(name="e2e.calls")
def calls(x: int) -> str:
    """Calls another, and does not wait for it."""
    return str(bound.delay(x).id)


@ordinary(name="e2e.written")
def written(name: str, count: int) -> list[int]:
    """An ordinary task of so many pages, which a test names in ``axme_tasks``."""
    return [page(name, number) for number in range(1, count + 1)]


@ordinary(name="e2e.fails")
def fails(message: str) -> None:
    raise OutOfPaper(message)


@ordinary(name="e2e.ask_printer")
def ask_printer(name: str, answers_after: int) -> str | None:
    """None while the printer prints; on ``answers_after=0`` it has none to print on."""
    if answers_after == 0:
        raise ToolFailed("printer", name, "no paper")
    note("asked", name=name)
    return "printed" if count_of("asked", name) >= answers_after else None


@ordinary(name="e2e.inside")
def inside() -> dict[str, Any]:
    """What there is to know inside a worker's child."""
    import gc
    import threading

    import psutil

    gc.collect()
    me = psutil.Process()
    return {
        "pid": me.pid,
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "connections": len([c for c in me.net_connections() if c.status == psutil.CONN_ESTABLISHED]),
        "files": me.num_fds(),
        "rss": me.memory_info().rss,
        "garbage": sum(generation["collected"] for generation in gc.get_stats()),
    }


@ordinary(name="e2e.joined")
def joined(results: list[Any]) -> int:
    """The body of a chord: how many results came together."""
    return len(results)


@ordinary(name="e2e.errback")
def errback(name: str) -> None:
    """What ``link_error`` calls."""
    note("errback", name=name)


@durable(name="e2e.late_pages", acks_late=True, reject_on_worker_lost=True)
def late_pages(name: str, count: int) -> list[int]:
    """So many steps, acknowledged late: the broker, too, wants to run it again when its worker dies."""
    return [page(name, number) for number in range(1, count + 1)]


@ordinary(name="e2e.replaced", bind=True)
def replaced(self: Task, x: int) -> None:
    """Becomes another task."""
    raise self.replace(plain.s(x, y=10))


# -- what is sent over HTTP ---------------------------------------------------------------


@axme.handles("intent.e2e.double.v1")
@durable(name="e2e.sent")
def sent(payload: dict[str, Any]) -> dict[str, Any]:
    """Runs for whatever is of this type."""
    return {"doubled": payload["number"] * 2, "pid": os.getpid()}


@axme.agent("agent://acme/ops/reporter")
@durable(name="e2e.report")
def report(payload: dict[str, Any]) -> dict[str, Any]:
    """Asks a person, then an agent outside Celery."""
    decision = wait_for_human("Publish the report?", to="sdk", timeout="5m")
    summary = wait_for_agent("agent://acme/ops/bot", {"summarize": payload["month"]}, timeout="5m")
    return {"approved": decision.approved, "summary": summary["summary"]}
