"""A receiver of webhooks that behaves badly: fails, hangs, asks for time, says it is gone; and remembers what it took.

It speaks plain HTTP on 127.0.0.1, one thread for each call. What it answers is drawn by lot; what it was sent is kept
whatever it answered, so that ids, bodies and signatures can be held to their promises.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError


@dataclass(frozen=True)
class Manners:
    """How often it does what, as shares of all calls."""

    fails: float = 0.30
    hangs: float = 0.10
    busy: float = 0.01
    gone: float = 0.001
    #: How long it hangs, in seconds: longer than a call may take.
    hang_seconds: float = 1.0


@dataclass
class Receiver:
    """Start it with ``running()``."""

    manners: Manners
    seed: int
    secrets: dict[str, str] = field(default_factory=dict)
    #: path -> webhook-id -> the different bodies it came with.
    bodies: dict[str, dict[str, set[bytes]]] = field(default_factory=dict)
    #: path -> the webhook-ids it said 2xx to.
    received: dict[str, set[str]] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    unsigned: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Any:
        """Serve; yields the base URL."""
        lot, lock, closing, receiver = random.Random(self.seed), threading.Lock(), threading.Event(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                with lock:
                    what = receiver.take(self.path, dict(self.headers.items()), body, lot.random())
                if what == "hangs":
                    closing.wait(receiver.manners.hang_seconds)
                    return
                status = {"fails": 500, "busy": 429, "gone": 410, "takes": 204}[what]
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    if what == "busy":
                        self.send_header("Retry-After", "1")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 256

            def handle_error(self, *_: object) -> None:
                """Callers that are killed in the middle are the point."""

        with Server(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                closing.set()
                server.shutdown()
                thread.join(5)

    def take(self, path: str, headers: dict[str, str], body: bytes, drawn: float) -> str:
        """Remember a call and say how it is answered."""
        headers = {name.lower(): value for name, value in headers.items()}
        webhook_id = headers.get("webhook-id", "")
        self.bodies.setdefault(path, {}).setdefault(webhook_id, set()).add(body)
        try:
            Webhook(self.secrets[path]).verify(body, headers)
        except (WebhookVerificationError, KeyError) as wrong:
            self.unsigned.append(f"{path} {webhook_id}: {wrong}")
        m, what = self.manners, "takes"
        for name, share in (("fails", m.fails), ("hangs", m.hangs), ("busy", m.busy), ("gone", m.gone)):
            if drawn < share:
                what = name
                break
            drawn -= share
        if what == "takes":
            self.received.setdefault(path, set()).add(webhook_id)
        self.answers[what] += 1
        return what
