"""A notice on its way to a person: as a log line, as mail, and into a chat."""

from __future__ import annotations

import dataclasses
import email
import importlib.metadata
import json
import logging
import subprocess
import sys
from datetime import UTC, datetime
from email.policy import default as mail_policy

import pytest

from axme_celery import notifiers
from axme_celery.config import Settings
from axme_celery.errors import BadInput, BadSetting
from axme_celery.notifiers import Notice, load

from .sinks import CA_FILE, HttpSink, SmtpSink, status

NOTICE = Notice(
    id="0192f0c1-7b3a-7c4d-9e5f-000000000001",
    kind="reminder",
    intent_id="0192f0c1-7b3a-7c4d-9e5f-000000000002",
    wait_id="0192f0c1-7b3a-7c4d-9e5f-000000000003",
    to=("ana", "ben@example.com"),
    title="Publish the report? Ä",
    text="50 pages, 12 MB.\n.\nSecond paragraph.",
    url="https://intents.example.com/waits/3",
    at=datetime(2026, 10, 31, 18, tzinfo=UTC),
)


def changed(**fields) -> Notice:
    return dataclasses.replace(NOTICE, **fields)


# -- log -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "level"),
    [("wait_opened", "INFO"), ("reminder", "INFO"), ("escalation", "WARNING"), ("dead_letter", "ERROR")],
)
def test_a_log_line_tells_whom_what_and_where_and_carries_the_ids(caplog, kind, level):
    """As fields, for whoever searches a log."""
    with caplog.at_level(logging.INFO, "axme_celery.notices"):
        notifiers.log(changed(kind=kind), Settings())

    (record,) = caplog.records
    assert record.levelname == level
    assert record.getMessage() == (
        f"{kind.replace('_', ' ')} for ana, ben@example.com: Publish the report? Ä, intent {NOTICE.intent_id} "
        f"(https://intents.example.com/waits/3)"
    )
    assert (record.notice, record.intent, record.wait) == (NOTICE.id, NOTICE.intent_id, NOTICE.wait_id)


def test_a_dead_letters_line_names_its_intent_and_does_not_say_that_it_is_for_nobody(caplog):
    """It is for whoever reads the log; as text, for most logs show no fields."""
    letter = changed(kind="dead_letter", title="proj.boom cannot go on [ValueError]", url=None, to=(), wait_id=None)

    notifiers.log(letter, Settings())

    assert (
        caplog.records[0].getMessage() == f"dead letter: proj.boom cannot go on [ValueError], intent {letter.intent_id}"
    )


def test_a_title_cannot_forge_another_log_line(caplog):
    """Line breaks, escapes of a terminal and their Unicode kin become blanks."""
    with caplog.at_level(logging.INFO, "axme_celery.notices"):
        notifiers.log(changed(title="a\r\nERROR all is lost\x1b[31m\u2028\x85b", url=None, to=()), Settings())
    assert caplog.records[0].getMessage().startswith("reminder: a ERROR all is lost [31m b, intent ")


# -- mail ----------------------------------------------------------------------


def mail_settings(port: int, **fields) -> Settings:
    plain = {"email_starttls": False, "contacts": {"ana": "ana@example.com"}, "email_from": "Intents <bot@example.org>"}
    return Settings(email_host="localhost", email_port=port, **{**plain, **fields})


def read(data: bytes):
    return email.message_from_bytes(data, policy=mail_policy)


def plain(message) -> str:
    return message.get_body(("plain",)).get_content().replace("\r\n", "\n")


def html(message) -> str:
    return message.get_body(("html",)).get_content()


def test_everybody_who_has_an_address_gets_a_mail_of_their_own():
    """The mapped name and the address; with the question, its text and where to answer."""
    with SmtpSink().running() as sink:
        notifiers.email(NOTICE, mail_settings(sink.port))

    assert [mail.recipients for mail in sink.mails] == [["ana@example.com"], ["ben@example.com"]]
    for mail in sink.mails:
        message = read(mail.data)
        assert (mail.sender, message["From"]) == ("bot@example.org", "Intents <bot@example.org>")
        assert [message["To"]] == mail.recipients
        assert message["Subject"] == "Publish the report? Ä"
        assert message["Date"].datetime == NOTICE.at
        assert message["Auto-Submitted"] == "auto-generated"
        assert NOTICE.text in plain(message) and NOTICE.url in plain(message) and NOTICE.intent_id in plain(message)
        assert "<p>50 pages, 12 MB.</p>" in html(message) and f'href="{NOTICE.url}"' in html(message)


def test_each_mail_has_the_link_of_its_recipient_and_no_other():
    """Whoever has a link is taken for the one it is for."""
    with SmtpSink().running() as sink:
        notifiers.email(changed(link=lambda who: f"https://i.example/a/axa_{who}&x"), mail_settings(sink.port))

    ana, ben = (read(mail.data) for mail in sink.mails)
    assert "https://i.example/a/axa_ana&x\nThis link is for ana alone." in plain(ana)
    assert 'href="https://i.example/a/axa_ana&amp;x"' in html(ana)
    assert "axa_ben" not in plain(ana) + html(ana)
    assert "axa_ben@example.com" in plain(ben) and "axa_ana" not in plain(ben) + html(ben)
    assert NOTICE.url not in plain(ana)


def test_nobodys_link_gets_into_a_log_or_a_chat(caplog):
    """Many read those."""
    asked = []
    secretive = changed(link=lambda who: asked.append(who) or "https://i.example/a/axa_secret")
    with HttpSink(status("200 OK")).running() as sink, caplog.at_level(logging.DEBUG):
        notifiers.log(secretive, Settings())
        notifiers.webhook(secretive, hook_settings(sink.port))

    assert asked == []
    assert "axa_" not in repr(secretive) + caplog.text + str(sink.requests)


def test_what_a_mail_shows_cannot_bring_along_markup():
    """Titles and texts come from outside; a URL that is none is no button."""
    hostile = changed(
        title='<img src=x onerror="alert(1)">', text="</p><script>alert(1)</script>\n\"&'", url="javascript:alert(1)"
    )
    with SmtpSink().running() as sink:
        notifiers.email(hostile, mail_settings(sink.port))

    shown = html(read(sink.mails[0].data))
    assert "<script" not in shown and "<img" not in shown and "javascript:" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown


def test_a_second_try_sends_a_mail_that_is_recognised_as_the_same():
    """And reminders of one wait make one thread."""
    with SmtpSink().running() as sink:
        for notice in (NOTICE, NOTICE, changed(id="other")):
            notifiers.email(notice, mail_settings(sink.port))

    ana, ben, ana_again, ben_again, other, _ = (read(mail.data) for mail in sink.mails)
    assert ana["Message-ID"] == ana_again["Message-ID"] != ben["Message-ID"] == ben_again["Message-ID"]
    assert ana["Message-ID"].startswith(f"<{NOTICE.id}.") and ana["Message-ID"].endswith("@example.org>")
    assert other["Message-ID"].startswith("<other.")
    assert ana["References"] == other["References"] == f"<{NOTICE.wait_id}@example.org>"


def test_nothing_in_a_notice_can_add_a_header_or_a_recipient():
    """Titles and assignees come from outside."""
    hostile = changed(
        id="x\r\nBcc: eve@evil.example",
        wait_id="y>\r\nBcc: eve@evil.example",
        title="Pay\r\nBcc: eve@evil.example\r\n\r\nbody",
        text="fine\r\n.\r\nMAIL FROM:<eve@evil.example>\r\n\0",
        to=(
            "ben@example.com",
            "eve@evil.example\r\nBcc: x@evil.example",
            "a@b.example, eve@evil.example",
            "<eve@evil.example>",
            "Eve <eve@evil.example>",
            "eve@evil.example\n",
            "@",
            "a@",
            "@b",
        ),
    )
    with SmtpSink().running() as sink:
        notifiers.email(hostile, mail_settings(sink.port))

    (mail,) = sink.mails
    assert mail.recipients == ["ben@example.com"]
    message = read(mail.data)
    assert sorted(message.keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", "References", "Auto-Submitted", "Content-Type", "MIME-Version"]
    )  # fmt: skip
    assert message["Subject"] == "Pay Bcc: eve@evil.example body"
    assert message["To"] == "ben@example.com"


def test_an_assignee_who_wants_no_mail_gets_none_and_one_without_an_address_is_told_of():
    """None in the contacts is a wish; a missing contact is a mistake that must be seen."""
    with SmtpSink().running() as sink:
        settings = mail_settings(sink.port, contacts={"ana": None, "ben@example.com": "b@home.example"})
        notifiers.email(changed(to=("ana",)), settings)
        assert sink.mails == []
        notifiers.email(NOTICE, settings)
        assert sink.mails[0].recipients == ["b@home.example"]
        with pytest.raises(BadSetting, match="no e-mail address for 'carl'; add them to axme_contacts"):
            notifiers.email(changed(to=("carl", "ana")), settings)


def test_one_without_an_address_does_not_keep_the_others_from_theirs(caplog):
    """It is logged, not raised: trying again would mail the others again."""
    with SmtpSink().running() as sink:
        notifiers.email(changed(to=("carl", "ben@example.com")), mail_settings(sink.port))
    assert sink.mails[0].recipients == ["ben@example.com"]
    assert caplog.records[0].assignees == ["carl"]


def test_one_refused_address_does_not_keep_the_others_from_theirs(caplog):
    """The same, when it is the server that knows better."""
    with SmtpSink(refuse=("ben@example.com",)).running() as sink:
        notifiers.email(NOTICE, mail_settings(sink.port))
    assert sink.mails[0].recipients == ["ana@example.com"]
    assert caplog.records[0].refused == ["ben@example.com"]


def test_a_mail_nobody_took_is_a_failure():
    """So that it is tried again."""
    with SmtpSink(refuse=("ana@example.com", "ben@example.com")).running() as sink:
        with pytest.raises(ConnectionError, match=r"was not taken by localhost:\d+: .*no such person"):
            notifiers.email(NOTICE, mail_settings(sink.port))
        assert sink.mails == []
    with pytest.raises(ConnectionError, match="was not taken by localhost"):
        notifiers.email(NOTICE, mail_settings(sink.port))


def test_a_silent_mail_server_is_left_in_time(monkeypatch):
    """Twenty seconds, shortened here."""
    monkeypatch.setattr(notifiers, "SMTP_TIMEOUT_SECONDS", 0.3)
    with SmtpSink(silent=True).running() as sink, pytest.raises(ConnectionError, match="timed out"):
        notifiers.email(NOTICE, mail_settings(sink.port))


def test_the_login_is_only_told_to_a_server_that_has_secured_the_connection(monkeypatch):
    """STARTTLS with a certificate of the server's name, then the password."""
    monkeypatch.setenv("SSL_CERT_FILE", CA_FILE)
    secret = {"email_starttls": True, "email_username": "bot", "email_password": "pw"}
    with SmtpSink(starttls=True).running() as sink:
        notifiers.email(NOTICE, mail_settings(sink.port, **secret))
    assert (sink.mails[0].secured, sink.mails[0].login) == (True, "AGJvdABwdw==")

    with SmtpSink(starttls=False).running() as sink, pytest.raises(ConnectionError, match="STARTTLS"):
        notifiers.email(NOTICE, mail_settings(sink.port, **secret))
    assert sink.mails == []

    monkeypatch.delenv("SSL_CERT_FILE")
    unverified = pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED")
    with SmtpSink(starttls=True).running() as sink, unverified:
        notifiers.email(NOTICE, mail_settings(sink.port, **secret))
    assert sink.mails == []


# -- webhook ---------------------------------------------------------------------


def hook_settings(port: int, **fields) -> Settings:
    return Settings(
        notify_webhook_url=f"http://127.0.0.1:{port}/services/T0/secret",
        **{"webhook_allow_cidrs": ("127.0.0.1/32",), "webhook_deadline_seconds": 5.0, **fields},
    )


def test_a_chat_gets_a_text_it_can_show_and_programs_get_the_fields():
    """One body for both."""
    with HttpSink(status("200 OK", body="ok")).running() as sink:
        notifiers.webhook(NOTICE, hook_settings(sink.port))

    (request,) = sink.requests
    assert request.line == "POST /services/T0/secret HTTP/1.1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == NOTICE.id
    assert json.loads(request.body) == {
        "text": "*Publish the report? Ä*\n50 pages, 12 MB.\n.\nSecond paragraph.\n<https://intents.example.com/waits/3>",
        "id": NOTICE.id,
        "kind": "reminder",
        "intent_id": NOTICE.intent_id,
        "wait_id": NOTICE.wait_id,
        "to": ["ana", "ben@example.com"],
        "title": "Publish the report? Ä",
        "url": "https://intents.example.com/waits/3",
        "at": "2026-10-31T18:00:00.000000Z",
    }


def test_a_title_cannot_wake_a_whole_channel():
    """``<!channel>`` is markup; what people write is text."""
    with HttpSink(status("200 OK")).running() as sink:
        notifiers.webhook(changed(title="<!channel> a&b", text="<!here>", url=None, to=()), hook_settings(sink.port))
    assert json.loads(sink.requests[0].body)["text"] == "*&lt;!channel&gt; a&amp;b*\n&lt;!here&gt;"


@pytest.mark.parametrize("line", ["302 Found", "400 Bad", "404 Gone", "500 Oops", "503 Busy"])
def test_only_2xx_is_received(line):
    """A redirect is not: the notice is not carried to where it points."""
    sink = HttpSink(status(line, "Location: http://127.0.0.1:1/"))
    with sink.running(), pytest.raises(ConnectionError) as failed:
        notifiers.webhook(NOTICE, hook_settings(sink.port))
    assert str(failed.value).startswith(f"notice {NOTICE.id}: the webhook answered {line[:3]};")
    assert "secret" not in str(failed.value)
    assert len(sink.requests) == 1


def test_a_webhook_that_hangs_is_left_at_the_deadline():
    """``axme_webhook_deadline_seconds``."""
    sink = HttpSink(lambda sink, conn: sink.server.closing.wait(10))
    with sink.running(), pytest.raises(TimeoutError, match=r"127\.0\.0\.1 did not answer within 0\.3 s"):
        notifiers.webhook(NOTICE, hook_settings(sink.port, webhook_deadline_seconds=0.3))


def test_a_webhook_in_a_private_network_is_not_called_unless_allowed():
    """The same guard as for every other call."""
    with HttpSink(status("200 OK")).running() as sink, pytest.raises(BadInput, match="not at a public address"):
        notifiers.webhook(NOTICE, hook_settings(sink.port, webhook_allow_cidrs=()))
    assert sink.requests == []


# -- finding them ------------------------------------------------------------------


def test_the_built_in_ones_are_found_by_name_in_the_order_asked_for():
    """Also where the package's metadata is not installed."""
    assert load(("webhook", "log", "email")) == [notifiers.webhook, notifiers.log, notifiers.email]
    assert load(()) == []


def test_each_says_which_setting_it_lacks():
    """If it is called all the same."""
    with pytest.raises(BadSetting, match="needs axme_email_host and axme_email_from"):
        notifiers.email(NOTICE, Settings())
    with pytest.raises(BadSetting, match="needs axme_notify_webhook_url"):
        notifiers.webhook(NOTICE, Settings())


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that provides notifiers, as an installer would leave it."""
    (tmp_path / "their_pager.py").write_text("def page(notice, settings): pass\nnothing = None\n")
    info = tmp_path / "their_pager-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-pager\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{notifiers.GROUP}]\npager = their_pager:page\nnothing = their_pager:nothing\n"
        "broken = their_pager:missing\nlog = their_pager:page\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.metadata.version("their-pager") == "1.0"


def test_one_of_another_package_is_found_by_its_entry_point(installed):
    """And cannot take the name of a built-in one."""
    pager, log = load(["pager", "log"])
    assert (pager.__module__, pager.__name__) == ("their_pager", "page")
    assert log is notifiers.log


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("pagr", "'pagr', which no installed package provides; did you mean 'pager'?"),
        ("emial", "did you mean 'email'?"),
        ("zzz", "there are: broken, email, log, nothing, pager, webhook"),
        ("broken", "'broken', which cannot be imported from their_pager:missing"),
        ("nothing", "'nothing', but their_pager:nothing cannot be called"),
    ],
)
def test_one_that_is_not_there_or_does_not_work_is_refused_by_name(installed, name, refusal):
    """At start, not at the first reminder."""
    with pytest.raises(BadSetting, match=r"^axme_notifiers has ") as refused:
        load(["log", name])
    assert refusal in str(refused.value)


def test_a_worker_that_tells_nobody_anything_loads_no_mail_and_no_http():
    """They are imported when first used."""
    code = (
        "import sys; import axme_celery.notifiers\n"
        "assert not {'smtplib', 'axme_celery.outbound', 'urllib3', 'jsonschema'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
