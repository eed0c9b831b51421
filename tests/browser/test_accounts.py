"""Signing in with an account, in a real browser, for which the provider is another site."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from axme_celery.testing import Stage
from tests.web.provider import CLIENT, Provider
from tests.web.provider import SECRET as CLIENTS_SECRET

from .conftest import picture, violations


@pytest.fixture(autouse=True)
def provider(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """The project's provider, set before its pages are made."""
    provider = Provider()
    settings = stage.axme.read_settings(
        oidc_issuer=provider.issuer, oidc_client_id=CLIENT, oidc_client_secret=CLIENTS_SECRET
    )
    monkeypatch.setattr(stage.axme, "_settings", settings)
    yield provider
    provider.close()


def test_a_person_signs_in_with_their_account_and_answers(
    browser: Any, stage: Stage, provider: Provider, address: str
) -> None:
    """From the link in a notice, by the button, to the provider and back to the question; then out again."""
    provider.claims["groups"] = ["finance"]
    intent = stage.submit(stage.axme.app.tasks["shop.refund"].s("A-1", "12.00 EUR"), requester="kim")
    # The cookie has to survive the way over the other site: "localhost" and "127.0.0.1" are two.
    pages = address.replace("127.0.0.1", "localhost")
    wait = f"{pages}/waits/{intent.waits()[0].id}"
    errors: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    try:
        page = context.new_page()
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(wait)
        button = page.get_by_role("link", name="Sign in with your account")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.reload()  # else colours are still on their way
            for width in (1280, 320):
                page.set_viewport_size({"width": width, "height": 900})
                assert violations(page) == []
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert button.bounding_box()["height"] >= 44
                picture(page, f"sign-in-account-{width}-{scheme}")

        button.click()
        page.locator(".who").wait_for()
        assert page.url == wait and "ana@example.com" in page.locator(".who").inner_text()
        page.get_by_role("button", name="Approve").click()
        page.wait_for_url(f"{wait}**")
        page.get_by_text("ana@example.com").first.wait_for()
        stage.run()
        assert intent.waits()[0].answered_by == "ana@example.com"

        page.get_by_role("button", name="Sign out").click()
        button.wait_for()
        assert page.goto(wait).request.redirected_from is not None and errors == []
    finally:
        context.close()
