"""Links in notices: for one person, one wait, once; and nothing that only looks at them changes anything."""

from __future__ import annotations

import logging
import re
import threading
from datetime import timedelta

import pytest
from sqlalchemy import select

from axme_celery import BadInput, LinkInvalid, NotAllowed, NotFound, ShownChanged, WaitClosed, links, wait_for_human
from axme_celery.desk import LinkState
from axme_celery.ledger import tables as t
from axme_celery.model import Status
from axme_celery.testing import Stage


@pytest.fixture
def stage(stage_on_each_database):
    """On SQLite, and on PostgreSQL."""
    return stage_on_each_database


@pytest.fixture
def ask(stage, axme):
    """``ask(**arguments)``: an intent that waits for a person, and returns who answered what."""

    @axme.task
    def asking(arguments):
        decision = wait_for_human(**({"title": "Publish?", "to": ["ana", "ben"]} | arguments))
        return [decision.outcome, decision.by]

    return lambda **arguments: stage.submit(asking.s(arguments))


def wait_of(stage, intent):
    return stage.waits(intent)[0]


def state_of(stage, secret):
    return links.look_up(stage.axme.runtime, secret).link.state


def test_a_link_lets_its_recipient_answer_once(stage, axme, ask):
    """As themselves; the history says that it was by a link; then it is used up, and shows what came of it."""
    rt, intent = axme.runtime, ask(quorum=2)
    secret = links.issue(rt, wait_of(stage, intent).id, "ana")

    before = links.look_up(rt, secret)
    links.answer(rt, secret, "approved", comment="fine", expected_hash=before.record.wait.payload_hash)
    again = links.answer(rt, secret, "approved")
    with pytest.raises(NotAllowed, match="already answered"):
        links.answer(rt, secret, "rejected")

    assert (before.hindrance, links.look_up(rt, secret).hindrance) == (None, "used")
    assert again.id == intent.id
    (voted,) = [e for e in stage.history(intent) if e.type == "intent.voted"]
    assert (voted.actor, voted.details["via"], voted.details["comment"]) == ("ana", "link", "fine")
    assert state_of(stage, secret) is LinkState.USED


def test_looking_changes_nothing_however_often(stage, axme, ask):
    """Mail scanners open every link, many times."""
    intent = ask()
    secret = links.issue(axme.runtime, wait_of(stage, intent).id, "ana")
    before = stage.intent(intent.id).seq, wait_of(stage, intent)

    for _ in range(100):
        assert links.look_up(axme.runtime, secret).hindrance is None

    assert (stage.intent(intent.id).seq, wait_of(stage, intent)) == before
    links.answer(axme.runtime, secret, "approved")
    stage.run()
    assert stage.intent(intent.id).result == ["approved", "ana"]


def test_a_link_is_kept_as_a_hash_only_and_is_hard_to_guess(stage, axme, ask, caplog):
    """Neither the ledger nor the log has what would open it."""
    caplog.set_level(logging.DEBUG)
    wait = wait_of(stage, ask())
    secrets = {links.issue(axme.runtime, wait.id, "ana") for _ in range(50)}

    with stage.engine.connect() as connection:
        kept = str(connection.execute(select(t.links)).all())

    assert len(secrets) == 50
    for secret in secrets:
        bare = secret.removeprefix(links.PREFIX)
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", bare), "43 characters of base64 are 256 bits"
        assert bare not in kept and bare not in caplog.text


def test_what_is_no_link_or_was_altered_opens_nothing(stage, axme, ask):
    """All of them are refused alike, so that nothing is learnt by trying."""
    secret = links.issue(axme.runtime, wait_of(stage, ask()).id, "ana")
    wrong = [
        "", "x", "axa_", secret[4:], secret + "A", secret[:-1], secret.swapcase(), secret.upper(), " " + secret,
        secret + "\0", "axk_" + secret[4:], "axa_" + "A" * 43, "axa_" + "ä" * 43, "axa_\ud800",
    ]  # fmt: skip

    refusals = set()
    for forged in wrong:
        with pytest.raises(LinkInvalid) as refused:
            links.look_up(axme.runtime, forged)
        refusals.add((refused.value.why, str(refused.value)))
        with pytest.raises(LinkInvalid):
            links.answer(axme.runtime, forged, "approved")

    assert len(refusals) == 1


def test_when_the_wait_closes_its_links_only_show_how(stage, axme, ask):
    """Whoever closed it."""
    intent = ask()
    mine, other = (links.issue(axme.runtime, wait_of(stage, intent).id, who) for who in ("ana", "ben"))

    stage.answer(intent, "rejected", by="ben")

    for secret in (mine, other):
        assert links.look_up(axme.runtime, secret).hindrance == "closed"
    with pytest.raises(WaitClosed, match="answered by ben"):
        links.answer(axme.runtime, mine, "approved")


def test_whoever_gives_the_wait_away_or_loses_it_has_no_link_any_more(stage, axme, ask):
    """Their link shows nothing; the others' stay good."""
    intent = ask()
    wait = wait_of(stage, intent)
    ana, ben = (links.issue(axme.runtime, wait.id, who) for who in ("ana", "ben"))

    axme.delegate(wait, "cara", by="ana")
    after_delegating = links.look_up(axme.runtime, ben).hindrance
    with pytest.raises(LinkInvalid):
        links.look_up(axme.runtime, ana)
    axme.reassign(wait, "dan", by="ops")

    assert after_delegating is None
    with pytest.raises(LinkInvalid):
        links.answer(axme.runtime, ben, "approved")
    assert stage.intent(intent.id).status is Status.WAITING
    assert {link.state for link in axme.runtime.ledger.desks.links_of(wait.id)} == {LinkState.REVOKED}


def test_a_link_runs_out(stage, axme, ask):
    """A wait without a timeout has none for ever."""
    intent = ask()
    secret = links.issue(axme.runtime, wait_of(stage, intent).id, "ana")

    stage.pass_time(links.LONGEST - timedelta(seconds=1))
    assert links.look_up(axme.runtime, secret).hindrance is None
    stage.pass_time("1s")
    with pytest.raises(LinkInvalid):
        links.look_up(axme.runtime, secret)


def test_a_link_decides_only_what_it_is_for(stage, axme, ask):
    """Not at all where it only shows, nothing besides its outcomes, and not on what was not seen."""
    rt, wait = axme.runtime, wait_of(stage, ask())
    view = links.issue(rt, wait.id, "ana", purpose="view")
    no = links.issue(rt, wait.id, "ana", outcomes=["rejected"])

    with pytest.raises(LinkInvalid, match="shows and does not decide"):
        links.answer(rt, view, "approved")
    with pytest.raises(BadInput, match="not one of this link's: rejected"):
        links.answer(rt, no, "approved")
    with pytest.raises(ShownChanged):
        links.answer(rt, no, "rejected", expected_hash="0" * 64)

    assert [links.look_up(rt, secret).hindrance for secret in (view, no)] == ["view_only", None]


def test_a_link_to_one_wait_never_answers_the_next(stage, axme):
    """Twenty waits of one intent, and every old link tried on each of them."""

    @axme.task
    def asking():
        return [wait_for_human("Again?", to="ana").outcome for _ in range(20)]

    intent, old = stage.submit(asking.s()), []
    for _ in range(20):
        (wait,) = [w for w in stage.waits(intent) if w.status == "OPEN"]
        for secret in old[-3:] + old[:3]:
            with pytest.raises((WaitClosed, LinkInvalid)):
                links.answer(axme.runtime, secret, "rejected")
        old.append(links.issue(axme.runtime, wait.id, "ana"))
        links.answer(axme.runtime, old[-1], "approved")
        stage.run()

    assert stage.intent(intent.id).result == ["approved"] * 20


def test_links_are_issued_only_for_those_a_wait_is_open_for(stage, axme, ask):
    """And only for what it has."""
    rt, intent = axme.runtime, ask()
    wait = wait_of(stage, intent)

    for arguments, error in [
        (("nothing", "ana"), NotFound), ((wait.id, "eve"), BadInput), ((wait.id, ""), BadInput),
    ]:  # fmt: skip
        with pytest.raises(error):
            links.issue(rt, *arguments)
    with pytest.raises(BadInput, match="purpose"):
        links.issue(rt, wait.id, "ana", purpose="admin")
    with pytest.raises(BadInput, match="outcomes"):
        links.issue(rt, wait.id, "ana", outcomes=["maybe"])
    stage.answer(intent, "approved", by="ana")
    with pytest.raises(BadInput, match="not open"):
        links.issue(rt, wait.id, "ben")


def test_an_answer_that_closes_the_wait_uses_up_its_link_too(stage, axme, ask):
    """In one transaction, whatever the database makes of it."""
    intent = ask()
    mine, other = (links.issue(axme.runtime, wait_of(stage, intent).id, who) for who in ("ana", "ben"))

    links.answer(axme.runtime, mine, "approved")

    assert [state_of(stage, secret) for secret in (mine, other)] == [LinkState.USED, LinkState.OPEN]
    assert [links.look_up(axme.runtime, secret).hindrance for secret in (mine, other)] == ["closed", "closed"]


def test_of_many_who_use_one_link_at_once_one_answers(app, axme, tmp_path):
    """A double click, and somebody to whom the mail was forwarded."""
    with Stage(app, ledger_url=f"sqlite:///{tmp_path}/ledger.db") as stage:

        @axme.task
        def asking():
            return wait_for_human("Publish?", to=["ana", "ben"], quorum=2).outcome

        intent = stage.submit(asking.s())
        secret = links.issue(axme.runtime, wait_of(stage, intent).id, "ana")
        results: list[str] = []
        start = threading.Barrier(8)

        def click(outcome: str) -> None:
            start.wait()
            try:
                links.answer(axme.runtime, secret, outcome)
                results.append(outcome)
            except (NotAllowed, LinkInvalid):
                results.append("refused")

        threads = [threading.Thread(target=click, args=("approved",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(results) == 8
        assert "approved" in results
        assert len(wait_of(stage, intent).votes) == 1
        assert [e.type for e in stage.history(intent)].count("intent.voted") == 1
        assert state_of(stage, secret) is LinkState.USED
