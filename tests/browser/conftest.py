"""Fixtures of the browser's tests: a project on a stage, its pages on a port, and people with browsers of their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from axme_celery import keys
from axme_celery.testing import Stage
from axme_celery.web import create_app, live

from . import chromium
from .project import make_app

SECRET = "a secret of more than thirty-two characters"
#: Where pictures of the pages go, when somebody wants to look at them.
PICTURES = os.environ.get("AXME_PICTURES")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    from playwright import sync_api

    try:
        program = chromium.program()
    except chromium.NoBrowser as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=chromium.FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """The project's stage, on a ledger that threads can share."""
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.05)
    with Stage(make_app(), ledger_url=f"sqlite:///{tmp_path}/ledger.db") as stage:
        yield stage


@pytest.fixture
def address(stage: Stage) -> Iterator[str]:
    """Where the pages are."""
    server = make_server("127.0.0.1", 0, create_app(stage.axme, secret_key=SECRET), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    live.close_all()
    server.shutdown()
    thread.join(10)


@pytest.fixture
def person(browser: Any, stage: Stage, address: str) -> Iterator[Callable[..., Any]]:
    """``person("ana", role=..., groups=[...], **browser_options)``: a page of theirs, signed in; errors in it fail."""
    contexts, errors = [], []

    def enter(name: str, *, role: str = "approver", groups: tuple[str, ...] = (), **options: Any) -> Any:
        secret = keys.create(stage.axme.runtime, name=name, role=role, groups=groups)[1]
        options = {
            "viewport": {"width": 1280, "height": 900},
            "locale": "en-GB",
            "timezone_id": "Europe/Berlin",
            **options,
        }
        context = browser.new_context(base_url=address, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: _note(said, errors))
        page.goto("/sign-in")
        page.get_by_label("Key").fill(secret)
        page.get_by_role("button", name="Sign in").click()
        page.locator(".who").wait_for()
        return page

    enter.errors = errors  # type: ignore[attr-defined]
    yield enter
    for context in contexts:
        context.close()
    assert not errors, errors


def _note(said: Any, errors: list[str]) -> None:
    # A refusal is an error to the console, and what the test looks at. Anything else is ours.
    refusals = ("the server responded with a status of 4", "the server responded with a status of 503")
    if said.type == "error" and not any(refusal in said.text for refusal in refusals):
        errors.append(said.text)


def picture(page: Any, name: str) -> None:
    """Keep a picture of the page, where somebody wants them."""
    if PICTURES:
        folder = Path(PICTURES)
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png", full_page=True)


def violations(page: Any) -> list[str]:
    """What axe-core finds on the page against WCAG 2.2 A and AA."""
    page.evaluate(chromium.AXE.read_text("utf-8"))
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    found = page.evaluate("tags => axe.run(document, {runOnly: {type: 'tag', values: tags}})", tags)
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
        for each in found["violations"]
        for node in each["nodes"]
    ]
