"""Notices: how a person hears that something waits for them.

A notifier is a function ``(notice, settings) -> None`` that raises when it failed; the delivery is then tried again,
so a notice may arrive twice: its ``id`` stays the same. Three are built in; others are entry points of the group
``axme_celery.notifiers``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Literal

from .config import Settings
from .durations import utc_iso
from .errors import BadSetting

if TYPE_CHECKING:
    from email.message import EmailMessage

GROUP = "axme_celery.notifiers"

#: Seconds one step of talking to the mail server may take.
SMTP_TIMEOUT_SECONDS = 20

_log = logging.getLogger("axme_celery.notices")


Kind = Literal["wait_opened", "reminder", "escalation", "delegated", "reassigned", "dead_letter", "message"]


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One thing to tell somebody."""

    #: The same on every try, so that whoever hears it twice can tell.
    id: str
    kind: Kind
    intent_id: str
    #: The wait it is about; None for a dead letter.
    wait_id: str | None
    #: Assignees: addresses, or names that ``axme_contacts`` maps to one.
    to: tuple[str, ...]
    #: One line: what is asked, or what happened.
    title: str
    #: What else there is to say, plain text.
    text: str
    #: Where to answer, where ``axme_base_url`` is set.
    url: str | None
    #: When it arose, UTC.
    at: datetime
    #: (assignee) -> a link by which this one alone may answer without signing in; None where there is none. Whoever has
    #: it is taken for them: send it to nobody else, and write it to no log. Made when it is asked for.
    link: Callable[[str], str | None] = field(default=lambda who: None, repr=False, compare=False)


Notifier = Callable[[Notice, Settings], None]


def load(names: Iterable[str]) -> list[Notifier]:
    """The notifiers of these names, in their order.

    Raises BadSetting for a name nobody provides, with what was probably meant, and for one that cannot be imported.
    """
    found = []
    for name in names:
        if name in BUILT_IN:
            found.append(BUILT_IN[name])
            continue
        from importlib.metadata import entry_points

        provided = {each.name: each for each in entry_points(group=GROUP)}
        if name not in provided:
            known = sorted({*BUILT_IN, *provided})
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
            raise BadSetting(f"axme_notifiers has {name!r}, which no installed package provides; {hint}")
        try:
            notifier = provided[name].load()
        except Exception as wrong:
            raise BadSetting(
                f"axme_notifiers has {name!r}, which cannot be imported from {provided[name].value}: {wrong!r}"
            ) from wrong
        if not callable(notifier):
            raise BadSetting(f"axme_notifiers has {name!r}, but {provided[name].value} cannot be called")
        found.append(notifier)
    return found


def log(notice: Notice, settings: Settings) -> None:
    """Write the notice to the logger ``axme_celery.notices``, with its ids as fields, the intent's in the text too."""
    level = {"dead_letter": logging.ERROR, "escalation": logging.WARNING}.get(notice.kind, logging.INFO)
    _log.log(
        level,
        "%s%s: %s, intent %s%s",
        notice.kind.replace("_", " "),
        # A dead letter is for whoever reads the log.
        f" for {', '.join(_line(each) for each in notice.to)}" if notice.to else "",
        _line(notice.title),
        notice.intent_id,
        f" ({notice.url})" if notice.url else "",
        extra={"notice": notice.id, "kind": notice.kind, "intent": notice.intent_id, "wait": notice.wait_id},
    )


def email(notice: Notice, settings: Settings) -> None:
    """Send the notice to each of its assignees who has an address, as a mail of their own, with their own link.

    An assignee's address is what ``axme_contacts`` says, else the assignee itself where it contains "@".
    None in ``axme_contacts`` means: no mail for this one.

    Raises ConnectionError when the server refuses every address or cannot be reached,
    BadSetting where nobody has an address and not everybody is exempt.
    """
    if settings.email_host is None or settings.email_from is None:
        raise BadSetting("the email notifier needs axme_email_host and axme_email_from")
    addresses, unknown = _addresses(notice, settings)
    if unknown and not addresses:
        raise BadSetting(
            f"no e-mail address for {', '.join(map(repr, unknown))}; add them to axme_contacts (None: no mail)"
        )
    if unknown:
        _log.warning("no e-mail address", extra={"notice": notice.id, "assignees": unknown})
    if addresses:
        _send([_message(notice, settings.email_from, who, address) for who, address in addresses], settings)


def webhook(notice: Notice, settings: Settings) -> None:
    """Post the notice to ``axme_notify_webhook_url``: ``{"text": ...}``, as Slack's webhooks read it, and our fields.

    Raises OSError when there is no answer in time, or one that is not 2xx; BadInput when the URL may not be called.
    """
    from .outbound import post

    if settings.notify_webhook_url is None:
        raise BadSetting("the webhook notifier needs axme_notify_webhook_url")
    body = {
        "text": "\n".join(_slack(each) for each in (f"*{_line(notice.title)}*", notice.text) if each)
        + (f"\n<{_slack(notice.url)}>" if notice.url else ""),
        "id": notice.id,
        "kind": notice.kind,
        "intent_id": notice.intent_id,
        "wait_id": notice.wait_id,
        "to": notice.to,
        "title": notice.title,
        "url": notice.url,
        "at": utc_iso(notice.at),
    }
    reply = post(
        settings.notify_webhook_url,
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "webhook-id": notice.id},
        deadline_seconds=settings.webhook_deadline_seconds,
        allow_cidrs=settings.webhook_allow_cidrs,
    )
    if not 200 <= reply.status < 300:
        raise ConnectionError(f"notice {notice.id}: the webhook answered {reply.status}; only 2xx counts as received")


BUILT_IN: dict[str, Notifier] = {"log": log, "email": email, "webhook": webhook}


# -- text ---------------------------------------------------------------------


def _line(text: str) -> str:
    """One line: what could end a header or forge a line of a log becomes a blank."""
    return re.sub(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", text).strip()


def _slack(text: str) -> str:
    # So that a title cannot write <!channel> and wake everybody.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# -- mail ---------------------------------------------------------------------


# One plain address: no line break, no second one behind a comma, no name around it.
_ADDRESS = re.compile(r'[^\s@<>,;:"()\[\]\\\x00-\x1f\x7f]{1,64}@[^\s@<>,;:"()\[\]\\\x00-\x1f\x7f]{1,255}')


def _addresses(notice: Notice, settings: Settings) -> tuple[list[tuple[str, str]], list[str]]:
    """The assignees with their addresses, and those who have none and are not exempt."""
    addresses: dict[str, str] = {}
    unknown = []
    for who in notice.to:
        address = settings.contacts.get(who, who if "@" in who else "")
        if address is None:
            continue
        if _ADDRESS.fullmatch(address):
            addresses[who] = address
        else:
            unknown.append(who)
    return list(addresses.items()), unknown


def _message(notice: Notice, sender: str, who: str, address: str) -> EmailMessage:
    from email.message import EmailMessage
    from email.policy import SMTP
    from email.utils import format_datetime, parseaddr

    domain = parseaddr(sender)[1].rpartition("@")[2] or "localhost"
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = address
    message["Subject"] = _line(notice.title)
    message["Date"] = format_datetime(notice.at)
    # From the notice's id and the recipient alone: a mail program that gets a second try shows one mail.
    message["Message-ID"] = f"<{_token(notice.id)}.{hashlib.sha256(who.encode()).hexdigest()[:12]}@{domain}>"
    if notice.wait_id:
        message["References"] = f"<{_token(notice.wait_id)}@{domain}>"  # reminders of one wait make one thread
    message["Auto-Submitted"] = "auto-generated"  # out-of-office replies stay away
    link = notice.link(who)
    yours = f"Look at it and answer, without signing in:\n{link}\nThis link is for {_line(who)} alone." if link else ""
    parts = [notice.text, yours or notice.url or "", f"Intent {notice.intent_id}"]
    message.set_content("\n\n".join(each for each in parts if each).replace("\0", "") + "\n")
    message.add_alternative(_html(notice, who, link).replace("\0", ""), subtype="html")
    return message


def _html(notice: Notice, who: str, link: str | None) -> str:
    """The same for those whose mail program shows it: no images, nothing from elsewhere."""
    where = link or notice.url
    button = (
        f'<p><a href="{escape(where)}" style="display:inline-block;padding:12px 20px;background:#0b5cad;color:#ffffff;'
        f'text-decoration:none;border-radius:4px">{"Look at it and answer" if link else "Look at it"}</a></p>'
        if where and where.startswith(("https://", "http://"))
        else ""
    )
    yours = f"<p>This link is for {escape(_line(who))} alone: whoever has it answers as them.</p>" if link else ""
    lines = "".join(f"<p>{escape(line)}</p>" for line in notice.text.splitlines() if line.strip())
    return (
        '<!doctype html><html lang="en"><body style="font-family:sans-serif;font-size:16px;line-height:1.5">'
        f'<h1 style="font-size:20px">{escape(_line(notice.title))}</h1>{lines}{button}{yours}'
        f'<p style="color:#555555;font-size:14px">Intent {escape(notice.intent_id)}</p></body></html>\n'
    )


def _token(id: str) -> str:
    return id if re.fullmatch(r"[A-Za-z0-9-]{1,64}", id) else hashlib.sha256(id.encode()).hexdigest()[:40]


def _send(messages: Sequence[EmailMessage], settings: Settings) -> None:
    """Send them over one connection. Raises ConnectionError where none was taken."""
    import smtplib
    import ssl

    host, port = settings.email_host or "", settings.email_port
    refused: dict[str, str] = {}
    try:
        tls = ssl.create_default_context()
        server = (
            smtplib.SMTP_SSL(host, port, timeout=SMTP_TIMEOUT_SECONDS, context=tls)
            if port == 465
            else smtplib.SMTP(host, port, timeout=SMTP_TIMEOUT_SECONDS)
        )
        with server:
            if settings.email_starttls and port != 465:
                server.starttls(context=tls)
            if settings.email_username:
                server.login(settings.email_username, settings.email_password or "")
            for message in messages:
                try:
                    server.send_message(message)
                except smtplib.SMTPRecipientsRefused as wrong:
                    refused[str(message["To"])] = str(wrong)
    except (smtplib.SMTPException, OSError) as wrong:
        raise ConnectionError(
            f"mail {messages[0]['Message-ID']} was not taken by {host}:{port}: {_line(str(wrong))}"
        ) from wrong
    if len(refused) == len(messages):
        why = _line(next(iter(refused.values())))
        raise ConnectionError(f"mail {messages[0]['Message-ID']} was not taken by {host}:{port}: {why}")
    if refused:
        # Others have it. Trying again would send it to them again, and be refused again.
        _log.error(
            "mail refused for some", extra={"message_id": str(messages[0]["Message-ID"]), "refused": sorted(refused)}
        )
