"""One POST to an address somebody gave us: to a public host only, and over within a deadline.

Whoever submits an intent may name a URL, so this is a way to make our machine call for others (SSRF). What is judged
is never the text of the URL, of which there are too many spellings, but every address it resolves to; and the call
goes to the very address that was judged, so that a second look-up cannot give another.

The standard library's HTTP is used on a socket connected here: no pool, no proxy from the environment, no redirect,
and every wait, from the name look-up to the last byte, is cut to what is left of the deadline.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, urlsplit

from .errors import BadInput

_BODY_BYTES = 4096  # of an answer, at most: it is read for politeness and thrown away
_MOST_ADDRESSES = 4  # of a name, that are tried

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    #: The Retry-After header, as it came.
    retry_after: str | None = None


def post(
    url: str, body: bytes, headers: Mapping[str, str], *, deadline_seconds: float, allow_cidrs: Iterable[str]
) -> Reply:
    """Send a body and return the answer to it. Redirects are not followed: a 3xx is returned.

    url:              https. Plain http only to what ``allow_cidrs`` covers.
    deadline_seconds: for everything together, from the name look-up to the answer.
    allow_cidrs:      networks that may be called though they are not public ("10.1.0.0/16").

    Raises BadInput for a URL or address that may not be called: trying again is of no use.
    Raises OSError (TimeoutError, ConnectionError) where there was no answer: trying again may help.
    No message repeats the URL's path, which often is a secret.
    """
    until = time.monotonic() + deadline_seconds
    target = _read(url)
    allowed = _networks(tuple(allow_cidrs))
    addresses = _resolve(target, until)
    for family, sockaddr in addresses:
        _judge(target, family, sockaddr[0], allowed)
    try:
        with _connect(target, addresses, until) as sock:
            return _exchange(target, sock, body, headers, until)
    except http.client.HTTPException as wrong:
        raise ConnectionError(f"{target.host} did not answer in HTTP ({type(wrong).__name__})") from wrong
    except TimeoutError as late:
        raise TimeoutError(f"{target.host} did not answer within {deadline_seconds:g} s") from late
    except OSError as wrong:
        raise ConnectionError(f"{target.host} could not be called: {wrong}") from wrong


# -- where to ----------------------------------------------------------------


@dataclass(frozen=True)
class _Target:
    secure: bool
    host: str
    port: int
    path: str

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def _read(url: str) -> _Target:
    if not isinstance(url, str) or len(url) > 2048 or re.search(r"[\x00-\x20\x7f\\]", url):
        raise BadInput("URL to call is no text, too long (2048 characters), or has blanks, controls or a backslash")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("ascii" if ":" in (parts.hostname or "") else "idna").decode()
    except ValueError as wrong:
        raise BadInput(f"URL to call cannot be read: {wrong}") from None
    if parts.scheme not in ("http", "https"):
        raise BadInput(f"URL to call has the scheme {parts.scheme[:20]!r}; use https")
    if "@" in parts.netloc:
        raise BadInput("URL to call has a user name or password in it; pass a header instead")
    if not host or port == 0:
        raise BadInput("URL to call has no host, or port 0; write it like https://example.com/hook")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=~?')}" if parts.query else ""
    secure = parts.scheme == "https"
    return _Target(secure, host, port or (443 if secure else 80), path + query)


def _resolve(target: _Target, until: float) -> list[tuple[int, Any]]:
    """Every (family, socket address) of the host."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM))
        except Exception as wrong:
            answers.put(wrong)

    # The resolver takes no timeout, so it is left behind in a thread of its own when it is late.
    threading.Thread(target=look_up, name="axme-look-up", daemon=True).start()
    try:
        found = answers.get(timeout=_left(until))
    except queue.Empty:
        raise TimeoutError(f"the name {target.host} was not resolved in time") from None
    if isinstance(found, Exception):
        raise ConnectionError(f"the name {target.host} could not be resolved: {found}") from found
    return list(dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found))


# -- whether it may be called --------------------------------------------------

_NEVER = tuple(
    ipaddress.ip_network(each)
    for each in (
        "192.0.0.0/24",  # protocol assignments; a cloud's metadata at 192.0.0.192
        "192.88.99.0/24",  # relays of 6to4, retired
        "168.63.129.16/32",  # a cloud's host agent, at a public address
        "2001::/23",  # protocol assignments, with Teredo, which wraps an IPv4 address
        "2002::/16",  # 6to4, which wraps an IPv4 address
        "3fff::/20",  # documentation
    )
)
_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def _judge(target: _Target, family: int, text: str, allowed: tuple[_Network, ...]) -> None:
    address = _unwrapped(text) if family in (socket.AF_INET, socket.AF_INET6) else None
    if address is not None and any(address in network for network in allowed):
        return
    if address is None or not _is_public(address):
        raise BadInput(
            f"{target.host} is not at a public address, so it is not called; "
            f"if it is meant to be, add its network to axme_webhook_allow_cidrs"
        )
    if not target.secure:
        raise BadInput(
            f"{target.host} would be called by plain http, where anybody on the way can read along; "
            f"use https, or add its network to axme_webhook_allow_cidrs"
        )


def _unwrapped(text: str) -> _Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address in _NAT64:  # where a network has no IPv4, every public host looks like this
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: _Address) -> bool:
    # is_global alone says yes to multicast and to several wrapped private addresses.
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_unspecified)
        and not any(address in network for network in _NEVER)
        and (address.version == 4 or address in _UNICAST)
    )


@functools.lru_cache(maxsize=64)
def _networks(cidrs: tuple[str, ...]) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(each) for each in cidrs)


# -- the call ----------------------------------------------------------------


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("deadline passed")
    return left


def _connect(target: _Target, addresses: list[tuple[int, Any]], until: float) -> socket.socket:
    failed: OSError = OSError("it has no address")
    tried = addresses[:_MOST_ADDRESSES]
    for n, (family, sockaddr) in enumerate(tried):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            # An address that swallows packets must leave time for the next one.
            sock.settimeout(_left(until) / (len(tried) - n))
            sock.connect(sockaddr)
            if not target.secure:
                return sock
            sock.settimeout(_left(until))
            return _tls().wrap_socket(sock, server_hostname=target.host.rstrip("."))
        except OSError as wrong:
            sock.close()
            failed = wrong
    _left(until)
    raise failed


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads all certificates, which takes longer than many a call


def check_url(url: str, allow_cidrs: Iterable[str] | None = None) -> None:
    """Raises BadInput for what cannot be the URL of a call, wherever its host may be.

    allow_cidrs: as for ``post``; an address that stands in the URL itself is then judged as well. Names are not looked
    up: what they lead to may change until the call.
    """
    target = _read(url)
    if allow_cidrs is None:
        return
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(target.host).version == 6 else socket.AF_INET
    except ValueError:
        return
    _judge(target, family, target.host, _networks(tuple(allow_cidrs)))


def _exchange(target: _Target, sock: socket.socket, body: bytes, headers: Mapping[str, str], until: float) -> Reply:
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.auto_open = 0  # it must never connect by name on its own
    connection.sock = cast(socket.socket, _Wire(sock, until))
    own = {"Host": target.host_header, "Connection": "close", "User-Agent": "axme-celery"}
    try:
        connection.request("POST", target.path, body, own | {k: v for k, v in headers.items() if k.title() not in own})
    except ValueError as wrong:
        raise BadInput(f"a header for {target.host} cannot be sent: {wrong}") from None
    answer = connection.getresponse()
    # The status is the answer. A body that never ends, or is cut off, does not take it back.
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        answer.read(_BODY_BYTES)
    return Reply(answer.status, answer.getheader("Retry-After"))


class _Wire:
    """A socket under a deadline, as far as ``http.client`` needs one.

    A socket's own timeout is for one read: a byte every few seconds would hold the caller for hours.
    """

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until = sock, until

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._sock.settimeout(_left(self._until))
            rest = rest[self._sock.send(rest[:65536]) :]

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._until))

    def close(self) -> None:
        """The socket belongs to ``post``."""


class _Reader(io.RawIOBase):
    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until = sock, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._until))
        return self._sock.recv_into(buffer)
