"""The whole story: a worker, a beat, the pages as they are served, and a person at a browser."""

from __future__ import annotations

import subprocess

import pytest

from axme_celery import keys
from tests.doors.command_line import PATIENCE_SECONDS, SCRIPT, served_fixture, until  # noqa: F401
from tests.servers import free_port, janitor


@pytest.fixture
def pages(served):
    """Where the pages of the served project are."""
    port = free_port()
    command = [*SCRIPT, "-A", "tests.doors.project", "web", "--dev", "--port", str(port), "--workers", "1"]
    log = served.folder / "web.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=served.environment
        )  # fmt: skip
    janitor.promise_server(process.pid, 15, served.folder)
    until(lambda: "Booting worker" in log.read_text() or process.poll() is not None, "web server")
    assert process.poll() is None, log.read_text()
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    # With a stream still open: it must not be waited for.
    process.wait(PATIENCE_SECONDS)
    janitor.release(process.pid)


def test_a_person_watches_the_work_decides_and_sees_it_end(served, pages, browser):
    """Submitted here, run by a worker, watched live, signed off in the browser, completed."""
    _, secret = keys.create_link(served.axme.runtime, name="ana", role="operator", groups=["analysts"])
    intent = served.reach(served.submit("doors.report", 3, "Publish the numbers?"), "WAITING")
    context = browser.new_context(base_url=pages)
    watching = context.new_page()
    watching.goto(f"/sign-in?link={secret}&next=/intents/{intent.id}")
    watching.get_by_role("button", name="Sign in with this link").click()
    watching.get_by_text("Waiting for human").first.wait_for()
    deciding = context.new_page()
    deciding.goto("/inbox")
    deciding.get_by_role("link", name="Publish the numbers?").first.click()
    deciding.get_by_label("Comment").fill("They add up.")

    deciding.get_by_role("button", name="Approve").click()

    assert deciding.locator("#outcome").inner_text() == "Approved by ana"
    watching.locator("header .badge", has_text="Completed").wait_for(timeout=PATIENCE_SECONDS * 1000)
    assert "They add up." in watching.locator("main").inner_text()
    assert served.reach(intent, "COMPLETED").result == {"pages": 3, "outcome": "approved", "by": "ana"}
    context.close()
