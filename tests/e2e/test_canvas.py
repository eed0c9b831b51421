"""Celery's own canvas with durable tasks in it, when people take longer than the result backend remembers."""

from __future__ import annotations

from celery import chain, chord, group

from .harness import until

EXPIRES_SECONDS = 3


def test_a_chord_outlives_its_results_expiry(open_stage):
    """Finding its members' results gone it would never call its body, and nobody would be told.

    One header has a member that waits, one a chain whose first link does, one a group with one that does.
    """
    stage = open_stage(result_expires=EXPIRES_SECONDS)
    project, axme, backend = stage.project, stage.axme, stage.project.app.backend
    stage.worker(beat=True)
    plain, ask, joined = project.plain, project.ask, project.joined

    chords = [
        chord([ask.s("flat"), plain.s(1)], joined.s()).delay(),
        chord([chain(ask.s("linked"), plain.si(1)), plain.s(1), plain.s(2)], joined.s()).delay(),
        chord([group(ask.s("inner"), plain.s(1)), plain.s(1), plain.s(2), plain.s(3)], joined.s()).delay(),
    ]
    waiting = until(lambda: len(found := [*axme.intents(status="WAITING")]) == 3 and found, "three questions")
    ordinary = plain.delay(1)
    ordinary.get(timeout=20)
    # What Celery remembers of a task that ended after all of them is gone: so would be the chords.
    until(lambda: not backend.client.exists(backend.get_key_for_task(ordinary.id)), "expiry", EXPIRES_SECONDS + 10)
    for intent in waiting:
        axme.answer(intent.id, "approved", by="ana")

    assert [result.get(timeout=20) for result in chords] == [2, 3, 5]
