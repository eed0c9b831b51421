"""``axme_celery.testing``: what users' own tests rely on."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery, group

from axme_celery import BadInput, BadSetting, step, wait_for_agent, wait_for_human, wait_for_time, wait_for_tool
from axme_celery.model import LegStatus, Status
from axme_celery.testing import Stage

ROOT = Path(__file__).parents[1]


@pytest.fixture
def export(axme):
    """The task of the README."""
    pages = []

    @step(name="publish_page")
    def publish_page(n):
        pages.append(n)

    @axme.task
    def export(month):
        rows = wait_for_tool("warehouse", month, timeout="2h")
        decision = wait_for_human(
            "Publish the report?", to="analysts", timeout="2d", remind_every="4h", escalate_to="head-of-data"
        )
        if decision.approved:
            for n in range(5):
                publish_page(n)
        return {"rows": rows, "published": decision.approved}

    export.pages = pages
    return export


# -- a whole story --------------------------------------------------------------------------


def test_a_whole_export_with_its_kill_runs_in_one_process(stage, export):
    """Submitted, waited for, killed, resumed, answered: no broker, no worker, no sleeping."""
    intent = stage.submit(export.s("2026-10"))
    stage.complete_tool("warehouse", "2026-10", 120)
    stage.pass_time("9h")
    stage.kill(at_step="publish_page#4")
    intent = stage.answer(intent, "approved", by="ana")

    assert intent.result == {"rows": 120, "published": True}
    assert export.pages == [0, 1, 2, 3, 3, 4]
    assert [n.kind for n in stage.notices] == ["wait_opened", "reminder", "reminder"]
    assert [w.outcome for w in stage.waits(intent)] == ["completed", "approved"]
    assert [e.type for e in stage.history(intent.id)][-2:] == ["intent.leg_lost", "intent.completed"]
    assert stage.inbox("analysts") == []


# -- the clock -------------------------------------------------------------------------------


def test_the_clock_stands_still_until_it_is_moved(stage, export):
    """Nothing falls due by the test's own slowness."""
    began = stage.now
    stage.submit(export.s("2026-10"))
    unmoved = stage.now
    stage.pass_time("1h30m")

    assert unmoved == began
    assert stage.now == began + timedelta(hours=1, minutes=30)


def test_what_falls_due_happens_in_order_at_its_moment(stage, axme):
    """Timers, reminders, timeouts and deadlines of all intents; and what they wake runs then."""
    diary = []

    @step
    def note(name):
        diary.append((name, (stage.now - began) / timedelta(hours=1)))

    @axme.task
    def sleeper(name, *delays):
        for delay in delays:
            wait_for_time(delay)
            note(name)

    @axme.task
    def asker():
        wait_for_human("?", to="ana", remind_every="2h", timeout="5h", on_timeout="rejected")
        note("asker")

    began = stage.now
    stage.submit(sleeper.s("a", "1h", "3h", "3h"))
    stage.submit(sleeper.s("b", "3h"))
    late = stage.submit(sleeper.s("c", "9h"), deadline="6h")
    stage.submit(asker.s())
    stage.pass_time("8h")

    assert diary == [("a", 1), ("b", 3), ("a", 4), ("asker", 5), ("a", 7)]
    assert [(n.at - began) / timedelta(hours=1) for n in stage.notices if n.kind == "reminder"] == [2, 4]
    assert late.refresh().ended_at == began + timedelta(hours=6)


def test_a_long_sleep_of_a_leg_is_one_leap(stage, axme):
    """Years pass as fast as minutes."""

    @axme.task
    def patient():
        wait_for_time("3650d")
        return "at last"

    intent = stage.submit(patient.s())
    stage.pass_time("3650d")

    assert intent.refresh().result == "at last"


def test_a_moment_of_no_length_and_one_before_are_as_expected(stage):
    """The clock does not go back."""
    began = stage.now
    stage.pass_time(0)

    assert stage.now == began
    with pytest.raises(BadInput, match="negative"):
        stage.pass_time(-1)


# -- deaths ----------------------------------------------------------------------------------


def test_a_killed_worker_writes_nothing_more_whatever_its_code_does(stage, axme):
    """``finally`` and ``except BaseException`` run in this process, as they would not after SIGKILL; they can do no harm."""
    tried = []

    @step
    def fetch():
        return 1

    @step
    def cleanup():
        return 2

    @axme.task
    def work():
        try:
            fetch()
        except BaseException:
            tried.append("except")
            cleanup()
        return "done"

    stage.kill("fetch")
    intent = stage.submit(work.s())

    assert tried == ["except"]
    assert [(s.name, s.run) for s in intent.steps()] == [("fetch", 2)]
    assert intent.result == "done"


def test_the_next_step_can_be_meant_without_its_name(stage, axme):
    """``kill()``: whatever is recorded next, a step, a wait or the end."""
    done = []

    @axme.task
    def work():
        step(name="a")(lambda: done.append("a"))()
        wait_for_time("1h")

    for _ in range(3):
        stage.kill()
    intent = stage.submit(work.s())
    stage.pass_time("2h")

    assert done == ["a", "a", "a", "a"]
    assert intent.refresh().status is Status.COMPLETED


def test_a_dead_worker_is_noticed_when_its_lease_has_lapsed(stage, axme):
    """The clock moves on by that much."""
    runs = []

    @axme.task
    def work():
        runs.append(stage.now)
        step(name="a")(lambda: 1)()

    stage.kill("a")
    stage.submit(work.s())

    assert (runs[1] - runs[0]).total_seconds() == axme.settings.lease_seconds


def test_a_death_that_never_happened_fails_the_test(app, axme):
    """A test that kills nobody proves nothing."""

    @axme.task
    def work():
        return 1

    with pytest.raises(AssertionError, match=r"kill\(at_step='publish#1'\) never happened"):
        with Stage(app) as stage:
            stage.kill("publish")
            stage.submit(work.s())


def test_a_failing_test_is_not_blamed_for_the_deaths_it_did_not_reach(app):
    """Its own error is the one to see."""
    with pytest.raises(ZeroDivisionError), Stage(app) as stage:
        stage.kill("publish")
        1 / 0  # noqa: B018


# -- ordinary Celery ----------------------------------------------------------------------------


def test_ordinary_tasks_called_meanwhile_run_too(stage, app, axme):
    """With their retries, countdowns, links, chains and groups, and their results."""
    heard = []

    @app.task(shared=False, bind=True)
    def flaky(self):
        if self.request.retries < 2:
            raise self.retry(countdown=60)
        return "up"

    @app.task(shared=False)
    def hear(word, suffix=""):
        heard.append((word + suffix, stage.now - began))
        return word + suffix

    @axme.task
    def work():
        flaky.apply_async(link=hear.s())
        (hear.s("a") | hear.s("b") | hear.s("c")).delay()
        hear.apply_async(("later",), countdown=3600)
        app.send_task(hear.name, ("by name",))
        return group(hear.s("x"), hear.s("y")).apply_async().id

    began = stage.now
    stage.submit(work.s())
    stage.pass_time("2h")

    assert {word for word, _ in heard} == {"a", "ab", "abc", "later", "by name", "x", "y", "up"}
    after = {word: passed.total_seconds() for word, passed in heard}
    assert (round(after["up"]), round(after["later"]), after["abc"]) == (120, 3600, 0)


def test_a_chord_of_ordinary_tasks_fires_its_body(stage, app):
    """The result backend in memory counts its header."""
    totals = []

    @app.task(shared=False)
    def double(n):
        return 2 * n

    @app.task(shared=False)
    def total(numbers):
        totals.append(sum(numbers))

    (group(double.s(n) for n in range(4)) | total.s()).delay()
    stage.run()

    assert totals == [12]


def test_a_task_may_not_wait_for_another_ones_result(stage, app, axme):
    """As in a worker: it would wait for itself."""

    @axme.task
    def child():
        return 1

    @axme.task
    def work():
        return child.delay().get(timeout=1)

    intent = stage.submit(work.s())

    assert intent.error["code"] == "RuntimeError" and "Never call result.get() within a task" in intent.error["message"]


def test_a_task_that_waits_for_an_intent_is_told_what_to_wait_with(stage, app, axme):
    """In a worker it would keep a slot busy; on a stage it would wait for itself."""

    @axme.task
    def child():
        return 1

    @axme.task
    def work():
        return axme.submit(child.s()).wait()

    intent = stage.submit(work.s())

    assert intent.error["code"] == "TimeoutError" and "wait_for_agent()" in intent.error["message"]


def test_an_app_in_eager_mode_runs_its_intents_on_the_stage_all_the_same(axme, app, export):
    """Many test configurations set it; an eager call could not wait."""
    app.conf.task_always_eager = True

    with Stage(app) as stage:
        called = export.delay("2026-10")
        stage.run()
        state = called.state

    assert state == "WAITING"
    assert app.conf.task_always_eager is True


def test_a_message_that_is_no_task_of_this_app_is_dropped(stage, app, caplog):
    """As a worker does; the log says so."""
    app.send_task("somewhere.else")
    stage.run()

    assert "somewhere.else is not registered" in caplog.text


# -- before and after ------------------------------------------------------------------------------


def test_the_app_is_afterwards_as_it_was_before(axme, app, export):
    """Its runtime, its settings, its producer, its backend, its tasks."""

    @app.task(shared=False)
    def plain():
        return 1

    def look():
        tasks = {
            name: {k: v for k, v in vars(task).items() if k != "_exec_options"} for name, task in app.tasks.items()
        }
        return axme._runtime, axme._settings, app.backend, app.__dict__.get("producer_or_acquire"), tasks

    app.finalize()
    before = look()
    with Stage(app) as stage:
        stage.submit(export.s("2026-10"))
        stage.submit(plain.s())
        during = look()

    assert look() == before
    assert during != before


def test_messages_that_are_about_to_leave_are_lost_or_come_twice_too(stage, axme):
    """What was submitted a moment ago has not left yet; a test that loses its message means that one."""
    ran = []

    @axme.task
    def work(n):
        ran.append(n)

    axme.submit(work.s(1))
    lost = stage.lose_messages()
    stage.run()
    after_loss = list(ran)
    axme.submit(work.s(2))
    stage.copy_messages()
    stage.run()

    assert (lost, after_loss, ran) == (1, [], [2])
    assert not stage._worker.next_moment()
    stage.pass_time("1h")
    assert ran == [2, 1], "what was lost is sent again"


def test_waiting_for_an_intent_runs_it_and_never_hangs(stage, axme):
    """Nobody but the test can move the clock: what waits for that would wait for ever."""

    @axme.task
    def work(asks):
        return wait_for_human("Go on?", to="ana").outcome if asks else "done"

    assert axme.submit(work.s(False)).wait() == "done"
    asking = axme.submit(work.s(True))
    with pytest.raises(TimeoutError, match=r"WAITING and nothing is left to run.*answer"):
        asking.wait()
    with pytest.raises(TimeoutError, match="pass_time"):
        list(asking.follow())
    stage.answer(asking, "approved", by="ana")
    assert asking.wait() == "approved"


def test_one_stage_after_another_starts_empty(app, export):
    """And at the present."""
    with Stage(app) as first:
        first.submit(export.s("2026-10"), key="k")
        first.pass_time("9d")
    with Stage(app) as second:
        assert list(app.axme.intents()) == []
        assert second.notices == []
        intent = second.submit(export.s("2026-10"), key="k")

    assert second.now < first.now
    assert intent.status is Status.WAITING


def test_a_stage_takes_settings_of_its_own(app, axme):
    """The app's configuration holds for the rest."""
    app.conf.axme_max_attempts = 3

    with Stage(app, lease_seconds=60) as stage:
        during = (stage.axme.settings.lease_seconds, stage.axme.settings.max_attempts)

    assert during == (60, 3)
    assert axme.settings.lease_seconds == 15
    with pytest.raises(BadSetting, match="lease_seconds"):
        Stage(app, leese_seconds=60)


def test_an_app_without_an_axme_is_told_what_is_missing():
    """The fixture's default is whatever app is current."""
    with pytest.raises(BadInput, match="axme_app"):
        Stage(Celery("bare", set_as_current=False))


def test_a_task_the_stage_does_not_know_parks_its_leg(stage, axme, app):
    """As in a worker of another deploy."""

    @axme.task
    def parent():
        return wait_for_agent({"task": "elsewhere", "args": [], "kwargs": {}, "options": {"queue": "there"}})

    intent = stage.submit(parent.s())
    child = stage.intent(stage.waits(intent)[0].job_id)

    assert child.legs()[0].status is LegStatus.PARKED
    assert [letter.code for letter in stage.dead_letters()] == ["unknown_task"]


# -- as a pytest plugin ------------------------------------------------------------------------------


def test_the_plugin_costs_nothing_where_it_is_not_used():
    """pytest loads it in every project of an environment that has this package."""
    code = """
    import json, sys
    import axme_celery.testing
    print(json.dumps([m for m in ("celery", "kombu", "sqlalchemy", "redis", "psycopg") if m in sys.modules]))
    """

    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert json.loads(found.stdout) == []


PROJECT = {
    "shop.py": """
        from celery import Celery
        from axme_celery import Axme, step, wait_for_human

        app = Celery("shop", broker="amqp://nowhere", backend="redis://nowhere")
        axme = Axme(app, lease_seconds=30)

        @step
        def order(item):
            return f"{item} ordered"

        @axme.task
        def buy(item):
            if wait_for_human(f"Buy {item}?", to="ana", timeout="2d", on_timeout="rejected").approved:
                return order(item)
    """,
    "conftest.py": """
        import pytest

        @pytest.fixture
        def axme_app():
            from shop import app
            return app
    """,
    "test_shop.py": """
        from shop import app, buy

        def test_what_is_approved_is_bought(axme_stage):
            intent = axme_stage.submit(buy.s("tea"))
            axme_stage.kill("order")
            intent = axme_stage.answer(intent, "approved", by="ana")
            assert intent.result == "tea ordered"

        def test_what_nobody_answers_is_not_bought(axme_stage):
            intent = axme_stage.submit(buy.s("tea"))
            axme_stage.pass_time("2d")
            assert intent.refresh().result is None

        def test_a_death_that_did_not_happen(axme_stage):
            axme_stage.kill("order")
    """,
}


@pytest.mark.parametrize("app_fixture", ["overridden", "the current app"])
def test_a_projects_own_tests_use_the_fixtures(tmp_path, app_fixture):
    """Its app by its own fixture, or the current one; a death that did not happen is an error of that test."""
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(textwrap.dedent(text))
    if app_fixture == "the current app":
        (tmp_path / "conftest.py").unlink()
    plugin = ["-p", "axme_celery.testing", "-p", "no:axme_celery"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin]
    environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": "", "HOME": str(tmp_path)}

    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
    )

    assert "3 passed, 1 error" in ran.stdout, ran.stdout + ran.stderr
    assert "kill(at_step='order#1') never happened" in ran.stdout
