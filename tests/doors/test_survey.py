"""What is read of a project, from its registry of tasks and from its code; and the verb that tells it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from axme_celery.advice import Entry, ProjectFacts

from .command_line import SCRIPT

APP = """
from celery import Celery
app = Celery("SHOP", broker="redis://127.0.0.1:1/0", backend="db+sqlite://", include=["SHOP.tasks", "SHOP.views"])
app.conf.update(
    task_time_limit=30,
    result_expires=7200,
    broker_transport_options={"visibility_timeout": 600},
    beat_schedule={
        "nightly": {"task": "SHOP.tasks.nightly", "schedule": 86400.0},
        "later": {"task": "SHOP.tasks.remind", "schedule": 60, "options": {"countdown": 900}},
    },
)
"""
TASKS = """
from celery import chain, chord, group, shared_task
from SHOP.app import app

@app.task
def fetch(n): return n

@app.task(ignore_result=True)
def total(ns): return sum(ns)

@app.task(autoretry_for=(OSError,))
def nightly():
    chord([fetch.s(i) for i in range(3)], total.s()).delay()
    chain(fetch.s(1), audit.s()).delay()
    chain([audit.s(1), fetch.s()]).delay()
    (fetch.s(1) | audit.s() | total.si([])).delay()
    (group(fetch.s(i) for i in range(2)) | total.s()).delay()
    return 1 | 2

@shared_task(acks_late=True, reject_on_worker_lost=True, time_limit=5)
def audit(x): return x

@app.task(bind=True)
def remind(self, who):
    try:
        raise ValueError
    except ValueError as error:
        raise self.retry(exc=error, countdown=10)
"""
VIEWS = """
from SHOP import tasks

def order(days):
    tasks.remind.apply_async(("ana",), countdown=24 * 3600 + 60)
    tasks.fetch.s(1).set(countdown=days * 86400).delay()
    tasks.fetch.apply_async((1,), eta=days)
    tasks.total.apply_async(([],), priority=3)
    {}.set(countdown=5) if days < 0 else None
"""


SURVEY = """
import pickle, sys
import shop
from axme_celery.survey import survey
sys.stdout.buffer.write(pickle.dumps(survey(shop.app)))
"""


def made(folder: Path) -> Path:
    """A folder with a project that knows nothing of us."""
    package = folder / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("from shop.app import app\n")
    for name, text in (("app", APP), ("tasks", TASKS), ("views", VIEWS)):
        (package / f"{name}.py").write_text(text.replace("SHOP", "shop"))
    return folder


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project of the test's own."""
    return made(tmp_path)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> ProjectFacts:
    """What is read of it, in a process where its tasks are nobody else's."""
    folder = made(tmp_path_factory.mktemp("shop"))
    ran = subprocess.run([sys.executable, "-c", SURVEY], cwd=folder, capture_output=True, timeout=60, check=True)
    found: ProjectFacts = pickle.loads(ran.stdout)
    return found


def test_tasks_are_read_with_the_options_that_decide(facts):
    """Their own, else the project's; Celery's tasks are nobody's concern."""
    tasks = {task.name: task for task in facts.tasks}

    assert set(tasks) >= {f"shop.tasks.{name}" for name in ("fetch", "total", "nightly", "audit", "remind")}
    assert not [name for name in tasks if name.startswith("celery.")]
    audit, total = tasks["shop.tasks.audit"], tasks["shop.tasks.total"]
    assert (audit.acks_late, audit.reject_on_worker_lost, audit.time_limit_seconds) == (True, True, 5.0)
    assert (total.acks_late, total.ignore_result, total.time_limit_seconds) == (False, True, 30.0)
    assert [name for name, task in tasks.items() if task.retries] == ["shop.tasks.nightly", "shop.tasks.remind"]
    assert not any(task.kept for task in tasks.values())


def test_settings_and_the_beat_schedule_are_read(facts):
    assert (facts.broker, facts.visibility_timeout_seconds) == ("redis", 600.0)
    assert (facts.result_backend, facts.result_expires_seconds) == ("db+sqlite", 7200.0)
    assert facts.installed is False
    assert facts.entries == (
        Entry(name="nightly", task="shop.tasks.nightly", every="every 1d"),
        Entry(name="later", task="shop.tasks.remind", countdown_seconds=900.0, every="every 1m"),
    )


def test_chords_chains_and_countdowns_are_found_where_they_are_written(facts):
    """With file and line; what is no signature is no chain."""
    found = [(use.kind, use.place, tuple(t.rpartition(".")[2] for t in use.tasks), use.seconds) for use in facts.uses]

    assert sorted(found, key=str) == sorted(
        [
            ("chord", "shop/tasks.py:13", ("fetch",), None),
            ("chain", "shop/tasks.py:14", ("fetch",), None),
            ("chain", "shop/tasks.py:15", ("audit",), None),
            ("chain", "shop/tasks.py:16", ("fetch", "audit"), None),
            ("chord", "shop/tasks.py:17", ("fetch",), None),
            ("countdown", "shop/views.py:5", ("remind",), 86460.0),
            ("countdown", "shop/views.py:6", ("fetch",), None),
            ("countdown", "shop/views.py:7", ("fetch",), None),
        ],
        key=str,
    )


def advise(shop: Path, *words: str) -> str:
    """What the verb prints for a project, in a process of its own."""
    ran = subprocess.run(
        [*SCRIPT, "-A", "shop", "advise", *words], cwd=shop, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_verb_advises_a_project_that_has_no_axme_and_no_server(shop):
    """Nothing is asked of any server: there is none."""
    told = advise(shop)

    assert "LOSES    shop.tasks.fetch" in told
    assert "a chord waits for it (shop/tasks.py:13, shop/tasks.py:17)" in told
    assert "\nwhat to do first\n1. put axme = Axme(app) beside your Celery app" in told
    assert "axme_tasks = ['shop.tasks.fetch', 'shop.tasks.remind']" in told


def test_what_is_named_is_kept(shop):
    """After the advice was taken; as JSON."""
    app = shop / "shop" / "app.py"
    app.write_text(
        app.read_text().replace("app.conf.update(", "app.conf.update(\n    axme_tasks=['shop.tasks.*'],")
        + "from axme_celery import Axme\naxme = Axme(app)\n"
    )

    told = json.loads(advise(shop, "--json"))

    assert {task["task"]: task["risk"] for task in told["tasks"] if task["task"].startswith("shop.")} == {
        f"shop.tasks.{name}": "KEPT" for name in ("fetch", "total", "nightly", "audit", "remind")
    }
    assert told["first"] == []
