"""Settings: every ``axme_*`` key, its default, its unit, and what is refused.

A setting's meaning is kept beside its default, as data, so that the reference page is made from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

from .durations import seconds, words
from .errors import BadInput, BadSetting
from .hours import BusinessHours
from .who import Role


class Conf(Protocol):
    """What is read: ``app.conf``, or any mapping."""

    def get(self, key: str, default: Any = None, /) -> Any: ...

    def keys(self) -> Iterable[Any]: ...


_Check = Callable[[Any, str], Any]


def _setting(default: Any, check: _Check, doc: str, *, secret: bool = False) -> Any:
    meta = {"check": check, "doc": doc}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=meta, repr=not secret, hash=False)
    return dataclasses.field(default=default, metadata=meta, repr=not secret)


# -- checks: (value, key) -> the value as it is kept, or BadSetting -----------


def _refuse(key: str, value: Any, need: str) -> BadSetting:
    shown = repr(value)
    return BadSetting(f"{key} is {shown if len(shown) <= 80 else shown[:77] + '...'}; it must be {need}")


def _lasts(least: float = 0.0, most: float = 36525 * 86400.0) -> _Check:
    def check(value: Any, key: str) -> float:
        try:
            found = seconds(value, key)
        except BadInput as refused:
            raise BadSetting(str(refused)) from None
        if not least <= found <= most:
            raise _refuse(key, value, f"from {words(least)} to {words(most)} (a bare number is seconds)")
        return found

    return check


def _count(least: int, most: int, unit: str) -> _Check:
    def check(value: Any, key: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _refuse(key, value, f"a whole number from {least} to {most} ({unit})")
        return value

    return check


def _names(what: str) -> _Check:
    def check(value: Any, key: str) -> tuple[str, ...]:
        names = (value,) if isinstance(value, str) else value
        if not isinstance(names, (list, tuple, set, frozenset)) or not all(
            isinstance(each, str) and each.strip() for each in names
        ):
            raise _refuse(key, value, f"a list of {what}")
        return tuple(sorted(names) if isinstance(names, (set, frozenset)) else names)

    return check


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        # Never show the value: the key may be a secret.
        raise BadSetting(f"{key} is {'empty' if isinstance(value, str) else type(value).__name__}; it must be text")
    return value


def _one_of(*words: str) -> _Check:
    def check(value: Any, key: str) -> str:
        if value not in words:
            raise _refuse(key, value, f"one of {', '.join(words)}")
        return str(value)

    return check


def _flag(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise _refuse(key, value, "True or False")
    return value


def _optional(check: _Check) -> _Check:
    return lambda value, key: None if value is None or value == "" else check(value, key)


def _http_url(value: Any, key: str) -> str:
    url = _text(value, key).strip().rstrip("/")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise BadSetting(f"{key} is no http:// or https:// address; write it like https://intents.example.com")
    return url


def _issuer(value: Any, key: str) -> str:
    url = _text(value, key).strip()
    parts = urlsplit(_http_url(url, key))
    if parts.query or parts.fragment or parts.username:
        raise BadSetting(
            f"{key} is more than an address; write it as the provider does: https://login.example.com/realm"
        )
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise BadSetting(f"{key} must be https://: who people are is not taken from what anybody may have changed")
    # As it is: whether it ends in a slash is the provider's to say, and its tokens say the same.
    return url


def _ledger_url(value: Any, key: str) -> str:
    url = _text(value, key).strip()
    scheme, found, rest = url.partition("://")
    # Hosting platforms hand out these two, which would ask for a driver this package does not bring.
    if scheme in ("postgres", "postgresql"):
        scheme = "postgresql+psycopg"
    if not found or scheme not in ("postgresql+psycopg", "sqlite", "sqlite+pysqlite"):
        raise BadSetting(
            f"{key} begins with {scheme[:30] + '://' if found else 'no scheme'!r}; the ledger is kept in PostgreSQL "
            f"(postgresql+psycopg://user@host/name) or SQLite (sqlite:///path.db)"
        )
    return f"{scheme}://{rest}"


def _redis_url(value: Any, key: str) -> str:
    """A Redis URL as redis-py reads it, from what Celery also accepts for a broker."""
    # Of a failover list the first is taken: a lease must not be looked for on two servers.
    url = _text(value, key).strip().split(";")[0]
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    if parts.scheme in ("redis+socket", "unix"):
        if "virtual_host" in options:
            options["db"] = options.pop("virtual_host").strip("/") or "0"
        return f"unix://{parts.netloc}{parts.path}" + (f"?{urlencode(options)}" if options else "")
    if parts.scheme not in ("redis", "rediss"):
        raise BadSetting(
            f"{key} begins with {parts.scheme[:30]!r}; it must be redis://, rediss:// or unix://, "
            f"or None to keep leases and timers in the ledger's database"
        )
    if options.get("ssl_cert_reqs", "").startswith("CERT_"):
        options["ssl_cert_reqs"] = options["ssl_cert_reqs"][5:].lower()
        return parts._replace(query=urlencode(options)).geturl()
    return url


def _delays(value: Any, key: str) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)) or len(value) > 100:
        raise _refuse(key, value, "a list of at most 100 delays, the one before each further try")
    return tuple(_lasts()(each, f"{key}[{n}]") for n, each in enumerate(value))


def _cidrs(value: Any, key: str) -> tuple[str, ...]:
    names: tuple[str, ...] = _names('networks like "10.1.0.0/16"')(value, key)
    for each in names:
        try:
            ipaddress.ip_network(each)
        except ValueError as wrong:
            raise _refuse(key, each, f'networks like "10.1.0.0/16" ({wrong})') from None
    return names


def _secrets(value: Any, key: str) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(
        isinstance(tool, str) and isinstance(secret, str) and len(secret.removeprefix("whsec_")) >= 24
        for tool, secret in value.items()
    ):
        # Never show the value: it is a secret.
        raise BadSetting(f'{key} must map each tool to its secret, "whsec_" and at least 24 characters of base64')
    return dict(value)


def _business_hours(value: Any, key: str) -> dict[str, Any]:
    try:
        return BusinessHours.read(value, key).as_json()
    except BadInput as refused:
        raise BadSetting(str(refused)) from None


def _roles(value: Any, key: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        raise _refuse(key, value, 'a mapping of role to names, like {"operator": ["ops"]}')
    for role in value:
        if role not in list(Role):
            raise _refuse(f"{key}[{role!r}]", role, f"one of {', '.join(Role)}")
    return {str(role): _names("names of people and groups")(names, f"{key}[{role!r}]") for role, names in value.items()}


def _contacts(value: Any, key: str) -> dict[str, str | None]:
    if not isinstance(value, Mapping):
        raise _refuse(key, value, "a mapping of assignee to e-mail address, or to None for no mail")
    for who, address in value.items():
        if not isinstance(who, str) or not (address is None or (isinstance(address, str) and "@" in address)):
            raise _refuse(f"{key}[{who!r}]", address, "an e-mail address, or None for no mail")
    return dict(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, read once and checked. A field ``x`` is the key ``axme_x``; durations are seconds."""

    # fmt: off
    ledger_url: str = _setting(
        "sqlite:///axme.db", _ledger_url, secret=True,
        doc="SQLAlchemy URL of the ledger: postgresql+psycopg:// in production, sqlite:/// on one machine.")
    redis_url: str | None = _setting(
        None, _optional(_redis_url), secret=True,
        doc="URL of the tracker's Redis. Default: the broker's, if that is Redis. "
        "None: the ledger's database is the tracker.")
    tasks: tuple[str, ...] = _setting(
        (), _names('task name patterns like "reports.*"'),
        doc='Patterns (shell style, "reports.*") of ordinary tasks whose calls become intents.')
    tick_seconds: float = _setting(
        1.0, _lasts(0.01, 3600), doc="Seconds between two sweeps on the beat schedule.")
    lease_seconds: float = _setting(
        15.0, _lasts(0.1, 86400),
        doc="Seconds a worker may be silent before its legs are given to another. Renewed at a third of this; "
        "must be longer than a tick.")
    max_legs: int = _setting(
        100_000, _count(1, 10_000_000, "tasks"),
        doc="A canvas of more tasks than this is refused.")
    join_bytes: int = _setting(
        16 * 1024 * 1024, _count(1024, 1 << 30, "bytes"),
        doc="Results that come together (of a group, for the body of a chord) may be this many bytes of JSON; over it the "
            "intent fails, naming the place.")
    max_attempts: int = _setting(
        5, _count(1, 1000, "attempts"), doc="Runs of a leg that may die with their worker before it is a dead letter.")
    requeue_seconds: float = _setting(
        600.0, _lasts(0.1),
        doc="Seconds after which a published leg that nobody started is published again; doubles up to eight times that.")
    eta_threshold_seconds: float = _setting(
        60.0, _lasts(), doc="Countdowns longer than this many seconds are kept as timers in the ledger.")
    payload_bytes: int = _setting(
        131072, _count(1, 2**28, "bytes"), doc="Largest payload of an intent, in bytes of JSON.")
    result_bytes: int = _setting(
        1048576, _count(1, 2**28, "bytes"), doc="Largest result of a step, leg or tool, in bytes of JSON.")
    secret_key: str | None = _setting(
        None, _optional(_text), secret=True,
        doc="Keys the audit chain, so that whoever can write the database cannot rewrite history, and signs sessions of "
        "the pages: at least 32 random characters, the same in every process.")
    base_url: str | None = _setting(
        None, _optional(_http_url),
        doc="Where people reach your pages about intents; notices link to /waits/<id> and /a/<secret> below it.")
    actor: str | None = _setting(
        None, _optional(_text), doc='Dotted path of a function "(request) -> Actor or None": the host\'s own login.')
    roles: Mapping[str, tuple[str, ...]] = _setting(
        {}, _roles,
        doc='Who is more than an approver, by role: {"operator": ["ops"], "admin": ["ana"]}; names of people and groups.')
    proxy_addresses: tuple[str, ...] = _setting(
        (), _cidrs, doc="Networks of the proxies whose word is taken on who a request comes from. None: nobody's.")
    proxy_user_header: str = _setting(
        "X-Forwarded-User", _text, doc="The header in which such a proxy names the person.")
    proxy_groups_header: str = _setting(
        "X-Forwarded-Groups", _text, doc="The header in which it names their groups, with commas between.")
    oidc_issuer: str | None = _setting(
        None, _optional(_issuer),
        doc="The OpenID provider whose accounts people sign in with, written exactly as it writes itself. Needs "
        "axme-celery[oidc].")
    oidc_client_id: str | None = _setting(
        None, _optional(_text), doc="The id under which these pages are registered with that provider.")
    oidc_client_secret: str | None = _setting(
        None, _optional(_text), secret=True, doc="The secret that goes with it.")
    oidc_id_claim: str = _setting(
        "email", _text,
        doc='The claim by which people are known here: "email" (refused unless the provider has verified it), "sub", or '
        "another that people cannot change themselves.")
    oidc_groups_claim: str = _setting(
        "groups", _text, doc="The claim with the names of their groups; without it they have none.")
    hosts: tuple[str, ...] = _setting(
        (), _names("host names"),
        doc="Host names the pages answer to, besides that of axme_base_url and this machine's own.")
    redact: tuple[str, ...] = _setting(
        ("*password*", "*passwd*", "*secret*", "*token*", "*api_key*", "*apikey*", "*authorization*", "*credential*",
         "*private_key*", "*cookie*"), _names('field names like "*token*"'),
        doc="Fields whose values pages, streams and exports show as dots, wherever they are in a payload or result; "
        "shell-style patterns, upper and lower case alike.")
    requests_per_minute: int | None = _setting(
        12000, _optional(_count(1, 10**7, "requests a minute")),
        doc="Requests one actor may send to one endpoint of the HTTP interface in a minute, in each web process; "
        "then it is told 429 until it slows down. None: as many as it likes.")
    tool_secrets: Mapping[str, str] = _setting(
        {}, _secrets, secret=True,
        doc='Secret ("whsec_...") of each tool that signs its reports as Standard Webhooks are signed.')
    agent_lease_seconds: float = _setting(
        60.0, _lasts(1.0, 86400),
        doc="Seconds an agent outside Celery has an intent it took; it may renew that. Then the next listener gets it.")
    live_clients: int = _setting(
        56, _count(1, 100000, "streams"),
        doc="Live streams one web process holds at once. Keep it well below the process's threads: a stream takes one.")
    retention: float | None = _setting(
        None, _optional(_lasts(1.0)),
        doc='How long an ended intent stays before "prune" may take it, as a duration ("90d"). None: for ever.')
    notifiers: tuple[str, ...] = _setting(
        ("log",), _names('notifiers like "log"'),
        doc="Ways a notice goes out: log, email, webhook, or an entry point of axme_celery.notifiers.")
    notify_webhook_url: str | None = _setting(
        None, _optional(_http_url), secret=True,
        doc='Where the "webhook" notifier posts: a Slack-style incoming webhook.')
    business_hours: Mapping[str, Any] | None = _setting(
        None, _optional(_business_hours),
        doc='When people are at work: {"days": "mon-fri", "hours": "09:00-17:00", "tz": "Europe/Berlin"}, and "holidays". '
        "Reminders, escalations and timeouts of people's waits then count working time. None: around the clock.")
    notice_links: str = _setting(
        "decide", _one_of("decide", "view", "none"),
        doc='What the personal links in mails are good for, where axme_base_url is set: "decide" (answer without signing '
        'in), "view" (look only) or "none".')
    contacts: Mapping[str, str | None] = _setting(
        {}, _contacts, doc="E-mail address of each assignee who is not an address; None: no mail for this one.")
    email_host: str | None = _setting(
        None, _optional(_text), doc='SMTP server of the "email" notifier.')
    email_port: int = _setting(
        587, _count(1, 65535, "port"), doc="SMTP port. On 465 TLS begins at once.")
    email_from: str | None = _setting(
        None, _optional(_text), doc='Sender of notices, like "Intents <intents@example.com>".')
    email_username: str | None = _setting(
        None, _optional(_text), doc="SMTP login. None: no login.")
    email_password: str | None = _setting(
        None, _optional(_text), secret=True, doc="SMTP password that goes with the login.")
    email_starttls: bool = _setting(
        True, _flag, doc="Secure the connection by STARTTLS before anything is sent; a server that cannot is not used.")
    webhook_retry_seconds: tuple[float, ...] = _setting(
        (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0), _delays,
        doc="Seconds before each further try of a webhook or notice, after the first at once (with jitter: half to all "
        "of it); then it is a dead letter.")
    webhook_deadline_seconds: float = _setting(
        20.0, _lasts(0.1, 300), doc="Seconds one outgoing call may take in all, from name lookup to answer.")
    webhook_concurrency: int = _setting(
        16, _count(1, 1000, "calls"),
        doc="Webhook calls one process may have under way at once; at most four of them to one subscription.")
    webhook_allow_cidrs: tuple[str, ...] = _setting(
        (), _cidrs,
        doc="Private networks outgoing calls may reach all the same, also by plain http. "
        "Otherwise: public addresses, https.")
    # fmt: on

    @classmethod
    def read(cls, conf: Conf, broker_url: str | list[str] | None, **overrides: Any) -> Settings:
        """The settings of a Celery app.

        conf:       ``app.conf`` or a mapping. ``axme_x``, ``AXME_X``, and what a namespace makes of it
                    (``CELERY_AXME_X``) are the same key; ``None`` means the default, but for
                    ``axme_redis_url``, where it means "no Redis".
        broker_url: the app's broker, whose Redis is the tracker unless ``axme_redis_url`` says otherwise.
        overrides:  fields by name, from ``Axme(app, lease_seconds=...)``. They win over ``conf``.

        Raises BadSetting naming the key: unknown (with what was probably meant), of a wrong type,
        out of range, or at odds with another.
        """
        fields = {each.name: each for each in dataclasses.fields(cls)}
        given = _given(conf, fields)
        for name, value in overrides.items():
            if name not in fields:
                raise _unknown(f"axme_{name}", name, fields)
            given[name] = (f"axme_{name}", value)
        if "redis_url" not in given:
            broker = broker_url[0] if isinstance(broker_url, (list, tuple)) and broker_url else broker_url
            if isinstance(broker, str) and broker.startswith(("redis://", "rediss://", "redis+socket://", "unix://")):
                given["redis_url"] = ("broker_url", broker)
        kept = {
            name: fields[name].metadata["check"](value, key)
            for name, (key, value) in given.items()
            if value is not None or name == "redis_url"
        }
        settings = cls(**kept)
        settings._agree()
        return settings

    @classmethod
    def documented(cls) -> list[tuple[str, Any, str]]:
        """Each setting as (key, default, meaning), in the order of the reference page."""
        return [
            (f"axme_{each.name}", {} if each.default is dataclasses.MISSING else each.default, each.metadata["doc"])
            for each in dataclasses.fields(cls)
        ]

    def _agree(self) -> None:
        if self.lease_seconds <= self.tick_seconds:
            raise BadSetting(
                f"axme_lease_seconds is {words(self.lease_seconds)}, not longer than axme_tick_seconds "
                f"({words(self.tick_seconds)}); leases are looked at once a tick: make it three ticks or more"
            )
        oidc = ("oidc_issuer", "oidc_client_id", "oidc_client_secret")
        missing = [f"axme_{name}" for name in oidc if getattr(self, name) is None]
        if missing and len(missing) < len(oidc):
            raise BadSetting(f"signing in with accounts needs {' and '.join(missing)} too; set all three, or none")
        for notifier, needed in (("email", ("email_host", "email_from")), ("webhook", ("notify_webhook_url",))):
            for name in needed:
                if notifier in self.notifiers and getattr(self, name) is None:
                    raise BadSetting(
                        f"axme_notifiers has {notifier!r}, which needs axme_{name}; set it, or leave {notifier!r} out"
                    )


_MISSING = object()


def _given(conf: Conf, fields: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Field -> (key as the user wrote it, value), for every key of ours in ``conf``."""
    given: dict[str, tuple[str, Any]] = {}
    for key in conf.keys():  # noqa: SIM118, a Celery configuration iterates differently from its keys
        if not isinstance(key, str):
            continue
        namespace, found, name = key.lower().partition("axme_")
        if not found:
            continue
        # By its plain name first: that lookup honours the namespace and the order in which
        # Celery lets one source of configuration win over another.
        value = conf.get(f"axme_{name}", _MISSING)
        if value is _MISSING:
            if namespace:
                continue  # somebody else's key: no namespace in effect makes it ours
            value = conf.get(key, _MISSING)
        if isinstance(value, types.ModuleType):
            continue  # ``import axme_celery`` in a settings module
        if name in fields:
            given[name] = (key, value)
        elif key.islower() or namespace or difflib.get_close_matches(name, fields):
            raise _unknown(key, name, fields)
        # Else an upper-case AXME_ constant that resembles none of ours: the project's own.
    return given


def _unknown(key: str, name: str, fields: Iterable[str]) -> BadSetting:
    close = difflib.get_close_matches(name, fields, n=1)
    if not close:
        return BadSetting(f"unknown setting {key}; the settings are {', '.join(f'axme_{each}' for each in fields)}")
    start = len(key) - len(name)
    meant = close[0].upper() if key.isupper() else close[0]
    return BadSetting(f"unknown setting {key}, did you mean {key[:start]}{meant}?")
