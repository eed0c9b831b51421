"""The pytest plugin in Celery's suite: it notes how each test ended, and puts the extension into every app.

``SUITE_OUTCOMES`` names the file for the outcomes, one JSON line a test and a last one of what was counted;
``SUITE_WITH`` is set when each app is to have an ``Axme``, and each of its tasks the wrapper that carries legs.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

counts: Counter[str] = Counter()
#: A file with a byte for each task that ran.
running: list[Path] = []
#: Those that workers have started.
keepers: list[Any] = []
outcomes: dict[str, str] = {}


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("SUITE_WITH"):
        put_extension_into_every_app()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    # Many a test starts a worker's parts and never shuts it down, and all are held to leaving no thread behind.
    while keepers:
        keepers.pop().stop()
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    outcome = f"x{report.outcome}" if hasattr(report, "wasxfail") else report.outcome
    before = outcomes.get(report.nodeid, "passed")
    # Of set-up, call and tear-down the first that did not pass; the last of several tries.
    outcomes[report.nodeid] = outcome if report.when == "setup" or before == "passed" else before


def pytest_sessionfinish(session: pytest.Session) -> None:
    counts["tasks run"] = sum(path.stat().st_size for path in running)
    lines = [json.dumps([test, outcome]) for test, outcome in sorted(outcomes.items())]
    Path(os.environ["SUITE_OUTCOMES"]).write_text("\n".join([*lines, json.dumps(dict(counts))]) + "\n")


def put_extension_into_every_app() -> None:
    """``Axme(app)`` for each app as it is made, as a project would say it in the line below.

    And the wrapper around each task before it is first run, as in a worker. Only the beat schedule is left as it was: there
    the sweep is one entry more, which tests that count entries would count.
    """
    from celery import Celery
    from celery.app import trace

    from axme_celery import Axme, beat, calls, signals
    from axme_celery.keeper import Keeper

    folder = tempfile.mkdtemp(prefix="axme-celery-suite-")
    make = Celery.__init__

    def made(app: Any, *args: Any, **kwargs: Any) -> None:
        make(app, *args, **kwargs)
        Axme(app, ledger_url=f"sqlite:///{folder}/ledger.db")
        counts["apps"] += 1

    build = trace.build_tracer

    def built(name: str, task: Any, *args: Any, **options: Any) -> Any:
        axme = getattr(task.app, "axme", None)
        if axme is not None:
            signals.wrap(axme, task)
            counts["tasks wrapped"] += 1
        return build(name, task, *args, **options)

    start = Keeper.start

    def started(self: Keeper) -> None:
        start(self)
        keepers.append(self)

    takes = calls.Calls.takes

    def looked_at(self: calls.Calls, name: str) -> bool:
        counts["calls looked at"] += 1
        return takes(self, name)

    left = calls.left

    # A file: most tasks of the integration tests run in a worker's children.
    runs = os.open(Path(folder, "runs"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    running.append(Path(folder, "runs"))

    def ran(request: Any) -> None:
        os.write(runs, b".")
        left(request)

    Celery.__init__ = made
    calls.left = ran
    beat.add_entry = lambda axme, app: {}  # type: ignore[assignment]
    trace.build_tracer = built
    Keeper.start = started  # type: ignore[method-assign]
    calls.Calls.takes = looked_at  # type: ignore[method-assign]
