"""A call to an address somebody else chose: where it may go, and how long it may take."""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time

import pytest

from axme_celery import outbound
from axme_celery.errors import BadInput
from axme_celery.outbound import post

from .sinks import CA_FILE, HttpSink, Server, status

LOOPBACK = ("127.0.0.0/8",)


def send(url: str, body: bytes = b"{}", *, headers=None, deadline_seconds=5.0, allow_cidrs=LOOPBACK) -> int:
    return post(url, body, headers or {}, deadline_seconds=deadline_seconds, allow_cidrs=allow_cidrs).status


@pytest.fixture
def names(monkeypatch):
    """Names this test gives addresses: {"sink.example": [("127.0.0.1", port)]}; others are looked up as ever."""
    book: dict[str, list[tuple[str, int | None]]] = {}
    real = socket.getaddrinfo

    def look_up(host, port, **options):
        if host not in book:
            return real(host, port, **options)
        return [each for address, own in book[host] for each in real(address, own or port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return book


@pytest.fixture
def no_connection(monkeypatch):
    """Any connection fails the test."""

    def connect(self, address):
        pytest.fail(f"connected to {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def trusted(monkeypatch):
    """The authority of the sinks' certificate is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", CA_FILE)
    outbound._tls.cache_clear()
    yield
    outbound._tls.cache_clear()


# -- what arrives ------------------------------------------------------------


def test_the_body_arrives_byte_for_byte_with_our_headers():
    """What was signed is what is sent."""
    body = b'{"a": "\xc3\xa9"}\n'
    with HttpSink(status("204 No Content")).running() as sink:
        found = send(f"http://127.0.0.1:{sink.port}/hook/a%20b?x=1&y=%2F", body, headers={"Webhook-Id": "msg_1"})

    assert found == 204
    (request,) = sink.requests
    assert request.line == "POST /hook/a%20b?x=1&y=%2F HTTP/1.1"
    assert request.body == body
    assert request.headers["webhook-id"] == "msg_1"
    assert request.headers["host"] == f"127.0.0.1:{sink.port}"
    assert request.headers["content-length"] == str(len(body))


def test_a_name_is_called_at_its_address_under_its_own_name_and_certificate(names, trusted):
    """Host header, SNI and certificate are the name's, though the connection went to an address."""
    with HttpSink(status("200 OK"), tls=True).running() as sink:
        names["sink.example"] = [("127.0.0.1", sink.port)]
        assert send("https://sink.example/hook") == 200

    assert sink.requests[0].headers["host"] == "sink.example"


def test_a_certificate_of_another_name_is_refused(names, trusted):
    """The address was right; whoever answered there is not who we meant."""
    with HttpSink(status("200 OK"), tls=True).running() as sink:
        names["other.example"] = [("127.0.0.1", sink.port)]
        with pytest.raises(ConnectionError, match=r"other\.example could not be called: .*CERTIFICATE_VERIFY_FAILED"):
            send("https://other.example/hook")
    assert sink.requests == []


def test_a_certificate_nobody_vouches_for_is_refused(names):
    """The default authorities do not know the sink's."""
    with HttpSink(status("200 OK"), tls=True).running() as sink:
        names["sink.example"] = [("127.0.0.1", sink.port)]
        with pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            send("https://sink.example/hook")


@pytest.mark.parametrize("line", ["200 OK", "301 Moved", "307 Temporary", "410 Gone", "429 Slow", "500 Oops"])
def test_the_status_is_returned_whatever_it_is_and_no_redirect_is_followed(line):
    """The caller decides what it means."""
    with HttpSink(status("200 OK")).running() as elsewhere:
        answer = status(line, f"Location: http://127.0.0.1:{elsewhere.port}/metadata", body="x" * 9000)
        with HttpSink(answer).running() as sink:
            assert send(f"http://127.0.0.1:{sink.port}/") == int(line[:3])
    assert elsewhere.requests == []
    assert sink.server.connections == 1


def test_a_proxy_in_the_environment_is_not_used(monkeypatch):
    """It would make the call in our place, to an address it looked up itself."""
    with HttpSink(status("502 Proxy")).running() as proxy, HttpSink(status("200 OK")).running() as sink:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert send(f"http://127.0.0.1:{sink.port}/") == 200
    assert proxy.requests == []


def test_an_address_that_refuses_leaves_the_next_one_of_the_name(names):
    """A name with a dead address still works."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead_port = closed.getsockname()[1]
    with HttpSink(status("200 OK")).running() as sink:
        names["sink.example"] = [("127.0.0.1", dead_port), ("127.0.0.1", sink.port)]
        assert send("http://sink.example/") == 200


def test_headers_cannot_smuggle_a_second_request_or_another_host():
    """A line break is refused; our own headers stand."""
    with HttpSink(status("200 OK")).running() as sink:
        for bad in ({"X": "a\r\nX-Evil: 1"}, {"X\r\nEvil": "a"}, {"X": "日本"}):
            with pytest.raises(BadInput, match=r"a header for 127\.0\.0\.1 cannot be sent"):
                send(f"http://127.0.0.1:{sink.port}/", headers=bad)
        send(f"http://127.0.0.1:{sink.port}/", headers={"host": "evil.example"})
    assert [each.headers["host"] for each in sink.requests] == [f"127.0.0.1:{sink.port}"]


# -- where it may not go -------------------------------------------------------

FORBIDDEN = [
    # loopback, in the spellings a resolver takes
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1",
    "127.255.255.254", "①②⑦.⓪.⓪.①", "127。0。0。1", "localhost", "LOCALHOST", "[::1]", "[0:0:0:0:0:0:0:1]",
    # nowhere and everywhere
    "0.0.0.0", "0", "[::]", "255.255.255.255", "224.0.0.1", "239.255.255.250", "240.0.0.1", "[ff02::1]",
    # private networks
    "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "198.18.0.1", "[fc00::1]", "[fd00:ec2::254]", "[fe80::1]",
    "[fec0::1]",
    # metadata of clouds
    "169.254.169.254", "0xA9FEA9FE", "2852039166", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16",
    # an IPv4 address wrapped in IPv6
    "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2001:0:7f00:1::1]",
    # documentation and protocol assignments
    "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.0.0.8", "192.88.99.1", "[2001:db8::1]", "[3fff::1]", "[100::1]",
]  # fmt: skip


@pytest.mark.parametrize("host", FORBIDDEN)
def test_no_spelling_of_an_address_that_is_not_public_is_called(host, no_connection):
    """The resolved address is judged, so the spelling does not matter."""
    assert len(FORBIDDEN) >= 50
    for scheme in ("https", "http"):
        with pytest.raises(
            BadInput, match=r"is not at a public address, so it is not called; .*axme_webhook_allow_cidrs"
        ):
            send(f"{scheme}://{host}/", allow_cidrs=())


def test_a_name_is_judged_by_all_its_addresses(names, no_connection):
    """One private address among public ones is a trap, whichever the resolver lists first."""
    for addresses in (["169.254.169.254"], ["93.184.216.34", "10.0.0.1"], ["::1", "93.184.216.34"]):
        names["evil.example"] = [(each, None) for each in addresses]
        with pytest.raises(BadInput, match=r"evil\.example is not at a public address"):
            send("https://evil.example/", allow_cidrs=())


def test_the_address_that_was_judged_is_the_one_that_is_called(monkeypatch):
    """A name that answers differently the second time gains nothing: there is no second time."""
    answers = iter(["93.184.216.34", "127.0.0.1", "127.0.0.1"])
    called, real = [], socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **o: real(next(answers), port, **o))

    def connect(self, address):
        called.append(address)
        raise ConnectionRefusedError("as far as this test goes")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(ConnectionError, match=r"rebind\.example could not be called"):
        send("https://rebind.example/", allow_cidrs=())
    assert called == [("93.184.216.34", 443)]


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_a_public_address_is_called_by_https_but_not_by_plain_http(address, names, monkeypatch):
    """Also through the translation of a network that has no IPv4."""
    called = []

    def connect(self, address):
        called.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    names["public.example"] = [(address, None)]
    with pytest.raises(BadInput, match=r"public\.example would be called by plain http"):
        send("http://public.example/", allow_cidrs=())
    assert called == []
    with pytest.raises(ConnectionError):
        send("https://public.example/", allow_cidrs=())
    assert len(called) == 1


def test_an_allowed_network_is_called_and_its_neighbour_is_not():
    """Also when it is wrapped."""
    with HttpSink(status("200 OK")).running() as sink:
        assert send(f"http://127.0.0.1:{sink.port}/", allow_cidrs=["10.0.0.0/8", "127.0.0.1/32"]) == 200
        assert send(f"http://[::ffff:127.0.0.1]:{sink.port}/", allow_cidrs=["127.0.0.1/32"]) == 200
        with pytest.raises(BadInput, match="not at a public address"):
            send(f"http://127.0.0.2:{sink.port}/", allow_cidrs=["127.0.0.1/32"])
        with pytest.raises(BadInput, match="not at a public address"):
            send(f"http://127.0.0.1:{sink.port}/", allow_cidrs=["::/0"])
    assert len(sink.requests) == 2


@pytest.mark.parametrize(
    ("url", "refusal"),
    [
        ("ftp://example.com/", "scheme 'ftp'"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("gopher://example.com/_x", "scheme 'gopher'"),
        ("unix:///var/run/docker.sock", "scheme 'unix'"),
        ("example.com/hook", "scheme ''"),
        ("", "scheme ''"),
        ("https://", "no host"),
        ("https:///hook", "no host"),
        ("https://user:pw@example.com/", "user name or password"),
        ("https://example.com@127.0.0.1/", "user name or password"),
        ("https://example.com:0/", "port 0"),
        ("https://example.com:99999/", "cannot be read"),
        ("https://example.com:x/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
        ("https://a..b/", "cannot be read"),
        ("https://" + "a" * 70 + ".example/", "cannot be read"),
        ("https://example.com/a b", "blanks, controls or a backslash"),
        ("https://example.com/\r\nX: 1", "blanks, controls or a backslash"),
        ("https://example.com\\@127.0.0.1/", "blanks, controls or a backslash"),
        ("https://exa\0mple.com/", "blanks, controls or a backslash"),
        ("https://example.com/" + "x" * 3000, "too long"),
        (None, "no text"),
    ],
)
def test_what_is_no_plain_web_address_is_refused_unread(url, refusal, no_connection):
    """Before any name is looked up."""
    with pytest.raises(BadInput, match=r"^URL to call ") as refused:
        send(url)
    assert refusal in str(refused.value)


# -- how long it may take --------------------------------------------------------


def timed(url: str, body: bytes = b"{}") -> tuple[float, BaseException | int]:
    """How many seconds a call of at most 0.4 took, and what came of it."""
    start = time.monotonic()
    try:
        found: BaseException | int = send(url, body, deadline_seconds=0.4)
    except OSError as late:
        found = late
    return time.monotonic() - start, found


def hang(sink: HttpSink, conn: socket.socket) -> None:
    sink.server.closing.wait(10)


def drip_status(sink: HttpSink, conn: socket.socket) -> None:
    sink.drip(conn, b"H")


def drip_headers(sink: HttpSink, conn: socket.socket) -> None:
    conn.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    sink.drip(conn, b"a")


def drip_continue(sink: HttpSink, conn: socket.socket) -> None:
    sink.drip(conn, b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize("answer", [hang, drip_status, drip_headers, drip_continue])
def test_a_receiver_that_never_finishes_its_answer_is_left_at_the_deadline(answer):
    """A byte now and then is no answer: the deadline is for the whole call, not for one read."""
    with HttpSink(answer).running() as sink:
        seconds, found = timed(f"http://127.0.0.1:{sink.port}/secret-path")
    assert isinstance(found, TimeoutError) and "secret" not in str(found)
    assert str(found) == "127.0.0.1 did not answer within 0.4 s"
    assert 0.35 < seconds < 2


def drip_body(sink: HttpSink, conn: socket.socket) -> None:
    conn.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100000\r\n\r\n")
    sink.drip(conn, b"a")


def cut_body(sink: HttpSink, conn: socket.socket) -> None:
    conn.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\nabc")


def bad_chunks(sink: HttpSink, conn: socket.socket) -> None:
    conn.sendall(b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")


def endless_body(sink: HttpSink, conn: socket.socket) -> None:
    conn.sendall(b"HTTP/1.1 202 Accepted\r\n\r\n")
    while not sink.server.closing.is_set():
        conn.sendall(b"a" * 65536)


@pytest.mark.parametrize("answer", [drip_body, cut_body, bad_chunks, endless_body])
def test_a_status_that_came_in_time_counts_whatever_the_body_does(answer):
    """The receiver has said that it has it; the body is not waited for beyond the deadline, nor read beyond 4 KiB."""
    with HttpSink(answer).running() as sink:
        seconds, found = timed(f"http://127.0.0.1:{sink.port}/")
    assert found == 202
    assert seconds < 2


def test_a_receiver_that_does_not_read_is_left_at_the_deadline():
    """Sending can block as well as reading."""
    closing = threading.Event()
    with Server(lambda conn: closing.wait(10) and None).running() as server:
        seconds, found = timed(f"http://127.0.0.1:{server.port}/", b"x" * 30_000_000)
        closing.set()
    assert isinstance(found, TimeoutError)
    assert 0.35 < seconds < 2


def test_a_handshake_that_never_comes_is_left_at_the_deadline(names):
    """The port is open and silent."""
    closing = threading.Event()
    with Server(lambda conn: closing.wait(10) and None).running() as server:
        names["sink.example"] = [("127.0.0.1", server.port)]
        seconds, found = timed("https://sink.example/")
        closing.set()
    assert isinstance(found, TimeoutError)
    assert 0.35 < seconds < 2


def test_a_name_look_up_that_hangs_is_left_at_the_deadline(monkeypatch):
    """The resolver takes no timeout."""
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: done.wait(10) and [])
    seconds, found = timed("https://slow.example/")
    done.set()
    assert isinstance(found, TimeoutError) and "slow.example" in str(found)
    assert 0.35 < seconds < 2


# -- when there is no answer -----------------------------------------------------


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\0" * 100, b"a" * 200_000]
)
def test_what_answers_no_http_is_a_failed_call(answer):
    """One family of errors for all of it."""
    with HttpSink(answer).running() as sink, pytest.raises(ConnectionError, match=r"^127\.0\.0\.1 "):
        send(f"http://127.0.0.1:{sink.port}/secret-path")


def test_a_closed_port_and_an_unknown_name_are_failed_calls(monkeypatch):
    """Trying again may help, so they are not refusals."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1 could not be called"):
        send(f"http://127.0.0.1:{port}/")

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConnectionError, match=r"the name nobody\.example could not be resolved"):
        send("https://nobody.example/")


def test_every_connection_is_closed_after_the_call(names, trusted):
    """A worker makes millions of calls."""
    ends: queue.Queue[bytes] = queue.Queue()

    def answer(sink: HttpSink, conn: socket.socket) -> None:
        conn.sendall(status("200 OK"))
        try:
            ends.put(conn.recv(1))
        except (ConnectionError, ssl.SSLError):
            ends.put(b"")

    for tls, scheme in ((False, "http"), (True, "https")):
        with HttpSink(answer, tls=tls).running() as sink:
            names["sink.example"] = [("127.0.0.1", sink.port)]
            assert send(f"{scheme}://sink.example/") == 200
            assert ends.get(timeout=10) == b""


@pytest.mark.parametrize(
    "url", ["https://10.0.0.1/x", "http://93.184.216.34/x", "https://[::1]/x", "https://169.254.169.254/"]
)
def test_an_address_that_will_never_be_called_is_refused_before_there_is_a_call(url, names):
    """Where it stands in the URL there is nothing to look up; a name may lead elsewhere by then."""
    outbound.check_url(url)
    outbound.check_url("https://sink.example/x", ())
    outbound.check_url("https://10.0.0.1/x", ("10.0.0.0/8",))

    with pytest.raises(BadInput, match="axme_webhook_allow_cidrs"):
        outbound.check_url(url, ())
