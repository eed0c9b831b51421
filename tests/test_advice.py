"""Advice on made-up projects: every rule, and what to do first."""

from __future__ import annotations

import pytest

from axme_celery.advice import RULES, Entry, ProjectFacts, Risk, TaskFacts, Use, advise, patterns

#: A task nothing can be said against: given out again when its worker dies, within the visibility timeout.
SAFE = {"acks_late": True, "reject_on_worker_lost": True, "time_limit_seconds": 60.0}


def project(*tasks: TaskFacts, **facts: object) -> ProjectFacts:
    """A project on Redis with these tasks."""
    whole = {"installed": True, "visibility_timeout_seconds": 3600.0, "result_backend": "redis", **facts}
    return ProjectFacts(tasks=tasks, **whole)


def said(task: TaskFacts, **facts: object) -> list[tuple[Risk, str]]:
    """What is said of one task of a project."""
    (told,) = advise(project(task, **facts)).tasks
    return [(reason.risk, reason.why) for reason in told.reasons]


def task(**facts: object) -> TaskFacts:
    return TaskFacts(name="reports.monthly", **{**SAFE, **facts})


def use(kind: str, **facts: object) -> Use:
    return Use(kind=kind, tasks=("reports.monthly",), place="shop/reports.py:7", **facts)


CASES = {
    "early": (task(acks_late=False), {}, Risk.LOSES, "acknowledged before it runs"),
    "child": (task(reject_on_worker_lost=False), {}, Risk.LOSES, "acks_late without reject_on_worker_lost"),
    "in_chord": (task(), {"uses": (use("chord"),)}, Risk.LOSES, "longer than result_expires (1d), the body is never called"),
    "in_chord, early": (task(acks_late=False), {"uses": (use("chord"),)}, Risk.LOSES, "(shop/reports.py:7): when it is lost"),
    "in_chain": (task(acks_late=False), {"uses": (use("chain"),)}, Risk.LOSES, "a chain goes on after it"),
    "periodic": (
        task(acks_late=False), {"entries": (Entry(name="n", task="reports.monthly", every="every 1d"),)}, Risk.LOSES,
        "beat sends it (every 1d)",
    ),
    "long_countdown": (
        task(), {"uses": (use("countdown", seconds=86400.0),)}, Risk.DOUBLES, "a countdown of 1d (shop/reports.py:7)",
    ),
    "long_countdown, by beat": (
        task(), {"entries": (Entry(name="later", task="reports.monthly", countdown_seconds=7200.0),)}, Risk.DOUBLES,
        "a countdown of 2h (beat entry later): the broker gives it out anew every 1h meanwhile, so it runs about 2 times",
    ),
    "long_countdown, unknown": (task(), {"uses": (use("countdown"),)}, Risk.DOUBLES, "that the code works out"),
    "given_twice": (task(time_limit_seconds=None), {}, Risk.DOUBLES, "longer than the visibility timeout (1h)"),
    "retried": (task(retries=True), {}, Risk.REPEATS, "each time from its start"),
    "unseen": (task(ignore_result=True), {}, Risk.HIDES, "its result is ignored"),
    "unseen, anywhere": (task(), {"result_backend": None}, Risk.HIDES, "there is no result backend"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_risk_is_told_with_its_reason(case):
    """At its level, in words that say why."""
    one, facts, risk, words = CASES[case]

    assert any(words in why and found is risk for found, why in said(one, **facts)), said(one, **facts)


def test_every_rule_has_a_case():
    """And can find something."""
    assert {case.partition(",")[0] for case in CASES} == {rule.__name__ for rule in RULES}


def test_a_task_that_comes_back_within_the_timeout_is_well():
    """``acks_late``, ``reject_on_worker_lost``, a limit, a result, no retry: nothing is said."""
    assert said(task()) == []
    (told,) = advise(project(task())).tasks
    assert told.risk is Risk.OK


def test_short_countdowns_and_brokers_without_a_timeout_are_well():
    assert said(task(), uses=(use("countdown", seconds=60.0),)) == []
    assert said(task(time_limit_seconds=None), visibility_timeout_seconds=None, uses=(use("countdown"),)) == []


def test_a_kept_task_is_told_nothing():
    """Whatever its options are: its calls are intents."""
    told = advise(project(task(kept=True, acks_late=False), uses=(use("chord"),)))

    assert [(one.risk, one.reasons) for one in told.tasks] == [(Risk.KEPT, ())]
    assert told.first == ()


def test_the_worst_come_first():
    tasks = [
        TaskFacts(name="a.kept", kept=True), TaskFacts(name="b.hides", **SAFE, ignore_result=True),
        TaskFacts(name="c.loses"), TaskFacts(name="d.repeats", **SAFE, retries=True), TaskFacts(name="e.ok", **SAFE),
    ]  # fmt: skip

    assert [one.task for one in advise(project(*tasks)).tasks] == ["c.loses", "d.repeats", "b.hides", "e.ok", "a.kept"]


# -- what to do first --------------------------------------------------------------------


def test_what_to_do_first_goes_from_the_smallest_step_to_the_largest():
    """Install; name what doubles; name what loses; submit what is put together; steps."""
    tasks = [
        TaskFacts(name="mail.remind"),
        TaskFacts(name="reports.fetch"),
        TaskFacts(name="reports.total", retries=True),
    ]
    uses = (
        Use(kind="countdown", tasks=("mail.remind",), place="v.py:1", seconds=90000.0),
        Use(kind="chord", tasks=("reports.fetch",), place="r.py:2"),
    )

    first = advise(project(*tasks, uses=uses, installed=False)).first

    assert [step.partition(":")[0] for step in first] == [
        "put axme = Axme(app) beside your Celery app",
        "axme_tasks = ['mail.remind']",
        "then axme_tasks = ['mail.remind', 'reports.*']",
        "hand these chords to axme.submit(...), so that their joins are counted in the ledger",
        "put @step on what must not be done twice in reports.total",
    ]


def test_nothing_is_to_be_done_where_all_is_kept():
    """Nor is a canvas whose members all are."""
    tasks = [TaskFacts(name="a.b", kept=True)]

    assert advise(project(*tasks, uses=(Use(kind="chord", tasks=("a.b",), place="x.py:1"),))).first == ()


def test_families_are_named_by_a_pattern_where_that_reaches_nobody_else():
    """One member left out, or a task deeper below, and each is named by itself."""
    told = advise(project(*(TaskFacts(name=name) for name in ("r.a", "r.b", "s.a", "s.b", "s.deep.c", "lone")))).tasks

    assert patterns(["r.a", "r.b"], list(told)) == ["r.*"]
    assert patterns(["r.a"], list(told)) == ["r.a"]
    assert patterns(["s.a", "s.b", "lone"], list(told)) == ["s.a", "s.b", "lone"]
