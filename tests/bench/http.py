"""The HTTP interface: intents submitted a second, and how soon many followers of one intent hear of its events."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from functools import partial

from axme_celery import agents, keys
from axme_celery.ids import uuid7
from tests.bench import ours
from tests.bench.harness import Case, Figures
from tests.bench.processes import axme_web, settle
from tests.bench.timing import p50_p99_ms, percentile, wait_until
from tests.bench.turn import Turn
from tests.servers.process import free_port

#: Clients that send at once, each on a connection of its own that it keeps.
CLIENTS = 8
FOLLOWERS = 500
#: One key may hold so many streams.
STREAMS_OF_ONE = 16
ADDRESS = "agent://bench/nobody"


def served(turn: Turn, *, live_clients: int = 56) -> tuple[ours.Any, int]:
    """The app, and the port of its web server: two processes on PostgreSQL."""
    os.environ["BENCH_LIVE_CLIENTS"] = str(live_clients)
    app = ours.prepare(turn, "PostgreSQL", beat=False)
    port = free_port()
    turn.start(lambda: axme_web(ours.APP, turn.log, port))
    wait_until(lambda: answers(port), seconds=60, what="a web server")
    settle(1.0)
    return app, port


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def submitted(turn: Turn, *, repeatable: bool) -> Figures:
    """POST /v1/intents by eight clients at once; each answer means that the intent is on the disk."""
    app, port = served(turn)
    secret = keys.create(app.axme.runtime, name="bench", role="operator")[1]
    each = turn.pick(400, 60)
    took: list[float] = []

    def client(count: int) -> None:
        line, mine = http.client.HTTPConnection("127.0.0.1", port), []
        for number in range(count):
            body = json.dumps({"intent_type": "intent.bench.v1", "to_agent": ADDRESS, "payload": {"number": number}})
            headers = {"x-api-key": secret, "Content-Type": "application/json"}
            if repeatable:
                headers["Idempotency-Key"] = uuid7()
            began = time.perf_counter()
            line.request("POST", "/v1/intents", body, headers)
            answer = line.getresponse()
            answer.read()
            mine.append(time.perf_counter() - began)
            assert answer.status == 200, answer.status
        took.extend(mine)

    at_once(client, 20)
    took.clear()
    began = time.perf_counter()
    at_once(client, each)
    seconds = time.perf_counter() - began
    return {**p50_p99_ms(took), "submits_per_second": len(took) / seconds}


def in_python(turn: Turn) -> Figures:
    """``axme.submit`` by eight threads of one process: the same intents, without HTTP."""
    app = ours.prepare(turn, "PostgreSQL", beat=False)
    each = turn.pick(400, 60)
    took: list[float] = []

    def client(count: int) -> None:
        mine = []
        for number in range(count):
            began = time.perf_counter()
            app.axme.submit(ADDRESS, payload={"number": number})
            mine.append(time.perf_counter() - began)
        took.extend(mine)

    at_once(client, 20)
    took.clear()
    began = time.perf_counter()
    at_once(client, each)
    return {**p50_p99_ms(took), "submits_per_second": len(took) / (time.perf_counter() - began)}


def at_once(client: ours.Any, count: int) -> None:
    threads = [threading.Thread(target=client, args=(count,)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def followed(turn: Turn, *, followers: int) -> Figures:
    """So many streams of one intent's events; the time from an event's commit until each of them has it."""
    app, port = served(turn, live_clients=600)
    rt = app.axme.runtime
    intent_id = app.axme.submit(ADDRESS, payload={}).id
    count = turn.pick(followers, followers // 5)
    secrets = [keys.create(rt, name=f"f{n}", role="viewer")[1] for n in range(-(-count // STREAMS_OF_ONE))]
    heard: list[dict[int, float]] = [{} for _ in range(count)]
    threads = [
        threading.Thread(target=follow, args=(port, intent_id, secrets[n // STREAMS_OF_ONE], heard[n]), daemon=True)
        for n in range(count)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(2 in each for each in heard), seconds=60, what="every follower to be there")
    committed: dict[int, float] = {}
    for _ in range(turn.pick(20, 5)):
        changed = agents.change_terms(
            rt, intent_id, event="intent.controls_changed", patch={"controls": {"at": time.time()}}, by="bench",
            reason=None, expected=None,
        )  # fmt: skip
        committed[changed.seq] = time.monotonic()
        time.sleep(0.5)
    last = max(committed)
    wait_until(lambda: all(last in each for each in heard), seconds=30, what="the last event at every follower")
    late = [max(0.0, each[seq] - at) for seq, at in committed.items() for each in heard]
    return {**p50_p99_ms(late), "last_ms": percentile(late, 100) * 1000, "followers": float(count)}


def follow(port: int, intent_id: str, secret: str, heard: dict[int, float]) -> None:
    """One follower: which event came when."""
    with socket.create_connection(("127.0.0.1", port), 30) as line:
        path = f"/v1/intents/{intent_id}/events/stream?wait_seconds=60"
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: {secret}\r\n\r\n".encode())
        line.settimeout(60)
        with line.makefile("rb") as lines:
            for each in lines:
                if each.startswith(b"id: "):
                    heard[int(each[4:])] = time.monotonic()


SUBMITS = (
    Case(subject="`axme.submit`, eight threads of one process", run=in_python, needs=ours.NEEDS),
    Case(
        subject="`POST /v1/intents`, eight clients, two web processes", run=partial(submitted, repeatable=False),
        against="`axme.submit`, eight threads of one process", needs=ours.NEEDS,
    ),
    Case(
        subject="the same, with an Idempotency-Key", run=partial(submitted, repeatable=True),
        against="`axme.submit`, eight threads of one process", needs=ours.NEEDS,
    ),
)  # fmt: skip
FOLLOWERS_CASES = (
    Case(subject=f"{FOLLOWERS} followers of one intent (100 in a quick run)", run=partial(followed, followers=FOLLOWERS),
         needs=ours.NEEDS),
)  # fmt: skip
