"""Sign-off: the terminal and the second shell race, and the first one decides."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from axme_celery.demo.narrator import Narrator
from axme_celery.demo.sign_off import UNATTENDED, sign_off
from axme_celery.errors import WaitClosed
from axme_celery.model import Wait, WaitKind, WaitStatus

NOW = datetime(2026, 11, 23, tzinfo=UTC)
WAIT = Wait(
    id="wait-1",
    intent_id="intent-1",
    leg_id="leg-1",
    name="human",
    nth=1,
    position=0,
    run=4,
    kind=WaitKind.HUMAN,
    title="Publish the export 2026-10?",
    opened_at=NOW,
)


class Desk:
    """Takes answers as the engine would."""

    def __init__(self, closed: bool = False) -> None:
        self.answers: list[tuple[object, ...]] = []
        self._closed = closed

    def answer(self, wait, outcome, *, by, comment=None, data=None):
        if self._closed:
            raise WaitClosed(wait, "ANSWERED", NOW, "ben")
        self.answers.append((wait, outcome, comment, data))


@pytest.fixture
def stage():
    """sign_off() with a typed text and a desk; returns what was printed."""

    def run(typed: str | None, desk: Desk, states: list[Wait] | None = None) -> str:
        out = io.StringIO()
        seen = iter(states or [])
        reader, writer = os.pipe()
        with open(reader) as terminal:
            os.write(writer, (typed or "").encode())
            os.close(writer)
            sign_off(
                WAIT,
                axme=desk,
                look=lambda: next(seen, WAIT),
                narrator=Narrator(out),
                terminal=None if typed is None else terminal,
                command="axme-celery approve wait-1",
            )
        return out.getvalue()

    return run


def test_a_yes_with_headline_and_comment_is_given_to_the_wait(stage):
    """And the command for a second shell was shown before."""
    desk = Desk()

    printed = stage("maybe\nY\nA wet October\nwell done\n", desk)

    assert desk.answers == [("wait-1", "approved", "well done", {"headline": "A wet October"})]
    assert "axme-celery approve wait-1" in printed and "Please type y or n" in printed


def test_enter_leaves_headline_and_comment_out(stage):
    """An empty form, no comment."""
    desk = Desk()
    stage("yes\n\n\n", desk)
    assert desk.answers == [("wait-1", "approved", None, {})]


def test_a_headline_longer_than_the_form_allows_is_cut(stage):
    """The engine would refuse it, and the story would stop."""
    desk = Desk()
    stage(f"y\n{'x' * 200}\n\n", desk)
    assert desk.answers[0][3] == {"headline": "x" * 80}


def test_a_no_is_a_rejection_with_its_reason(stage):
    """Which is an answer like any other."""
    desk = Desk()
    stage("n\nnumbers look odd\n", desk)
    assert desk.answers == [("wait-1", "rejected", "numbers look odd", None)]


def test_an_answer_from_a_second_shell_ends_the_question(stage):
    """The terminal's input has ended; the second shell answers at the third look."""
    desk = Desk()
    stage("", desk, [WAIT, WAIT, replace(WAIT, status=WaitStatus.ANSWERED)])
    assert desk.answers == []


def test_a_terminal_that_comes_too_late_is_told_who_was_first(stage):
    """And the story goes on with the first answer."""
    assert "already answered by ben" in stage("y\n\n\n", Desk(closed=True))


def test_unattended_it_approves_and_says_that_it_was_no_person(stage):
    """Nothing is read, nothing asked."""
    desk = Desk()
    assert stage(None, desk) == ""
    assert desk.answers == [("wait-1", UNATTENDED.outcome, UNATTENDED.comment, {})]
    assert "demo" in UNATTENDED.by
