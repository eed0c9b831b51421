"""keys, and what web refuses."""

from __future__ import annotations

import json

import pytest

from axme_celery import keys

from .command_line import desk_fixture  # noqa: F401


def test_a_key_is_made_shown_once_listed_and_revoked(desk):
    """Its secret is in the first answer and in none after it."""
    made = desk.json("keys", "create", "--name", "ci", "--role", "operator", "--groups", "ops,dev", "--groups", "qa")
    assert made["groups"] == ["ops", "dev", "qa"] and made["role"] == "operator"
    assert keys.by_secret(desk.axme.runtime, made["key"]).id == made["id"]

    listed = desk.run("keys", "list").stdout
    assert made["id"] in listed and "good" in listed and made["key"] not in listed
    assert made["key"] not in json.dumps(desk.json("keys", "list"))

    desk.run("keys", "revoke", made["id"])

    assert keys.by_secret(desk.axme.runtime, made["key"]) is None
    assert "revoked" in desk.run("keys", "list").stdout
    desk.run("keys", "revoke", "nothing", code=3)


def test_the_pages_do_not_start_without_a_secret(desk):
    """And say how to make one."""
    refused = desk.run("web", code=1).stderr

    assert "axme_secret_key" in refused and "token_urlsafe" in refused


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "intents.example"])
def test_the_pages_do_not_start_where_others_reach_them_and_nobody_can_sign_in(desk, host):
    """Fail closed."""
    other = desk.another(axme_secret_key="a secret of more than thirty-two characters")
    assert "nobody could sign in" in other.run("web", "--host", host, code=2).stderr
    assert "this machine only" in other.run("web", "--dev", "--host", host, code=2).stderr
