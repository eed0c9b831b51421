"""Many questions answered at once: looked at first, then one answer, then what became of each."""

from __future__ import annotations

import re

import pytest

from .conftest import PAGE, token_in


@pytest.fixture
def ask(stage):
    """``ask(title="Refund 1?", ...)``: a question that may be answered with others; its wait."""

    def put(owner=None, **options):
        options = {"to": "analysts", "bulk": True, **options}
        return stage.submit(stage.axme.app.tasks["doors.ask"].s(options)).waits()[0]

    return put


@pytest.fixture
def ana(sign_in):
    return sign_in("ana", role="approver", groups=["analysts"])


def look(client, *waits):
    return client.get("/inbox/many", query_string={"wait": [wait.id for wait in waits]}, headers=PAGE)


def decide(client, page, outcome, **fields):
    """Press a button of the page, as it is."""
    hidden = re.findall(r'name="(wait|hash-[^"]+)" value="([^"]*)"', page)
    data = {"wait": [value for name, value in hidden if name == "wait"], "outcome": outcome, **fields}
    data |= {name: value for name, value in hidden if name != "wait"}
    return client.post("/inbox/many", data={"csrf_token": token_in(page), **data}, headers=PAGE)


def now_of(stage, wait):
    return stage.axme.runtime.ledger.wait(wait.id).wait


def test_the_inbox_offers_those_that_may_be_answered_together(ask, ana):
    """The others have no box to tick; without any there is no button."""
    assert "Decide on those chosen" not in ana.get("/inbox", headers=PAGE).text
    together, alone = ask(title="Refund 1?"), ask(title="Sell the house?", bulk=False)

    page = ana.get("/inbox", headers=PAGE).text

    assert f'name="wait" value="{together.id}"' in page and 'aria-label="Choose: Refund 1?"' in page
    assert f'name="wait" value="{alone.id}"' not in page
    assert "Decide on those chosen" in page


def test_what_will_be_answered_is_looked_at_first_and_then_answered(stage, ask, ana):
    """Each with its context, its own event and its own row."""
    waits = [ask(title=f"Refund {n}?", context={"cents": n * 100}) for n in (1, 2)]

    looked = look(ana, *waits)
    untouched = [now_of(stage, wait).status for wait in waits]
    done = decide(ana, looked.text, "approved", comment="all fine")

    assert looked.status_code == 200
    assert "Decide on 2 questions at once" in looked.text and "Approve (2)" in looked.text
    assert untouched == ["OPEN", "OPEN"]
    assert "2 answered." in done.text
    for wait in waits:
        closed = now_of(stage, wait)
        assert (closed.outcome, closed.answered_by, closed.comment) == ("approved", "ana", "all fine")
        events = stage.axme.intent(wait.intent_id).events()
        assert [e.details.get("via") for e in events if e.actor == "ana"] == ["session"]


def test_what_cannot_be_answered_with_the_others_says_so_and_spoils_nothing(stage, ask, ana):
    """Before, and after."""
    good, gone, mine = ask(title="Good?"), ask(title="Gone?"), ask(title="Mine?", not_by="ana")
    page = look(ana, good, gone, mine).text
    stage.axme.answer(gone, "rejected", by="ben")

    done = decide(ana, page, "approved")
    again = look(ana, good, gone, mine).text

    assert "Approve (2)" in page and "Will not be answered: ana may not answer" in page
    assert "1 answered, 2 not." in done.text and "answered by ben" in done.text
    assert "None of them is yours to answer." in again
    assert now_of(stage, good).outcome == "approved" and now_of(stage, mine).status == "OPEN"


def test_questions_of_several_kinds_are_not_answered_together(ask, ana):
    """Their answers mean different things."""
    page = look(ana, ask(), ask(type="review")).text

    assert "These are of several kinds" in page and "<button name=" not in page


def test_what_has_changed_since_it_was_looked_at_is_not_answered(stage, ask, ana):
    """The page says which hash it showed."""
    wait = ask()
    page = look(ana, wait).text.replace(wait.payload_hash, "0" * 64)

    assert "look at it again" in decide(ana, page, "approved").text
    assert now_of(stage, wait).status == "OPEN"


def test_an_answer_that_needs_words_is_not_given_without(stage, ask, ana):
    """The error is tied to the field."""
    wait = ask(require_comment="rejected")
    page = look(ana, wait).text

    refused = decide(ana, page, "rejected")

    assert refused.status_code == 422 and 'aria-describedby="comment-error"' in refused.text
    assert now_of(stage, wait).status == "OPEN"
    assert "1 answered." in decide(ana, page, "rejected", comment="too much").text


def test_nobody_decides_without_the_role_the_token_or_something_chosen(stage, ask, ana, sign_in):
    """And what does not exist for them looks like what does not exist."""
    wait = ask()
    viewer = sign_in("eve", role="viewer", groups=["analysts"])

    assert look(viewer, wait).status_code == 403
    assert ana.post("/inbox/many", data={"wait": wait.id, "outcome": "approved"}, headers=PAGE).status_code == 403
    assert look(ana).status_code == 422
    other = ana.get("/inbox/many", query_string={"wait": "nothing"}, headers=PAGE)
    assert other.status_code == 404
    assert now_of(stage, wait).status == "OPEN"
