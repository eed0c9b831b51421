"""Pipelines replayed and forked: finished legs stay finished."""

from __future__ import annotations

import pytest
from celery import chord, group

from axme_celery import BadInput, NotFound, step, wait_for_human
from axme_celery.model import LegStatus, Status
from axme_celery.testing import Stage


@pytest.fixture
def calls():
    """What ran, in order."""
    return []


@pytest.fixture
def broken():
    """Whether the task ``breaks`` still does."""
    return [True]


@pytest.fixture
def add(app, calls):
    """An ordinary task that adds."""

    @app.task(shared=False, name="add")
    def add(*numbers):
        calls.append(numbers)
        return sum(number if isinstance(number, int) else sum(number) for number in numbers)

    return add


@pytest.fixture
def breaks(axme, calls, broken):
    """A task with a step that fails after it, until it is mended."""

    @step
    def once(x):
        calls.append(("once", x))
        return x

    @axme.task(name="breaks")
    def breaks(x):
        once(x)
        if broken[0]:
            raise ConnectionError("away")
        return x

    return breaks


def test_a_replayed_pipeline_goes_on_from_its_finished_legs(stage, axme, add, breaks, calls, broken):
    """And from the recorded steps of the one that failed."""
    failed = stage.submit(add.s(1) | breaks.s() | add.s(10))
    broken[0] = False
    calls.clear()
    again = axme.replay(stage.dead_letters()[0].id, by="ops")
    stage.run()

    assert (failed.refresh().status, again.refresh().status, again.result) == (Status.FAILED, Status.COMPLETED, 11)
    assert calls == [(1, 10)]
    assert again.replay_of == failed.id
    assert not {leg.id for leg in again.legs()} & {leg.id for leg in failed.legs()}


def test_a_replayed_chord_waits_only_for_the_members_that_had_failed(stage, axme, add, breaks, calls, broken):
    """Its body gets all results, in order."""
    failed = stage.submit(group(add.s(1), add.s(2) | breaks.s(), add.s(3)) | add.s() | add.s(100))
    broken[0] = False
    calls.clear()
    again = axme.replay(failed.id, by="ops")
    stage.run()

    assert again.refresh().result == 106
    assert calls[-2:] == [([1, 2, 3],), (6, 100)]
    assert ("once", 2) not in calls and (1,) not in calls


def test_a_chord_whose_body_had_failed_is_replayed_with_the_body_alone(stage, axme, add, breaks, calls, broken):
    """All that came together before is still there."""
    failed = stage.submit(chord([add.s(1), add.s(2)], breaks.s()))
    broken[0] = False
    calls.clear()
    again = axme.replay(failed.id, by="ops")
    stage.run()

    assert (again.refresh().result, calls) == ([1, 2], [])


def test_a_rejected_question_is_asked_again(stage, axme, add):
    """And may be answered otherwise."""
    rejected = stage.submit(add.s(1) | wait_for_human.s("Sure?", to="ana") | add.si(7))
    stage.answer(rejected.id, "rejected", by="ana")
    again = axme.replay(rejected.id, by="ops")
    stage.run()
    assert again.refresh().status is Status.WAITING
    stage.answer(again.id, "approved", by="ana")

    assert again.refresh().result == 7


def test_a_pipeline_that_went_another_way_goes_on_there(stage, axme, add, breaks, calls, broken):
    """What was rejected stays so: it is the detour that is repeated."""
    question = wait_for_human.s("Sure?", to="ana", on_reject=breaks.si(3) | add.s(1))
    failed = stage.submit(question | add.si(100))
    stage.answer(failed.id, "rejected", by="ana")
    assert failed.refresh().status is Status.FAILED
    broken[0] = False
    again = axme.replay(failed.id, by="ops")
    stage.run()

    assert again.refresh().result == 4
    assert (100,) not in calls


def test_a_fork_does_a_leg_and_all_that_follows_anew_and_nothing_else(stage, axme, add, calls):
    """Named by its place, its task, or its id."""
    done = stage.submit(add.s(1) | group(add.s(10), add.s(20)) | add.s() | add.s(1000))
    for before in ("1.header[1]", "add#3", done.legs()[2].id):
        calls.clear()
        fork = axme.fork(done.id, before=before, by="ops")
        stage.run()
        assert (fork.refresh().result, calls) == (1032, [(1, 20), ([11, 21],), (32, 1000)])


def test_a_fork_before_a_step_keeps_the_steps_before_it(stage, axme, calls):
    """In the leg that recorded it; with its place where several legs did."""

    @step
    def one():
        calls.append("one")

    @step
    def two():
        calls.append("two")

    @axme.task(name="both")
    def both(*_):
        one()
        two()

    done = stage.submit(both.s() | both.s())
    calls.clear()
    with pytest.raises(BadInput, match="0/two, 1/two"):
        axme.fork(done.id, before="two", by="ops")
    fork = axme.fork(done.id, before="1/two", by="ops")
    stage.run()

    assert (fork.refresh().status, calls) == (Status.COMPLETED, ["two"])
    with pytest.raises(NotFound, match="its legs: 0"):
        axme.fork(done.id, before="three", by="ops")


def test_a_canceled_pipeline_can_be_taken_up_again(stage, axme, add, calls):
    """From where it was; countdowns of what had its turn are over."""
    intent = stage.submit(add.s(1) | add.s(2).set(countdown=3600) | add.s(3))
    intent.cancel("later", by="ana")
    again = axme.replay(intent.id, by="ana")
    stage.run()

    assert (again.refresh().result, calls) == (6, [(1,), (1, 2), (3, 3)])


def test_a_group_too_large_to_join_can_be_replayed_once_there_is_room(app, add):
    """Its members are done; only their join was not."""

    @app.task(shared=False)
    def large():
        return "x" * 900

    with Stage(app, join_bytes=2000) as stage:
        failed = stage.submit(group(large.si(), large.si(), large.si()))
        assert failed.error["code"] == "join_too_large"
        object.__setattr__(stage.axme.runtime.settings, "join_bytes", 100_000)
        again = stage.axme.replay(failed.id, by="ops")
        stage.run()
        assert len(again.refresh().result) == 3


def test_parked_legs_go_on_together(stage, app, axme, add):
    """All that are parked, each with a line of its own."""
    intent = axme.submit(group(add.s(1), add.s(2)) | add.s())
    real = app.tasks.pop("add")
    stage.run()
    parked = [leg.status for leg in intent.legs()]
    app.tasks.register(real)
    intent = axme.unpark(intent.id, by="ops")
    stage.run()

    assert parked == [LegStatus.PARKED, LegStatus.PARKED, LegStatus.PENDING]
    assert intent.refresh().result == 3


@pytest.mark.parametrize("before", ["add", "becomes", "becomes#2"])
def test_a_fork_does_a_leg_that_replaced_itself_anew(stage, app, axme, add, becomes, calls, before):
    """It is the leg it was, takes what comes before it, and replaces itself again; as often as it did."""
    app.canvases |= {"often": lambda x: add.s(x, 10) | becomes.s("once"), "once": lambda x: add.s(x, 20) | add.s(30)}
    intent = stage.submit(add.s(1) | becomes.s("often") | add.s(100))
    ran = len(calls)

    for _ in range(2):
        forked = axme.fork(intent.id, before=before, by="ops")
        stage.run()
        assert (forked.refresh().status, forked.result) == (Status.COMPLETED, 161)
        assert sorted(leg.node for leg in forked.legs()) == sorted(leg.node for leg in intent.legs())
        intent = forked

    assert intent.result == 161
    assert len(calls) - ran == 2 * {"add": 5, "becomes": 4, "becomes#2": 3}[before]


def test_a_fork_before_a_member_that_replaced_itself_waits_for_what_it_becomes(stage, app, axme, add, becomes):
    """The chord's body has the results it had."""
    app.canvases["chain"] = lambda x: add.s(x, 10) | add.s(1)
    intent = stage.submit(chord([becomes.s(1, "chain"), add.s(2)], add.s()))

    forked = axme.fork(intent.id, before="becomes", by="ops")
    stage.run()

    assert (intent.result, forked.refresh().result) == (14, 14)


def test_a_fork_within_what_a_leg_became_keeps_that(stage, app, axme, add, becomes, calls):
    """Nothing before it is done again, and the leg is not replaced again."""
    app.canvases["chain"] = lambda x: add.s(x, 10) | add.s(1)
    intent = stage.submit(add.s(1) | becomes.s("chain") | add.s(100))
    inner = next(leg for leg in intent.legs() if leg.node == "1/0")
    calls.clear()

    forked = axme.fork(intent.id, before=inner.id, by="ops")
    stage.run()

    assert (forked.refresh().result, calls) == (112, [(1, 10), (11, 1), (12, 100)])


@pytest.fixture
def grows(axme, add):
    """A task that adds two others to its group, one before a step and one after it."""

    @step
    def once():
        return 1

    @axme.task(bind=True, name="grows")
    def grows(self, x):
        self.add_to_chord(add.s(x, 10))
        once()
        self.add_to_chord(add.s(x) | add.s(100))
        return x

    return grows


@pytest.mark.parametrize("before", ["add", "grows", "grows#2", "grows/once"])
def test_a_fork_adds_to_a_group_what_was_added_to_it_once(stage, axme, add, grows, calls, before):
    """Whoever is done anew adds it anew, from where that is done anew; what others have added stays."""
    intent = stage.submit(add.s(0) | group(grows.si(1), add.si(2), grows.si(3)) | add.s())
    before = before.replace("grows/", next(leg.node for leg in intent.legs() if leg.task == "grows") + "/")

    for _ in range(2):
        forked = axme.fork(intent.id, before=before, by="ops")
        stage.run()
        assert (forked.refresh().status, forked.result) == (Status.COMPLETED, intent.result)
        (join,) = axme.runtime.ledger.joins(forked.id)
        assert (join.size, join.left) == (7, 0)
        assert sorted(calls[-1][0]) == [1, 2, 3, 11, 13, 101, 103]
        intent = forked


def test_a_fork_adds_once_what_was_added_by_what_a_leg_became(stage, app, axme, add, grows, becomes, calls):
    """Also where that had its place in the group."""
    app.canvases["grows"] = lambda x: add.s(x) | grows.s()
    intent = stage.submit(group(becomes.si(1, "grows"), add.si(2)) | add.s())

    forked = axme.fork(intent.id, before="becomes", by="ops")
    stage.run()

    assert (forked.refresh().status, forked.result, sorted(calls[-1][0])) == (Status.COMPLETED, 115, [1, 2, 11, 101])


def test_a_fork_elsewhere_keeps_what_was_added_to_a_group(stage, axme, add, grows, calls):
    """Its place among the results too."""
    intent = stage.submit(group(grows.si(1), add.si(2)) | add.s())
    first = calls[-1]
    calls.clear()

    forked = axme.fork(intent.id, before="body", by="ops")
    stage.run()

    assert (forked.refresh().result, calls) == (intent.result, [first])


def test_what_is_added_anew_comes_after_what_has_stayed(stage, axme, add, grows, calls):
    """Each result has a place of its own among those of the group."""
    intent = stage.submit(group(grows.si(1), grows.si(2)) | add.s())
    assert calls[-1] == ([1, 2, 11, 101, 12, 102],)

    axme.fork(intent.id, before="grows", by="ops")
    stage.run()

    assert calls[-1] == ([1, 2, 12, 102, 11, 101],)


def test_a_fork_of_a_fork_finds_what_was_added_and_replaced_before_the_first(stage, app, axme, add, grows, becomes, calls):
    """Under the ids that it has there."""
    app.canvases["chain"] = lambda x: add.s(x, 10) | add.s(1)
    intent = stage.submit(add.s(0) | group(grows.si(1), becomes.si(2, "chain")) | add.s())
    nodes, results = sorted(leg.node for leg in intent.legs()), sorted(calls[-1][0])

    forked = axme.fork(intent.id, before="1.body", by="ops")
    stage.run()
    for before in ("grows", "becomes", "add"):
        forked = axme.fork(forked.id, before=before, by="ops")
        stage.run()

        assert forked.refresh().status is Status.COMPLETED
        assert (sorted(leg.node for leg in forked.legs()), sorted(calls[-1][0])) == (nodes, results), before


def test_a_fork_adds_anew_what_was_added_by_what_was_added_and_what_became_of_that(
    stage, app, axme, add, grows, becomes, calls
):
    """All of it came from the leg that is done anew."""

    @axme.task(bind=True, name="seeds")
    def seeds(self):
        self.add_to_chord(grows.si(1))
        self.add_to_chord(becomes.si(2, "chain"))
        return 0

    app.canvases["chain"] = lambda x: add.s(x, 10) | add.s(1)
    intent = stage.submit(group(seeds.si(), add.si(5)) | add.s())
    nodes = sorted(leg.node for leg in intent.legs())
    assert sorted(calls[-1][0]) == [0, 1, 5, 11, 13, 101]

    forked = axme.fork(intent.id, before="seeds", by="ops")
    stage.run()

    assert (forked.refresh().status, sorted(calls[-1][0])) == (Status.COMPLETED, [0, 1, 5, 11, 13, 101])
    assert sorted(leg.node for leg in forked.legs()) == nodes


def test_a_fork_within_a_leg_that_replaced_itself_keeps_what_that_had_recorded(stage, app, axme, calls):
    """Steps and answers before the place; not those of what it became, which has a clean sheet."""

    @step
    def look(what):
        calls.append(what)
        return what

    @axme.task(bind=True, name="careful")
    def careful(self):
        first = look("first")
        answer = wait_for_human("Go on?", to="ana").outcome
        second = look("second")
        raise self.replace(after.s(first, answer, second))

    @axme.task(name="after")
    def after(*before):
        return [*before, look("third"), wait_for_human("And on?", to="ana").outcome]

    def answered(intent, question):
        (wait,) = stage.inbox("ana")
        assert wait.title == question
        stage.answer(wait, "approved", by="ana")
        return intent.refresh()

    intent = stage.submit(careful.s())
    answered(intent, "Go on?")
    result = answered(intent, "And on?").result
    calls.clear()

    forked = axme.fork(intent.id, before="look#2", by="ops")
    stage.run()

    assert answered(forked, "And on?").result == result == ["first", "approved", "second", "third", "approved"]
    assert calls == ["second", "third"]


def test_a_forks_legs_know_nothing_of_the_ids_of_the_first(stage, axme, add, grows):
    """Neither in their messages, where Celery has the root and the group."""
    intent = stage.submit(add.s(0) | group(grows.si(1), add.si(2)) | add.s())
    old = {leg.id for leg in intent.legs()} | {join.id for join in intent.joins()}

    forked = axme.fork(intent.id, before="1.body", by="ops")

    assert not any(id in str((leg.signature, leg.plan)) for leg in forked.legs() for id in old)
    assert any((leg.signature["options"].get("group_id") in {join.id for join in forked.joins()}) for leg in forked.legs())
