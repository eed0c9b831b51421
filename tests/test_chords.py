"""Which of Celery's chords wait for a leg. ``tests/e2e/test_canvas.py`` sees them kept."""

from __future__ import annotations

from celery import Celery, chain, chord, group

from axme_celery.chords import Chords, groups_of
from axme_celery.model import Leg
from axme_celery.testing import Stage


def one() -> int:
    return 1


def taken(*_: object) -> int:
    return 2


def published(stage: Stage) -> dict[str, list[str]]:
    """What each leg's signature says of chords, by task."""
    return {leg.task: groups_of(leg.signature) for intent in stage.axme.intents() for leg in intent.legs()}


def test_a_member_of_a_chord_is_in_it_and_so_is_what_comes_before_one_in_its_chain(stage, axme, app):
    """The chord waits for the last link; the leg has it in its chain."""
    member, first, alone, inner = (axme.task(name=name)(one) for name in ("member", "first", "alone", "inner"))
    plain, body = (app.task(name=name, shared=False)(taken) for name in ("plain", "body"))

    outer = chord([member.si(), chain(first.si(), plain.si()), group(inner.si(), plain.si())], body.s()).apply_async()
    chain(alone.si(), plain.si()).apply_async()

    group_id = outer.parent.id
    assert published(stage) == {"member": [group_id], "first": [group_id], "alone": [], "inner": [group_id]}
    in_chord = {leg.task for leg in stage.axme.runtime.ledger.legs_in_chords(None, 10)}
    assert in_chord == {"member", "first", "inner"}


def test_a_leg_that_has_ended_is_in_no_chord_any_more(stage, axme, app):
    """The chord has its result."""
    member = axme.task(name="member")(one)
    plain = app.task(name="plain", shared=False)(taken)

    chord([member.si(), plain.si()], plain.s()).apply_async()
    assert len(stage.axme.runtime.ledger.legs_in_chords(None, 10)) == 1
    stage.run()

    assert stage.axme.runtime.ledger.legs_in_chords(None, 10) == []


def test_a_result_backend_that_is_away_does_not_stop_the_sweep(stage, caplog):
    """It is asked again by the next one."""
    options = {"chord": {"task": "body", "options": {}}, "group_id": "g"}
    leg = Leg(id="a", intent_id="i", task="t", signature={"task": "t", "options": options}, created_at=stage.now)
    away = Celery("away", backend="redis://127.0.0.1:1", set_as_current=False)
    away.conf.redis_retry_on_timeout = False

    assert Chords(away).keep([leg]) == 0
    assert "chords are not renewed" in caplog.text
    assert Chords(Celery("none", set_as_current=False)).keep([leg]) == 0
