"""dead-letters: what could not go on is listed, started again, or put away."""

from __future__ import annotations

import pytest

from axme_celery.model import DeadLetter, Delivery, DeliveryKind

from .command_line import Desk, desk_fixture, served_fixture  # noqa: F401


@pytest.fixture
def failed(served, tmp_path):
    """``failed(name)``: a failed intent that would succeed now, and its open dead letter."""
    for letter in served.json("dead-letters", "list", "--limit", "1000"):
        served.run("dead-letters", "discard", letter["id"])

    def fail(name: str = "a"):
        intent = served.reach(served.submit("doors.needs", str(tmp_path / name)), "FAILED")
        (tmp_path / name).touch()
        (letter,) = served.axme.runtime.ledger.dead_letters_of(intent.id)
        return intent, letter

    return fail


def test_dead_letters_are_listed_with_their_reason(served, failed):
    """Open ones unless said otherwise; filtered by code."""
    first, letter = failed("a")
    failed("b")

    listed = served.json("dead-letters", "list", "--code", "ValueError")

    assert len(listed) == 2 and listed[-1]["id"] == letter.id
    assert (listed[-1]["intent_id"], listed[-1]["state"]) == (first.id, "OPEN")
    assert served.json("dead-letters", "list", "--code", "KeyError") == []
    assert len(served.json("dead-letters", "list", "--limit", "1")) == 1
    table = served.run("dead-letters", "list").stdout
    assert letter.id in table and "ValueError" in table and "there is no" in table


def test_no_dead_letters_is_said(desk):
    assert desk.run("dead-letters", "list").stdout == "no dead letters\n"
    assert desk.run("dead-letters", "replay", "--all", "-y").stdout == "no dead letters\n"


def test_a_dead_letter_is_replayed_as_a_new_intent(served, failed):
    """Once; afterwards it names the intent it became, and who did it."""
    intent, letter = failed()

    out = served.run("dead-letters", "replay", letter.id).stdout

    again = served.axme.intent(out.split()[-1])
    assert served.reach(again, "COMPLETED").replay_of == intent.id
    (kept,) = [x for x in served.json("dead-letters", "list", "--state", "replayed") if x["id"] == letter.id]
    assert (kept["replayed_as"], kept["closed_by"]) == (again.id, "olga")


def test_all_are_replayed_after_the_count_was_confirmed(served, failed):
    """Only those with the code; "n" leaves them alone."""
    letters = [failed(name)[1] for name in "abc"]

    refused = served.run("dead-letters", "replay", "--all", "--code", "ValueError", stdin="n\n", code=1)
    assert "replay 3 dead letters?" in refused.stdout
    assert len(served.json("dead-letters", "list")) == 3

    out = served.run("dead-letters", "replay", "--all", "--code", "ValueError", stdin="y\n").stdout

    assert all(letter.id in out for letter in letters)
    assert served.json("dead-letters", "list") == []


def test_one_that_is_refused_does_not_keep_the_others(served, failed):
    """Code 1 in the end, saying how many."""
    (_, first), (_, second) = failed("a"), failed("b")

    result = served.run("dead-letters", "replay", first.id, "nothing", second.id, code=1)

    assert first.id in result.stdout and second.id in result.stdout
    assert "nothing  not replayed" in result.stderr and "1 of 3" in result.stderr


def test_a_discarded_letter_stays_on_record(served, failed):
    """And cannot be discarded again."""
    _, letter = failed()

    assert served.run("dead-letters", "discard", letter.id, "--by", "ana").stdout == f"{letter.id}  discarded\n"

    kept = served.axme.runtime.ledger.dead_letter(letter.id)
    assert (kept.state, kept.closed_by) == ("DISCARDED", "ana")
    assert "already discarded by ana" in served.run("dead-letters", "discard", letter.id, code=1).stderr


def test_all_are_discarded_without_asking_when_one_says_yes(served, failed):
    failed("a")
    failed("b")

    served.run("dead-letters", "discard", "--all", "-y")

    assert served.json("dead-letters", "list") == []


def test_a_parked_leg_s_letter_says_to_unpark(served):
    """Its intent has not ended, so there is nothing to replay."""
    intent, _ = served.parked()
    (letter,) = served.axme.runtime.ledger.dead_letters_of(intent.id)

    assert "unpark" in served.run("dead-letters", "replay", letter.id, code=1).stderr


def test_a_delivery_that_could_not_be_sent_is_not_replayed_as_work(served, failed):
    """Its intent may be well; and --all passes it over."""
    intent = served.reach(served.submit("doors.add", 1, 1), "COMPLETED")
    ledger = served.axme.runtime.ledger
    ledger.outbox_settle((), (), [(Delivery(id="d1", kind=DeliveryKind.NOTICE, intent_id=intent.id, next_at=ledger.now()),
        DeadLetter(id="undelivered", kind="delivery", intent_id=intent.id, delivery_id="d1", code="notice_undeliverable",
                   reason="no mail server", at=ledger.now()))])  # fmt: skip

    assert "discard it" in served.run("dead-letters", "replay", "undelivered", code=1).stderr
    assert served.run("dead-letters", "replay", "--all", "-y").stdout == "no dead letters\n"

    served.run("dead-letters", "discard", "undelivered")
    assert served.json("dead-letters", "list") == []


@pytest.mark.parametrize(
    "words", [[], ["x", "--all"], ["x", "-y"], ["x", "--code", "c"]], ids=["none", "both", "yes alone", "code alone"]
)
@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_which_letters_are_meant_must_be_clear(desk, verb, words):
    desk.run("dead-letters", verb, *words, code=2)


def test_an_unknown_letter_is_code_3(desk):
    desk.run("dead-letters", "replay", "x", code=3)
    desk.run("dead-letters", "discard", "x", code=3)
