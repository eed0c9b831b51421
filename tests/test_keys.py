"""Keys: good until they run out or are revoked, and their secret is kept nowhere."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from axme_celery import BadInput, NotFound, keys
from axme_celery.who import Role


def test_a_secret_finds_its_key(stage):
    """With all it may do; any other secret finds nothing."""
    rt = stage.axme.runtime
    key, secret = keys.create(rt, name="ana", role="operator", groups=["ops", "ops"], owner="o1", agent="agent://o/w/a")

    found = keys.by_secret(rt, secret)

    assert secret.startswith("axk_") and len(secret) > 40
    assert found is not None and found.id == key.id
    actor = found.actor
    assert (actor.id, actor.role, actor.groups, actor.owner, actor.agent) == (
        "ana", Role.OPERATOR, frozenset({"ops"}), "o1", "agent://o/w/a",
    )  # fmt: skip
    for other in ("", "axk_", secret[:-1], secret.upper(), "axl_" + secret[4:], "\ud800"):
        assert keys.by_secret(rt, other) is None


def test_a_secret_is_kept_nowhere(stage):
    """Whoever reads the database gets no key."""
    _, secret = keys.create(stage.axme.runtime, name="ana")

    with stage.engine.connect() as connection:
        kept = str(connection.execute(text("select * from axme_keys")).all())

    assert "ana" in kept and secret not in kept and secret[4:] not in kept


def test_a_key_runs_out(stage):
    """At its moment."""
    _, secret = keys.create(stage.axme.runtime, name="ana", expires_seconds=3600)

    stage.pass_time("59m")
    assert keys.by_secret(stage.axme.runtime, secret) is not None
    stage.pass_time("1m")
    assert keys.by_secret(stage.axme.runtime, secret) is None


def test_a_revoked_key_is_no_good(stage):
    """At once; revoking it again changes nothing."""
    rt = stage.axme.runtime
    key, secret = keys.create(rt, name="ana")

    first = keys.revoke(rt, key.id)
    stage.pass_time("1h")

    assert keys.revoke(rt, key.id) == first
    assert keys.by_secret(rt, secret) is None and keys.good(rt, key.id) is None
    with pytest.raises(NotFound):
        keys.revoke(rt, "nothing")


def test_the_last_use_is_written_down_now_and_then(stage):
    """Not at every request: that would be a write each."""
    rt = stage.axme.runtime
    _, secret = keys.create(rt, name="ana")

    keys.by_secret(rt, secret)
    first = keys.listed(rt)[0].last_used_at
    stage.pass_time("10s")
    keys.by_secret(rt, secret)
    assert keys.listed(rt)[0].last_used_at == first
    stage.pass_time("2m")
    keys.by_secret(rt, secret)

    assert first is not None and keys.listed(rt)[0].last_used_at > first


@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"name": "a\nb"}, {"name": "a", "role": "king"}, {"name": "a", "groups": "ops"},
     {"name": "a", "groups": [""]}, {"name": "a", "owner": ""}, {"name": "a", "expires_seconds": 0}],
)  # fmt: skip
def test_a_key_that_makes_no_sense_is_refused(stage, wrong):
    """And nothing is kept."""
    with pytest.raises(BadInput):
        keys.create(stage.axme.runtime, **wrong)
    assert keys.listed(stage.axme.runtime) == []
