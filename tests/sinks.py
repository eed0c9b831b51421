"""Servers for tests to send to: they take what comes, remember it, and answer as badly as they are told to."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

TLS = pathlib.Path(__file__).parent / "tls"
#: Signed ``sink.pem``, which is for sink.example and localhost. Its key is gone: it cannot sign anything else.
CA_FILE = str(TLS / "ca.pem")


def tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "sink.pem")
    return context


@dataclass
class Server:
    """Listens on a free port of 127.0.0.1; each connection is served by ``serve(conn)`` in a thread."""

    serve: Callable[[socket.socket], None]
    tls: bool = False
    closing: threading.Event = field(default_factory=threading.Event)
    connections: int = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
            threads = [threading.Thread(target=self._accept, args=(listener, threads := []), daemon=True)]
            threads[0].start()
            try:
                yield self
            finally:
                self.closing.set()
                listener.shutdown(socket.SHUT_RDWR)
                for each in threads:
                    each.join(5)

    def _accept(self, listener: socket.socket, threads: list[threading.Thread]) -> None:
        while not self.closing.is_set():
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._one, args=(conn,), daemon=True)
            threads.append(thread)
            thread.start()

    def _one(self, conn: socket.socket) -> None:
        # A caller that goes away is what many of these tests are about.
        with conn, contextlib.suppress(OSError):
            conn.settimeout(10)
            if self.tls:
                conn = tls_context().wrap_socket(conn, server_side=True)
            self.serve(conn)


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    body: bytes


class HttpSink:
    """An HTTP server whose answer is a function of the test."""

    def __init__(self, answer: Callable[[HttpSink, socket.socket], None] | bytes, *, tls: bool = False) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.server = Server(self._serve, tls=tls)

    @contextlib.contextmanager
    def running(self) -> Iterator[HttpSink]:
        with self.server.running():
            yield self

    @property
    def port(self) -> int:
        return self.server.port

    def _serve(self, conn: socket.socket) -> None:
        with conn.makefile("rb") as lines:
            line = lines.readline().decode().strip()
            if not line:
                return  # the caller thought better of it
            headers = {}
            while header := lines.readline().decode().strip():
                name, _, value = header.partition(": ")
                headers[name.lower()] = value
            body = lines.read(int(headers.get("content-length", 0)))
        self.requests.append(Request(line, headers, body))
        if isinstance(self.answer, bytes):
            conn.sendall(self.answer)
        else:
            self.answer(self, conn)

    def drip(self, conn: socket.socket, piece: bytes) -> None:
        """The piece every 50 ms, for as long as anybody listens."""
        while not self.server.closing.wait(0.05):
            conn.sendall(piece)


def status(line: str, *headers: str, body: str = "") -> bytes:
    """An HTTP answer: ``status("200 OK", body="fine")``."""
    return "\r\n".join([f"HTTP/1.1 {line}", f"Content-Length: {len(body)}", *headers, "", body]).encode()


@dataclass
class Mail:
    sender: str
    recipients: list[str]
    data: bytes
    secured: bool
    login: str | None


class SmtpSink:
    """A mail server: takes everything, but for what it is told to refuse."""

    def __init__(self, *, refuse: tuple[str, ...] = (), starttls: bool = False, silent: bool = False) -> None:
        self.mails: list[Mail] = []
        self.refuse, self.starttls, self.silent = refuse, starttls, silent
        self.server = Server(self._serve)

    @contextlib.contextmanager
    def running(self) -> Iterator[SmtpSink]:
        with self.server.running():
            yield self

    @property
    def port(self) -> int:
        return self.server.port

    def _serve(self, conn: socket.socket) -> None:
        if self.silent:
            self.server.closing.wait(10)
            return
        lines = conn.makefile("rb")
        mail = Mail("", [], b"", False, None)
        conn.sendall(b"220 sink ready\r\n")
        while line := lines.readline().decode("utf-8").strip():
            verb = line.upper()
            if verb.startswith("EHLO"):
                options = ["sink", "SMTPUTF8", "8BITMIME", "AUTH PLAIN"]
                options += ["STARTTLS"] if self.starttls and not mail.secured else []
                conn.sendall(
                    "".join(
                        f"250{'-' if n < len(options) - 1 else ' '}{each}\r\n" for n, each in enumerate(options)
                    ).encode()
                )
            elif verb == "STARTTLS" and self.starttls:
                conn.sendall(b"220 go ahead\r\n")
                conn = tls_context().wrap_socket(conn, server_side=True)
                lines = conn.makefile("rb")
                mail.secured = True
            elif verb.startswith("AUTH PLAIN"):
                mail.login = line.split()[2]
                conn.sendall(b"235 welcome\r\n")
            elif verb.startswith("MAIL FROM:"):
                mail.sender = line[10:].split(">")[0].strip("< ")
                conn.sendall(b"250 ok\r\n")
            elif verb.startswith("RCPT TO:"):
                address = line[8:].split(">")[0].strip("< ")
                if address in self.refuse:
                    conn.sendall(b"550 no such person\r\n")
                else:
                    mail.recipients.append(address)
                    conn.sendall(b"250 ok\r\n")
            elif verb == "DATA":
                conn.sendall(b"354 go ahead\r\n")
                data = b""
                while (part := lines.readline()) not in (b".\r\n", b""):
                    data += part[1:] if part.startswith(b"..") else part
                self.mails.append(Mail(mail.sender, mail.recipients, data, mail.secured, mail.login))
                mail.recipients = []
                conn.sendall(b"250 taken\r\n")
            elif verb == "QUIT":
                conn.sendall(b"221 bye\r\n")
                return
            else:
                conn.sendall(b"250 ok\r\n" if verb == "RSET" else b"500 what?\r\n")
