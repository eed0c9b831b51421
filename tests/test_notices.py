"""Notices as they go out: what they say, and that a person answers by the link in theirs."""

from __future__ import annotations

import email
import logging
import re
from email.policy import default as mail_policy

import pytest

from axme_celery import LinkInvalid, links, notifiers, wait_for_human
from axme_celery.testing import Stage

from .sinks import SmtpSink


@pytest.fixture
def house(app):
    """``house(**settings)``: a stage of a house with pages."""
    stages = []

    def open_house(**settings):
        stages.append(Stage(app, base_url="https://intents.example.com/base/", **settings).__enter__())
        return stages[-1]

    yield open_house
    for stage in stages:
        stage.__exit__(None, None, None)


def asking(stage, **arguments):
    """An intent that waits for a person."""

    @stage.axme.task(name="asking")
    def ask(arguments):
        decision = wait_for_human(**({"title": "Publish?", "to": ["ana", "ben"]} | arguments))
        return [decision.outcome, decision.by]

    return stage.submit(ask.s(arguments))


def secret_of(link):
    base, secret = link.rsplit("/", 1)
    assert base == "https://intents.example.com/base/a"
    return secret


def test_each_of_those_who_are_told_has_a_link_of_their_own(house):
    """At the opening, at each reminder and each rung; by it they answer as themselves."""
    stage = house()
    intent = asking(stage, remind_every="1h", max_reminders=1, escalate_to="boss", quorum=2)
    stage.pass_time("3h")

    by_kind = {notice.kind: notice for notice in stage.notices}
    assert set(by_kind) == {"wait_opened", "reminder", "escalation"}
    ana, boss = (secret_of(by_kind[kind].link(who)) for kind, who in (("reminder", "ana"), ("escalation", "boss")))
    assert by_kind["reminder"].url == f"https://intents.example.com/base/waits/{stage.waits(intent)[0].id}"
    links.answer(stage.axme.runtime, ana, "approved")
    links.answer(stage.axme.runtime, boss, "approved")
    stage.run()

    assert stage.intent(intent.id).result == ["approved", "boss"]


def test_a_link_asked_for_too_late_or_for_somebody_else_is_none(house):
    """The page tells them then."""
    stage = house()
    intent = asking(stage)
    (notice,) = stage.notices

    assert notice.link("eve") is None
    stage.answer(intent, "rejected", by="ben")
    assert notice.link("ana") is None


@pytest.mark.parametrize(("setting", "hindrance"), [("decide", None), ("view", "view_only"), ("none", None)])
def test_a_house_says_what_its_links_are_good_for(house, setting, hindrance):
    """Nothing, looking, or deciding."""
    stage = house(notice_links=setting)
    asking(stage)
    link = stage.notices[0].link("ana")

    assert (link is None) == (setting == "none")
    if link is not None:
        assert links.look_up(stage.axme.runtime, secret_of(link)).hindrance == hindrance


def test_a_house_without_pages_has_no_links(stage):
    """They would lead nowhere."""
    asking(stage)

    assert (stage.notices[0].link("ana"), stage.notices[0].url) == (None, None)


def test_whoever_has_lost_the_wait_is_not_told_of_it_any_more(stage, axme):
    """A notice that was tried for hours is not sent to those who have given it away meanwhile."""
    from axme_celery.model import Delivery, DeliveryKind

    intent = asking(stage)
    body = {"kind": "reminder", "wait_id": stage.waits(intent)[0].id, "to": ["ana", "ben"], "title": "?", "type": "t"}
    late = Delivery(
        id="d",
        kind=DeliveryKind.NOTICE,
        intent_id=intent.id,
        body=body | {"at": stage.now.isoformat()},
        next_at=stage.now,
    )

    axme.delegate(intent, "cara", by="ana")
    to_ben = axme.notice(late)
    axme.reassign(intent, "cara", by="ops")

    assert to_ben is not None and to_ben.to == ("ben",)
    assert axme.notice(late) is None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"timeout": "2h"}, "then it fails."),
        ({"timeout": "2h", "on_timeout": "rejected"}, "then it counts as rejected."),
        ({"timeout": "2h", "fallback": ["night", "boss"]}, "then night, boss will be asked."),
    ],
)
def test_a_notice_says_what_happens_when_nobody_answers(stage, asked, said):
    """And until when they can."""
    asking(stage, **asked)

    assert re.search(r"It waits until \d{4}-\d\d-\d\d \d\d:\d\d UTC, " + re.escape(said), stage.notices[0].text)


def test_from_the_mail_to_the_answer(house, caplog):
    """Through the real mail notifier: each gets their own link, it decides once, and no log has it."""
    caplog.set_level(logging.DEBUG)
    with SmtpSink().running() as sink:
        stage = house(
            notifiers=("log", "email"), email_host="localhost", email_port=sink.port, email_from="i@example.org",
            email_starttls=False, contacts={"ana": "ana@example.com", "ben": "ben@example.com"},
        )  # fmt: skip
        intent = asking(stage)
        for notify in notifiers.load(stage.axme.settings.notifiers):
            notify(stage.notices[0], stage.axme.settings)

    bodies = {
        mail.recipients[0]: email.message_from_bytes(mail.data, policy=mail_policy).get_body(("plain",)).get_content()
        for mail in sink.mails
    }
    found = {who: re.search(r"/a/(axa_\S+)", body)[1] for who, body in bodies.items()}
    assert set(found) == {"ana@example.com", "ben@example.com"} and len(set(found.values())) == 2
    links.answer(stage.axme.runtime, found["ben@example.com"], "approved")
    stage.run()
    assert stage.intent(intent.id).result == ["approved", "ben"]
    assert "axa_" not in caplog.text
    with pytest.raises(LinkInvalid):
        links.look_up(stage.axme.runtime, found["ana@example.com"][:-1])
