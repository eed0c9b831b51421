"""Settings as a project's configuration gives them."""

from __future__ import annotations

import dataclasses
import types

import pytest
from celery import Celery

from axme_celery.config import Settings
from axme_celery.errors import BadSetting


def celery(broker: str | None = "redis://cache:6379/3", **options) -> Celery:
    return Celery("project", broker=broker, set_as_current=False, **options)


def read(**conf) -> Settings:
    return Settings.read(conf, None)


def test_a_project_that_sets_nothing_gets_the_documented_defaults():
    """Installing is enough."""
    app = celery("amqp://rabbit")
    settings = Settings.read(app.conf, app.conf.broker_url)

    assert settings == Settings()
    assert {key: default for key, default, _ in Settings.documented()} == {
        f"axme_{name}": value for name, value in dataclasses.asdict(Settings()).items()
    }
    assert (settings.tick_seconds, settings.lease_seconds, settings.max_attempts) == (1.0, 15.0, 5)
    assert (settings.payload_bytes, settings.result_bytes) == (131072, 1048576)


def test_every_default_passes_its_own_check():
    """What is documented as a default may also be written out."""
    for key, default, doc in Settings.documented():
        assert getattr(read(**{key: default}), key.removeprefix("axme_")) == default, key
        assert doc.endswith(".") and len(doc) > 20, key


def test_a_unit_is_told_for_every_number():
    """Nobody should have to guess seconds or bytes."""
    for key, _, doc in Settings.documented():
        if key.endswith("_seconds"):
            assert "seconds" in doc.lower(), key
        if key.endswith("_bytes"):
            assert "bytes" in doc, key


class Plain:
    axme_lease_seconds = "20s"
    AXME_MAX_ATTEMPTS = 9
    task_acks_late = True


class Namespaced:
    CELERY_AXME_LEASE_SECONDS = 20
    CELERY_AXME_MAX_ATTEMPTS = 9
    CELERY_TASK_ACKS_LATE = True
    AXME_API_KEY = "of somebody else"
    OTHER_AXME_THING = 1


def test_a_plain_configuration_object_is_read_in_either_case():
    """``axme_x`` and ``AXME_X`` are one key."""
    app = celery()
    app.config_from_object(Plain)
    settings = Settings.read(app.conf, app.conf.broker_url)

    assert (settings.lease_seconds, settings.max_attempts) == (20.0, 9)


def test_a_namespaced_configuration_is_read_and_what_is_set_on_the_app_wins():
    """``CELERY_AXME_X`` under Django; ``app.conf.axme_x = ...`` overrides it, as it does for Celery's own keys."""
    app = celery()
    app.config_from_object(Namespaced, namespace="CELERY")
    app.conf.update(axme_max_attempts=2)
    settings = Settings.read(app.conf, app.conf.broker_url)

    assert (settings.lease_seconds, settings.max_attempts) == (20.0, 2)
    assert app.conf.task_acks_late is True


def test_a_configuration_not_yet_looked_at_is_read_too():
    """``app.conf`` is lazy until somebody reads it; we may be the first."""
    app = celery()
    app.config_from_object(Namespaced, namespace="CELERY")

    assert Settings.read(app.conf, None).lease_seconds == 20.0


def test_a_settings_module_may_import_the_package():
    """``import axme_celery`` makes a name that looks like a key."""
    module = types.ModuleType("celeryconfig")
    module.axme_celery = types.ModuleType("axme_celery")
    module.axme_tick_seconds = 0.5
    app = celery()
    app.config_from_object(module)

    assert Settings.read(app.conf, None).tick_seconds == 0.5


@pytest.mark.parametrize(
    ("conf", "namespace", "refusal"),
    [
        ({"axme_leese_seconds": 5}, None, "unknown setting axme_leese_seconds, did you mean axme_lease_seconds?"),
        ({"AXME_LEESE_SECONDS": 5}, None, "unknown setting AXME_LEESE_SECONDS, did you mean AXME_LEASE_SECONDS?"),
        (
            {"CELERY_AXME_LEDGER": "x"},
            "CELERY",
            "unknown setting CELERY_AXME_LEDGER, did you mean CELERY_AXME_LEDGER_URL?",
        ),
        ({"axme_zzz": 1}, None, "unknown setting axme_zzz; the settings are axme_ledger_url, axme_redis_url"),
        ({"CELERY_AXME_ZZZ": 1}, "CELERY", "unknown setting CELERY_AXME_ZZZ; the settings are"),
    ],
)
def test_an_unknown_setting_is_refused_with_what_was_probably_meant(conf, namespace, refusal):
    """A misspelt setting must not be a silent default."""
    app = celery()
    app.config_from_object(conf, namespace=namespace)

    with pytest.raises(BadSetting) as refused:
        Settings.read(app.conf, None)
    assert str(refused.value).startswith(refusal)


def test_an_unknown_setting_set_on_the_app_or_passed_by_name_is_refused():
    """The other two ways in."""
    app = celery()
    app.conf.axme_tiks = 5
    with pytest.raises(BadSetting, match="unknown setting axme_tiks, did you mean axme_tasks"):
        Settings.read(app.conf, None)
    with pytest.raises(BadSetting, match="unknown setting axme_leas_seconds, did you mean axme_lease_seconds"):
        Settings.read({}, None, leas_seconds=3)


def test_what_is_passed_by_name_wins_over_the_configuration():
    """``Axme(app, lease_seconds=30)``."""
    assert Settings.read({"axme_lease_seconds": 20}, None, lease_seconds="30s").lease_seconds == 30.0
    with pytest.raises(BadSetting, match="axme_lease_seconds is negative"):
        Settings.read({}, None, lease_seconds=-1)


@pytest.mark.parametrize(
    ("broker", "expected"),
    [
        ("redis://cache:6379/3", "redis://cache:6379/3"),
        ("redis://", "redis://"),
        ("rediss://:pw@cache/0?ssl_cert_reqs=CERT_REQUIRED", "rediss://:pw@cache/0?ssl_cert_reqs=required"),
        ("redis+socket:///run/redis.sock?virtual_host=2", "unix:///run/redis.sock?db=2"),
        ("redis+socket:///run/redis.sock", "unix:///run/redis.sock"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("redis://a:1;redis://b:2", "redis://a:1"),
        (["redis://a:1", "redis://b:2"], "redis://a:1"),
        ("amqp://guest@rabbit//", None),
        ("sentinel://a:26379", None),
        ("filesystem://", None),
        (None, None),
        ([], None),
    ],
)
def test_the_tracker_is_the_brokers_redis_where_the_broker_is_redis(broker, expected):
    """In the spelling redis-py reads."""
    assert Settings.read({}, broker).redis_url == expected


def test_the_urls_made_from_a_broker_are_read_by_the_redis_client():
    """Not only by us."""
    from redis.connection import parse_url

    for broker in ("redis+socket:///run/redis.sock?virtual_host=2", "rediss://c/0?ssl_cert_reqs=CERT_NONE", "redis://"):
        url = Settings.read({}, broker).redis_url
        assert url is not None
        parse_url(url)
    assert parse_url(Settings.read({}, "redis+socket:///r.sock?virtual_host=2").redis_url)["db"] == 2


def test_no_redis_can_be_asked_for_though_the_broker_is_redis():
    """``axme_redis_url = None``: the ledger's database is the tracker."""
    app = celery()
    app.conf.axme_redis_url = None
    assert Settings.read(app.conf, app.conf.broker_url).redis_url is None
    assert Settings.read({"axme_redis_url": ""}, "redis://x").redis_url is None
    assert Settings.read({"axme_redis_url": "redis://mine"}, "redis://x").redis_url == "redis://mine"


def test_none_means_the_default_for_every_other_setting():
    """As in Celery's own configuration."""
    assert read(**{key: None for key, _, _ in Settings.documented()}) == Settings()


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("postgres://u:p@h/db", "postgresql+psycopg://u:p@h/db"),
        ("postgresql://u:p@h/db", "postgresql+psycopg://u:p@h/db"),
        ("postgresql+psycopg://u:p@h/db?sslmode=require", "postgresql+psycopg://u:p@h/db?sslmode=require"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
        ("sqlite://", "sqlite://"),
    ],
)
def test_a_ledger_url_as_hosting_platforms_write_it_is_understood(written, kept):
    """``DATABASE_URL`` can be passed on as it is."""
    assert read(axme_ledger_url=written).ledger_url == kept


def test_settings_are_kept_in_their_plain_forms():
    """Durations as seconds, lists as tuples, addresses without a trailing slash."""
    settings = read(
        axme_tasks=["reports.*", "billing.*"],
        axme_notifiers="log",
        axme_tick_seconds="500ms",
        axme_retention="90d",
        axme_base_url="https://intents.example.com/base/",
        axme_webhook_retry_seconds=["5s", 10, "1h"],
        axme_webhook_allow_cidrs=["10.0.0.0/8", "::1/128"],
        axme_contacts={"ana": "ana@example.com", "bot": None},
    )

    assert settings.tasks == ("reports.*", "billing.*")
    assert settings.notifiers == ("log",)
    assert (settings.tick_seconds, settings.retention) == (0.5, 90 * 86400.0)
    assert settings.base_url == "https://intents.example.com/base"
    assert settings.webhook_retry_seconds == (5.0, 10.0, 3600.0)
    assert settings.contacts == {"ana": "ana@example.com", "bot": None}
    assert isinstance(hash(settings), int)


@pytest.mark.parametrize(
    ("conf", "refusal"),
    [
        ({"axme_tick_seconds": 0}, "axme_tick_seconds is 0; it must be from 10ms to 1h (a bare number is seconds)"),
        ({"axme_tick_seconds": "soon"}, "axme_tick_seconds is 'soon', which is no duration"),
        ({"axme_tick_seconds": "1"}, "axme_tick_seconds is '1', which is no duration; did you mean 1 or \"1s\"?"),
        ({"axme_lease_seconds": True}, "axme_lease_seconds is True, which is no duration"),
        ({"axme_lease_seconds": 1}, "axme_lease_seconds is 1s, not longer than axme_tick_seconds (1s)"),
        ({"axme_max_attempts": 0}, "axme_max_attempts is 0; it must be a whole number from 1 to 1000 (attempts)"),
        ({"axme_max_attempts": "5"}, "axme_max_attempts is '5'; it must be a whole number"),
        ({"axme_max_attempts": 2.0}, "axme_max_attempts is 2.0; it must be a whole number"),
        ({"axme_payload_bytes": -1}, "axme_payload_bytes is -1; it must be a whole number from 1 to 268435456 (bytes)"),
        (
            {"axme_result_bytes": 2**40},
            "axme_result_bytes is 1099511627776; it must be a whole number from 1 to 268435456 (bytes)",
        ),
        ({"axme_retention": -1}, "axme_retention is negative"),
        ({"axme_tasks": 5}, "axme_tasks is 5; it must be a list of task name patterns"),
        ({"axme_tasks": ["a", ""]}, "axme_tasks is ['a', '']; it must be a list"),
        ({"axme_notifiers": {"log": 1}}, "axme_notifiers is {'log': 1}; it must be a list"),
        (
            {"axme_ledger_url": "mysql://h/db"},
            "axme_ledger_url begins with 'mysql://'; the ledger is kept in PostgreSQL",
        ),
        ({"axme_ledger_url": "axme.db"}, "axme_ledger_url begins with 'no scheme'"),
        ({"axme_ledger_url": 5}, "axme_ledger_url is int; it must be text"),
        ({"axme_redis_url": "amqp://rabbit"}, "axme_redis_url begins with 'amqp'; it must be redis://"),
        ({"axme_redis_url": "localhost:6379"}, "axme_redis_url begins with 'localhost'"),
        ({"axme_base_url": "intents.example.com"}, "axme_base_url is no http:// or https:// address"),
        ({"axme_base_url": "https://h:0"}, "axme_base_url is no http:// or https:// address"),
        ({"axme_base_url": "https://h:x"}, "axme_base_url is no http:// or https:// address"),
        ({"axme_email_port": 70000}, "axme_email_port is 70000; it must be"),
        ({"axme_email_starttls": "yes"}, "axme_email_starttls is 'yes'; it must be True or False"),
        ({"axme_contacts": ["a"]}, "axme_contacts is ['a']; it must be a mapping"),
        ({"axme_contacts": {"ana": "ana"}}, "axme_contacts['ana'] is 'ana'; it must be an e-mail address"),
        ({"axme_webhook_retry_seconds": "5s"}, "axme_webhook_retry_seconds is '5s'; it must be a list"),
        ({"axme_webhook_retry_seconds": [1, -1]}, "axme_webhook_retry_seconds[1] is negative"),
        ({"axme_webhook_deadline_seconds": 0}, "axme_webhook_deadline_seconds is 0; it must be from 100ms to 5m"),
        ({"axme_webhook_allow_cidrs": ["10.1.2.3/8"]}, "axme_webhook_allow_cidrs is '10.1.2.3/8'; it must be networks"),
        ({"axme_notifiers": ["log", "email"]}, "axme_notifiers has 'email', which needs axme_email_host"),
        (
            {"axme_notifiers": ["email"], "axme_email_host": "h"},
            "axme_notifiers has 'email', which needs axme_email_from",
        ),
        ({"axme_notifiers": ["webhook"]}, "axme_notifiers has 'webhook', which needs axme_notify_webhook_url"),
        ({"AXME_TICK_SECONDS": -1}, "AXME_TICK_SECONDS is negative"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_key_with_the_way_out(conf, refusal):
    """The key is named as the user wrote it."""
    with pytest.raises(BadSetting) as refused:
        Settings.read(conf, None)
    assert str(refused.value).startswith(refusal)


def test_no_secret_is_shown_when_settings_are_printed_or_refused():
    """They end in logs."""
    settings = read(
        axme_ledger_url="postgresql://u:hunter2@h/db",
        axme_redis_url="redis://:hunter2@h",
        axme_secret_key="hunter2",
        axme_email_password="hunter2",
        axme_notify_webhook_url="https://hooks.example/hunter2",
    )
    assert "hunter2" not in repr(settings)
    for key in ("axme_secret_key", "axme_email_password"):
        with pytest.raises(BadSetting) as refused:
            read(**{key: ["hunter2"]})
        assert "hunter2" not in str(refused.value)
    for key, wrong in (("axme_ledger_url", "mysql://u:hunter2@h"), ("axme_redis_url", "amqp://u:hunter2@h")):
        with pytest.raises(BadSetting) as refused:
            read(**{key: wrong})
        assert "hunter2" not in str(refused.value)


def test_settings_never_change():
    """They are read once."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().lease_seconds = 3
