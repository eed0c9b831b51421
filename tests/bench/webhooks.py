"""Webhooks: from the commit of an event to its arrival at a receiver, over real sockets."""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any

from tests.bench.harness import Case, Figures
from tests.bench.timing import wait_until
from tests.bench.turn import Turn

NEEDS = ("axme_celery.courier",)


def _receive(pipe: Connection, hang_seconds: float) -> None:
    """A receiver in a process of its own: says where it is, then (path, webhook-id, moment) of each call when asked."""
    seen: list[tuple[str, str, float]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/hangs":
                time.sleep(hang_seconds)
                return
            seen.append((self.path, self.headers["webhook-id"], time.time()))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 256

        def handle_error(self, *_: object) -> None:
            """A caller whose time is over hangs up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        pipe.send(server.server_address[1])
        import threading

        threading.Thread(target=server.serve_forever, daemon=True).start()
        while pipe.recv() == "seen":
            pipe.send(list(seen))


def deliver(turn: Turn, *, database: str, receivers: int, hanging: bool = False) -> Figures:
    """Events told to so many subscriptions; ``hanging``: one more that never answers in time."""
    from celery import Celery

    from axme_celery import Axme, subscriptions

    ledger = turn.postgres if database == "PostgreSQL" else f"sqlite:///{turn.directory}/axme.db"
    app = Celery("bench-webhooks", broker="memory://", set_as_current=False)
    app.conf.update(
        axme_ledger_url=ledger, axme_redis_url=None, axme_webhook_allow_cidrs=["127.0.0.0/8"],
        axme_webhook_deadline_seconds=5,
    )  # fmt: skip
    if database == "PostgreSQL":
        from axme_celery.ledger.migrate import upgrade

        upgrade(ledger)
    axme = Axme(app)
    rt = axme.runtime
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_receive, args=(theirs, 30.0), daemon=True)
    process.start()
    try:
        base = f"http://127.0.0.1:{ours.recv()}"
        for number in range(receivers):
            subscriptions.subscribe(rt, f"{base}/{number}", ["bench.*"])
        if hanging:
            subscriptions.subscribe(rt, f"{base}/hangs", ["bench.*"])

        def seen() -> list[tuple[str, str, float]]:
            ours.send("seen")
            found: list[tuple[str, str, float]] = ours.recv()
            return found

        # One by one, at leisure: how long an event takes to arrive.
        sent: dict[str, float] = {}
        for number in range(turn.pick(100, 20)):
            began = time.time()
            sent[subscriptions.tell(rt, "bench.told", {"n": number}, source="bench").id] = began
            time.sleep(0.05)
        wait_until(lambda: len(seen()) >= len(sent) * receivers, seconds=60, what="all of the first events")
        late = sorted(1000 * (at - sent[event_id]) for _, event_id, at in seen() if event_id in sent)
        # All at once: how many a second. They are written first and then sent by one process.
        count, before = turn.pick(2000, 300), len(seen())
        wake, rt.relay.deliver = rt.relay.deliver, lambda: None  # type: ignore[method-assign]
        for number in range(count):
            subscriptions.tell(rt, "bench.told", {"n": number, "rows": "x" * 500}, source="bench")
        rt.relay.deliver = wake  # type: ignore[method-assign]
        began = time.monotonic()

        def all_arrived() -> bool:
            rt.relay.deliver()
            return len(seen()) - before >= count * receivers

        wait_until(all_arrived, seconds=180, what="all events")
        spent = time.monotonic() - began
        ours.send("end")
    finally:
        process.kill()
    figures: dict[str, Any] = {
        "per_second": count * receivers / spent,
        "p50_ms": statistics.median(late),
        "p99_ms": late[int(len(late) * 0.99)],
    }
    return json.loads(json.dumps(figures))  # type: ignore[no-any-return]


DELIVERIES = tuple(
    Case(
        subject=f"axme, {database}, {title}", needs=NEEDS,
        run=partial(deliver, database=database, receivers=receivers, hanging=hanging),
    )
    for database in ("PostgreSQL", "SQLite")
    for title, receivers, hanging in (
        ("one receiver", 1, False), ("four receivers", 4, False), ("four receivers, and a fifth that hangs", 4, True),
    )
)  # fmt: skip
