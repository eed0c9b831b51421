"""What can go wrong on the wires: replies of PostgreSQL that never arrive, and messages that arrive three times."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

from tests.servers.wire import WireReader


class LossyProxy:
    """Stands between clients and PostgreSQL, and loses replies when it is told to.

    A lost reply: what the client sent reaches the server, the server does it, and the client sees its connection break.
    For URLs with ``sslmode=disable&gssencmode=disable``: it reads along.
    """

    def __init__(self, server_port: int, seed: int) -> None:
        self.server_port = server_port
        #: How many replies were lost, to a "COMMIT" (of whichever form) and to a "checkpoint".
        self.lost: Counter[str] = Counter()
        self._armed: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="chaos-proxy", daemon=True)
        self._started = threading.Event()
        self.port = 0

    def start(self) -> LossyProxy:
        self._thread.start()
        self._started.wait(10)
        return self

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def lose(self, what: str, count: int) -> None:
        """Lose the replies to the next ``count`` of these: "COMMIT" or "checkpoint". Anew: earlier wishes are dropped."""
        self._armed[what] = count

    def _run(self) -> None:
        async def serve() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            self._started.set()

        # Connections are cut without ceremony on purpose.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._loop.create_task(serve())
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:
            writer.transport.abort()
            return
        wire = _Wire(self, writer, server_writer)
        # However either direction ends, both do: a client whose server is gone must not wait for it.
        both = [asyncio.ensure_future(wire.up(reader)), asyncio.ensure_future(wire.down(server_reader))]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not wire.is_losing:
            wire.cut()
        await asyncio.wait(both)
        wire.cut()
        for one in both:
            one.exception()

    def wants_lost(self, what: str | None) -> bool:
        if what is None or self._armed[what] <= 0:
            return False
        self._armed[what] -= 1
        self.lost[what] += 1
        return True

    def moment(self) -> float:
        """Seconds until the client sees the break: sometimes before the server is done."""
        return self._random.choice((0.0, 0.0, self._random.uniform(0.0, 0.02)))


class _Wire:
    """One client's connection, both directions."""

    def __init__(self, proxy: LossyProxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._reader = WireReader()
        #: A reply is being lost: nothing reaches the client any more.
        self.is_losing = False

    async def up(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            lost = self._proxy.wants_lost(self._reader.commits(data))
            self.is_losing = self.is_losing or lost
            self._server.write(data)
            await self._server.drain()
            if lost:
                await asyncio.sleep(self._proxy.moment())
                self._client.transport.abort()
                # The server is left time to do what it was sent before it sees its client gone.
                await asyncio.sleep(0.5)
                return

    async def down(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            if not self.is_losing:
                self._client.write(data)
                await self._client.drain()

    def cut(self) -> None:
        self._client.transport.abort()
        self._server.transport.abort()


class Copier:
    """Delivers every message of a Celery queue on Redis three times, while it is switched on.

    Redis itself tells it of each message (MONITOR), so that none is missed: a queue that workers empty at once cannot
    be copied by looking at it.
    """

    def __init__(self, redis_port: int, queue: str = "celery") -> None:
        self._port, self._queue = redis_port, queue.encode()
        #: Messages that were copied.
        self.copied = 0
        self._on = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="chaos-copier", daemon=True)
        self._thread.start()

    def switch(self, on: bool) -> None:
        (self._on.set if on else self._on.clear)()

    def close(self) -> None:
        self._closed = True
        self._on.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._closed:
            self._on.wait()
            # Redis is killed and paused at the same time: then there is nothing to copy.
            with contextlib.suppress(OSError):
                self._watch()
            time.sleep(0.05)

    def _watch(self) -> None:
        with self._wire() as watching, self._wire() as pushing:
            watching.sendall(b"MONITOR\r\n")
            for line in self._lines(watching):
                message = pushed(line, self._queue)
                if message is not None:
                    # At the end that workers take from, and with a command that is not the one watched for.
                    pushing.sendall(_command(b"RPUSH", self._queue, message, message))
                    pushing.recv(64)
                    self.copied += 1

    def _wire(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), 1)

    def _lines(self, wire: socket.socket) -> Iterator[bytes]:
        wire.settimeout(0.2)
        rest = b""
        while self._on.is_set() and not self._closed:
            try:
                data = wire.recv(65536)
            except TimeoutError:
                continue
            if not data:
                return
            *lines, rest = (rest + data).split(b"\r\n")
            yield from lines


def pushed(line: bytes, queue: bytes) -> bytes | None:
    """The message that this line of MONITOR says was put into the queue."""
    mark = b'"LPUSH" "' + queue + b'" '
    _, found, quoted = line.partition(mark)
    # Redis quotes as Python does.
    return ast.literal_eval("b" + quoted.decode("ascii")) if found else None


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
