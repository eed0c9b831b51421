"""Measure. ``python -m tests.live [click|crowd|cuts ...]``: all of them, unless some are named."""

from __future__ import annotations

import random
import signal
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from .crowd import Crowd
from .house import House, open_house

CLICKS = 25
CLIENTS = 1000
APPROVALS = 200
CUTS = 1000


def until(condition: Any, what: str, seconds: float = 60.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"no {what} within {seconds:g} s"
        time.sleep(0.01)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def click(house: House, folder: Path) -> str:
    """From the click on Approve, in a browser, to the next line of the task."""
    from playwright.sync_api import sync_playwright

    from tests.browser import chromium

    took, shown = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.program(), args=chromium.FLAGS)
        page = browser.new_context(base_url=house.address).new_page()
        page.goto("/sign-in")
        page.get_by_label("Key").fill(house.key("ana"))
        page.get_by_role("button", name="Sign in").click()
        page.locator(".who").wait_for()
        for number in range(CLICKS + 3):
            path = folder / f"went-on-{number}"
            intent = house.desk.reach(house.desk.submit("doors.timed", str(path)), "WAITING")
            page.goto(f"/waits/{intent.waits()[0].id}")
            page.evaluate(
                "document.querySelector('button.yes').addEventListener('click',"
                " () => sessionStorage.setItem('at', performance.timeOrigin + performance.now()))"
            )
            page.get_by_role("button", name="Approve").click()
            page.locator("#outcome").wait_for()
            until(lambda path=path: path.exists() and path.read_text(), "next line")
            clicked = float(page.evaluate("sessionStorage.getItem('at')")) / 1000
            took.append((float(path.read_text()) - clicked) * 1000)
            shown.append((page.evaluate("performance.timeOrigin + performance.now()") / 1000 - clicked) * 1000)
        browser.close()
    took = took[3:]  # the first ones open connections
    return (
        f"click on Approve to the next line of the task: median {statistics.median(took):.0f} ms, "
        f"p95 {quantile(took, 0.95):.0f} ms, {len(took)} clicks"
    )


def approve(house: House, wait_id: str, key: str) -> float:
    """One approval over HTTP; how long it took, in ms."""
    request = urllib.request.Request(
        f"{house.address}/waits/{wait_id}", data=b"outcome=approved", headers={"x-api-key": key, "Accept": "text/html"}
    )
    began = time.perf_counter()
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        status = opener.open(request, timeout=60).status
    except urllib.error.HTTPError as answer:
        status = answer.code
    assert status == 303, status
    return (time.perf_counter() - began) * 1000


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def crowd(house: House, folder: Path) -> str:
    """Approvals while a thousand pages look on: half of them at the very intents that are approved."""
    key = house.key("ana")
    intents = [house.desk.submit("doors.ask", {"to": "ana"}) for _ in range(APPROVALS)]
    for intent in intents:
        house.desk.reach(intent, "WAITING")
    alone = [approve(house, intent.waits()[0].id, key) for intent in intents[:40]]
    watched = intents[40:]
    paths = [f"/live/intents/{watched[n % len(watched)].id}" for n in range(CLIENTS // 2)]
    paths += [f"/live/intents/{watched[0].id}"] * (CLIENTS // 4) + ["/live/inbox"] * (
        CLIENTS - len(paths) - CLIENTS // 4
    )
    # One person's streams have a cap of their own: these are many people.
    looking = Crowd(house.port, [house.key(f"person-{n}", "viewer") for n in range(CLIENTS // 8)], paths)
    looking.start()
    until(lambda: looking.held() == CLIENTS, f"{CLIENTS} streams (there are {looking.held()})")
    took = [approve(house, intent.waits()[0].id, key) for intent in watched]
    until(lambda: all(c.ended for c in looking.clients if "/intents/" in c.path), "end of every watched intent", 60)
    for client in looking.clients:
        if "/intents/" in client.path:
            assert client.heard == list(range(1, len(client.heard) + 1)), client
    looking.stop()
    return (
        f"{CLIENTS} live streams on two web workers: approvals p50 {statistics.median(took):.0f} ms, "
        f"p95 {quantile(took, 0.95):.0f} ms ({len(took)}); without streams p50 {statistics.median(alone):.0f} ms, "
        f"p95 {quantile(alone, 0.95):.0f} ms; every watched event arrived once, in order"
    )


def cuts(house: House, folder: Path) -> str:
    """Clients that are cut off at any moment: every event once, in order."""
    key = house.key("ana")
    intent = house.desk.reach(house.desk.submit("doors.votes", 3, 20), "WAITING")
    looking = Crowd(house.port, [key], [f"/live/intents/{intent.id}"] * 12, cut=random.Random(11))
    looking.start()
    for number in range(60):
        until(lambda number=number: looking.cuts >= CUTS * number // 70, "cuts", 240)
        house.desk.axme.answer(intent.id, "approved", by=f"person-{number}")
        if number % 20 == 19 and number < 59:
            until(lambda number=number: len(intent.waits()) == number // 20 + 2, "next wait")
    house.desk.reach(intent, "COMPLETED")
    until(lambda: all(client.ended for client in looking.clients), "end of every stream")
    looking.stop()
    last = intent.refresh().seq
    assert all(client.heard == list(range(1, last + 1)) for client in looking.clients)
    assert looking.cuts >= CUTS * 59 // 70
    return f"{looking.cuts} random cuts of {len(looking.clients)} streams: each had all {last} events once, in order"


def main(names: list[str]) -> None:
    measures = {"click": click, "crowd": crowd, "cuts": cuts}
    for name in names or list(measures):
        with tempfile.TemporaryDirectory(prefix="axme-live-") as folder:
            clients = CLIENTS * 6 // 10 if name == "crowd" else 56
            with open_house(Path(folder), live_clients=clients) as house:
                print(measures[name](house, Path(folder)), flush=True)


if __name__ == "__main__":
    # Ended from outside, it leaves no process behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main(sys.argv[1:])
