"""An intent as its submitter holds it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from axme_celery import (
    Intent,
    IntentEnded,
    NotFound,
    TrackerUnavailable,
    progress,
    step,
    wait_for_human,
    wait_for_time,
)
from axme_celery.model import Progress, Status
from axme_celery.testing import Stage


@pytest.fixture
def work(axme):
    """Two steps, a person, and a result."""

    @axme.task
    def work():
        progress(1, 2, "begun")
        step(name="fetch")(lambda: {"rows": 7})()
        decision = wait_for_human("Publish?", to="ana")
        step(name="publish")(lambda: None)()
        return decision.outcome

    return work


def test_a_handle_is_a_snapshot_until_it_is_refreshed(stage, axme, work):
    """What is read together belongs together."""
    intent = axme.submit(work.s())
    before = (intent.status, intent.seq, intent.updated_at)

    stage.run()
    unchanged = (intent.status, intent.seq, intent.updated_at)
    intent.refresh()

    assert unchanged == before
    assert (intent.status, intent.waiting_reason) == (Status.WAITING, "WAITING_FOR_HUMAN")
    assert intent.seq == before[1] + 3


def test_a_handle_shows_what_was_recorded(stage, work):
    """Legs, steps in their order, waits in theirs, and how it all ended."""
    intent = stage.submit(work.s(), key="k")
    intent = stage.answer(intent, "approved", by="ana")

    assert [leg.task for leg in intent.legs()] == [work.name]
    assert [(s.name, s.value) for s in intent.steps()] == [("fetch", '{"rows":7}'), ("publish", "null")]
    assert [w.title for w in intent.waits()] == ["Publish?"]
    assert (intent.result, intent.error, intent.replay_of) == ("approved", None, None)
    assert intent.created_at <= intent.updated_at == intent.ended_at
    assert repr(intent) == f"<Intent {intent.id} {work.name} COMPLETED seq={intent.seq}>"


def test_the_history_can_be_read_from_any_seq_on(stage, axme, work):
    """Gapless, in order, page after page."""
    intent = stage.submit(work.s())
    ledger = axme.runtime.ledger
    pages = []

    class SmallPages:
        def __getattr__(self, name):
            return getattr(ledger, name)

        def events(self, intent_id, since, limit):
            pages.append(since)
            return ledger.events(intent_id, since, 2)

    axme._runtime = replace(axme.runtime, ledger=SmallPages())
    whole = axme.intent(intent.id).events()
    tail = axme.intent(intent.id).events(since=3)

    assert [e.seq for e in whole] == list(range(1, intent.seq + 1))
    assert tail == whole[3:]
    assert len(pages) > 3


def test_following_an_intent_ends_when_it_ends(stage, axme, work):
    """Each event once, whether it was there before or came meanwhile."""
    intent = stage.submit(work.s())
    seen = []

    for event in intent.follow():
        seen.append(event.seq)
        if event.type == "intent.human_task_assigned":
            stage.answer(intent.id, "approved", by="ana")

    assert seen == list(range(1, intent.refresh().seq + 1))


def test_waiting_for_an_intent_that_rests_gives_up_when_told(stage, work):
    """The message says how it stands."""
    intent = stage.submit(work.s())

    with pytest.raises(TimeoutError, match=r"still WAITING after 0\.05 seconds"):
        intent.wait(timeout=0.05)

    assert intent.status is Status.WAITING


def test_progress_is_read_by_leg_and_is_nothing_when_nobody_remembers_it(stage, axme, work):
    """For eyes only: it may be lost."""
    intent = stage.submit(work.s())
    (leg,) = intent.legs()
    remembered = intent.progress()

    class Forgetful:
        def __getattr__(self, name):
            raise TrackerUnavailable("gone")

    axme._runtime = replace(axme.runtime, tracker=Forgetful())
    forgotten = axme.intent(intent.id).progress()

    assert remembered == {leg.id: Progress(1, 2, "begun", stage.now)}
    assert forgotten == {}


def test_canceling_through_the_handle_updates_it(stage, work):
    """Who and why are in its error."""
    intent = stage.submit(work.s())

    intent.cancel("no need", by="ben")

    assert (intent.status, intent.error["message"], intent.error["by"]) == (Status.CANCELED, "no need", "ben")
    with pytest.raises(IntentEnded):
        intent.cancel("again")


def test_an_intent_has_a_page_where_there_are_pages(app, axme, work):
    """``axme_base_url`` says where people reach them."""
    with Stage(app, base_url="https://intents.example.com/") as stage:
        on_the_web = stage.submit(work.s())
        url = on_the_web.url
    with Stage(app) as stage:
        nowhere = stage.submit(work.s()).url

    assert url == f"https://intents.example.com/intents/{on_the_web.id}"
    assert nowhere is None


def test_an_intent_that_is_not_there_is_not_found(stage, axme, work):
    """Unknown, or pruned meanwhile."""
    intent = stage.submit(work.s())
    stage.answer(intent, "approved", by="ana")
    axme.runtime.ledger.prune([intent.id])

    with pytest.raises(NotFound, match="axme_ledger_url"):
        intent.refresh()
    with pytest.raises(NotFound):
        axme.intent("nobody")


def test_intents_are_listed_newest_first_page_by_page(stage, axme):
    """Read as one iterates, however many there are."""

    @axme.task
    def sleeping():
        wait_for_time("1h")

    submitted = [axme.submit(sleeping.s(), tags=["t"]) for _ in range(5)]
    asked = []
    ledger = axme.runtime.ledger

    class SmallPages:
        def __getattr__(self, name):
            return getattr(ledger, name)

        def intents(self, filters, after, limit):
            asked.append(limit)
            return ledger.intents(filters, after, limit)

    axme._runtime = replace(axme.runtime, ledger=SmallPages())
    first = next(axme.intents(tag="t"))
    some = list(axme.intents(tag="t", limit=3))

    newest_first = [intent.id for intent in reversed(submitted)]
    assert first.id == newest_first[0]
    assert [intent.id for intent in some] == newest_first[:3]
    assert [intent.id for intent in axme.intents(status=["SUBMITTED", "WAITING"])] == newest_first
    assert isinstance(first, Intent)
    assert asked[:2] == [100, 3]


def test_more_intents_than_one_page_are_all_listed_once(stage, axme):
    """Also those submitted at one moment."""

    @axme.task
    def sleeping():
        wait_for_time("1h")

    submitted = {intent.id for intent in axme.submit_many([sleeping.s() for _ in range(230)])}

    listed = [intent.id for intent in axme.intents()]

    assert len(listed) == 230
    assert set(listed) == submitted
    assert len(list(axme.intents(limit=150))) == 150
