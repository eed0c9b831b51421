"""Between Celery's signatures and messages and our legs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from celery.canvas import Signature
from kombu import Exchange, Queue

from axme_celery import BadInput, UnsupportedWork, wait_for_time
from axme_celery.testing import Stage
from axme_celery.work import HEADER, own_header


@pytest.fixture
def work(axme):
    @axme.task(deadline="5d", max_attempts=7, type="export", on_drift="continue")
    def work(month, *, pages=50):
        return [month, pages]

    return work


def published(stage, axme, signature):
    """The message of a signature that was submitted."""
    axme.submit(signature)
    stage._relay.flush()
    return stage._worker._messages[-1][2]


# -- reading -------------------------------------------------------------------------------


def test_work_is_what_the_signature_and_its_task_say(stage, axme, work):
    """Arguments, the leg's id, and what ``@axme.task`` was given."""
    read = axme.read_work(work.s("2026-10", pages=3))

    assert (read.task, read.type, read.max_attempts, read.on_drift) == (work.name, "export", 7, "continue")
    assert read.deadline_seconds == 5 * 86400
    assert axme.runtime.codec.decode(read.payload) == {"task": work.name, "args": ["2026-10"], "kwargs": {"pages": 3}}
    assert not read.named and read.signature["options"]["task_id"] == read.leg_id


def test_an_ordinary_task_is_read_with_the_usual_bounds(stage, app, axme):
    """It says nothing of them itself."""

    @app.task(shared=False)
    def plain():
        pass

    read = axme.read_work(plain.s())

    assert (read.type, read.max_attempts, read.on_drift, read.deadline_seconds) == (plain.name, 5, "park", None)


def test_the_bound_on_attempts_is_the_settings(app, axme):
    """Wherever it was set: in the configuration, or for this Axme alone."""

    @axme.task
    def work():
        pass

    with Stage(app, max_attempts=2) as stage:
        intent = stage.submit(work.s())

        assert intent.legs()[0].max_attempts == 2


def test_the_same_call_is_the_same_work_and_another_is_not(stage, axme, work):
    """However it is written; options of sending do not matter, arguments do."""
    same = [
        work.s("2026-10", pages=3),
        Signature(work.name, args=["2026-10"], kwargs={"pages": 3}, app=axme.app),
        dict(work.s("2026-10", pages=3)),
        work.s("2026-10", pages=3).set(queue="slow", countdown=60, task_id="mine"),
    ]
    others = [work.s("2026-11", pages=3), work.s("2026-10", pages=4), work.s("2026-10")]

    hashes = {axme.read_work(each).work_hash for each in same}

    assert len(hashes) == 1
    assert hashes.isdisjoint({axme.read_work(each).work_hash for each in others})


def test_a_task_this_process_does_not_know_can_be_submitted_by_name(stage, axme):
    """A web app need not import the workers' code."""
    read = axme.read_work(Signature("reports.monthly", args=("2026-10",), app=axme.app))

    assert (read.task, read.type, read.max_attempts) == ("reports.monthly", "reports.monthly", 5)


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, None),
        ({"countdown": 90}, 90),
        ({"countdown": 1.5}, 1.5),
        ({"eta": datetime(2100, 1, 1, tzinfo=UTC)}, "2100-01-01T00:00:00+00:00"),
        ({"eta": datetime(2100, 1, 1)}, "2100-01-01T00:00:00+00:00"),
        ({"eta": "2100-01-01T00:00:00+02:00"}, "2099-12-31T22:00:00+00:00"),
    ],
    ids=str,
)
def test_a_start_in_the_future_is_read_as_celery_means_it(stage, axme, work, options, seconds):
    """From the ledger's clock; a naive eta is UTC."""
    start_at = axme.read_work(work.s("m").set(**options)).start_at

    if isinstance(seconds, str):
        assert start_at.isoformat() == seconds
    else:
        assert start_at == (None if seconds is None else stage.now + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    "options", [{"countdown": -1}, {"countdown": "soon"}, {"eta": "tomorrow"}, {"task_id": "x" * 256}]
)
def test_options_that_cannot_work_are_refused(stage, axme, work, options):
    """Before anything is kept."""
    with pytest.raises(BadInput):
        axme.read_work(work.s("m").set(**options))

    assert list(axme.intents()) == []


def test_what_is_no_call_of_one_task_is_refused_by_its_name(stage, axme, work):
    """Canvases come by and by."""
    for given, words in (
        (work, "write work.s"),
        ("work", "str is no Celery signature"),
        (work.s("m") | work.si("n"), "a chain"),
    ):
        with pytest.raises(UnsupportedWork, match=words):
            axme.read_work(given)


# -- publishing ----------------------------------------------------------------------------


def test_a_legs_message_is_an_ordinary_one_with_one_header_more(stage, axme, work):
    """The task id is the leg's; the header says which intent and which run."""
    message = published(stage, axme, work.s("2026-10").set(headers={"tenant": "acme"}))

    (intent,) = axme.intents()
    (leg,) = intent.legs()
    assert (message.headers["id"], message.headers["task"]) == (leg.id, work.name)
    assert message.headers[HEADER] == {"intent": intent.id, "run": 1}
    assert message.headers["tenant"] == "acme"


def test_the_options_of_a_call_go_with_every_message_of_its_leg(stage, axme):
    """Queue, priority, limits, links: also when it is resumed days later, by a process that knows nothing of them."""

    @axme.task(time_limit=60, soft_time_limit=50)
    def work():
        wait_for_time("2d")

    work.apply_async(queue="slow", priority=7, shadow="Shadow")
    stage._relay.flush()
    first = stage._worker._messages[-1][2]
    stage.run()
    stage._now += timedelta(days=2)
    while not stage._worker._messages:
        stage._relay.flush() or stage._sweep()
    resumed = stage._worker._messages[-1][2]

    for message, run in ((first, 1), (resumed, 2)):
        assert message.headers[HEADER]["run"] == run
        assert (message.headers["timelimit"], message.headers["shadow"]) == ([60, 50], "Shadow")
        assert (message.properties["routing_key"], message.properties["priority"]) == ("slow", 7)


def test_a_queue_given_as_an_object_is_kept_by_its_name(stage, axme, work):
    """Whoever publishes it again declares it as it is configured there."""
    axme.app.conf.task_queues = [Queue("own", Exchange("own"), routing_key="own")]

    read = axme.read_work(work.s("m").set(queue=axme.app.conf.task_queues[0]))

    assert read.signature["options"]["queue"] == "own"


def test_a_call_that_expires_does_so_only_until_it_has_begun(stage, axme):
    """``expires`` is too late to begin; it must not end what has been waiting for a person since."""

    @axme.task
    def work():
        wait_for_time("2d")
        return "done"

    began = stage.now
    work.apply_async(expires=3600)
    stage._relay.flush()
    first = stage._worker._messages[-1][2]
    stage.run()
    stage._now += timedelta(days=2)
    while not stage._worker._messages:
        stage._relay.flush() or stage._sweep()
    resumed = stage._worker._messages[-1][2]

    assert datetime.fromisoformat(first.headers["expires"]) == began + timedelta(hours=1)
    assert resumed.headers["expires"] is None


def test_a_leg_started_by_a_task_notes_it_as_its_parent(stage, app, axme, work):
    """As Celery does: root and parent ids, for tracing."""
    seen = []

    @app.task(shared=False, bind=True)
    def caller(self):
        seen.append(self.request.id)
        work.delay("2026-10")

    caller.delay()
    stage._worker.run_next()
    stage._relay.flush()

    headers = stage._worker._messages[-1][2].headers
    assert (headers["parent_id"], headers["root_id"]) == (seen[0], seen[0])


def test_a_task_that_calls_a_durable_one_does_not_hand_on_its_own_header(stage, axme, work):
    """A header of ours that came along in options would make one leg out of two."""
    message = published(stage, axme, work.s("m").set(headers={HEADER: {"intent": "another", "run": 9}}))

    assert message.headers[HEADER]["run"] == 1
    assert message.headers[HEADER]["intent"] != "another"


@pytest.mark.parametrize(
    "headers", [None, {}, {HEADER: None}, {HEADER: "x"}, {HEADER: {}}, {HEADER: {"run": "1"}}, {HEADER: [1]}]
)
def test_a_header_of_another_shape_is_not_ours(headers):
    """Another library may use the same word."""
    assert own_header(headers) is None


@pytest.mark.parametrize("expires", [1e18, -1e18, float("inf"), float("nan")])
@pytest.mark.parametrize("piped", [False, True], ids=["alone", "in a pipeline"])
def test_an_expiry_beyond_any_calendar_is_refused_when_it_is_submitted(stage, axme, expires, piped):
    """Of one task, and of one in a pipeline whose turn is yet to come."""

    @axme.task
    def work(*_):
        return 1

    canvas = work.s() | work.s().set(expires=expires) if piped else work.s().set(expires=expires)

    with pytest.raises(BadInput, match="expires"):
        stage.submit(canvas)
