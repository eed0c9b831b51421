"""The demo's pages: links that sign in once, and a story that goes on without them."""

from __future__ import annotations

import io
from urllib.parse import parse_qs, urlsplit

from axme_celery import keys
from axme_celery.demo import pages
from axme_celery.demo.narrator import Narrator
from axme_celery.demo.pages import Pages, serve
from axme_celery.demo.processes import Crew
from axme_celery.who import Role


def test_each_link_signs_an_analyst_in_once_and_leads_on(stage):
    """Whoever sits at this machine may decide, and look at everything."""
    shown = Pages(stage.axme, 8710)

    first, second = urlsplit(shown.link("/intents/1")), urlsplit(shown.link("/waits/2"))

    assert (first.netloc, first.path) == ("127.0.0.1:8710", "/sign-in")
    asked = parse_qs(first.query)
    assert asked["next"] == ["/intents/1"] and parse_qs(second.query)["link"] != asked["link"]
    key = keys.redeem_link(stage.axme.runtime, asked["link"][0])
    assert key is not None and key.role is Role.ADMIN and "analysts" in key.groups
    assert keys.redeem_link(stage.axme.runtime, asked["link"][0]) is None


def test_without_what_pages_need_the_story_says_so_and_goes_on(stage, tmp_path, monkeypatch):
    """The demo's own extra brings it; a bare installation does not."""
    monkeypatch.setattr(pages, "NEEDED", ("gunicorn", "no_such_module_at_all"))
    out = io.StringIO()

    with Crew(tmp_path) as crew:
        assert serve(stage.axme, crew, Narrator(out), {}) is None
        assert crew.names == []

    assert "no_such_module_at_all" in out.getvalue() and "axme-celery[web]" in out.getvalue()
