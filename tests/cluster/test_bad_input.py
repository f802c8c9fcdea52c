"""Bad input over real sockets: the protocol's error, the connection closed, nobody else notices.

A well-behaved client publishes and consumes on the same node all the while, and the node's memory is watched.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench.rawclient import RawClient, frame, long, method, short
from tests.cluster.harness import Cluster
from tests.cluster.traffic import Traffic

QUEUE = "orders"
HEADER = b"AMQP\x00\x00\x09\x01"
GROWTH = 16 << 20
"""Octets that a node may grow by, whatever it is sent."""


def resident(pid: int) -> int:
    """A process's resident memory in octets."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"process {pid} has no VmRSS")


class Attacked:
    """The node under attack, and its well-behaved client."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.name = "node1"
        self.port = cluster.node(self.name).amqp
        self.traffic = Traffic(QUEUE)

    def connect(self) -> socket.socket:
        connected = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def wait_for_traffic(self, more: int = 300) -> None:
        target = self.traffic.confirmed() + more
        self.cluster.wait_for(lambda: self.traffic.confirmed() >= target, "the other client goes on")


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """One cluster for all attacks, with traffic on it from begin to end."""
    with Cluster(tmp_path_factory.mktemp("attacked") / "home") as cluster:
        cluster.start()
        attacked = Attacked(cluster)
        RawClient(attacked.port).declare(QUEUE)
        attacked.traffic.consume([attacked.port])
        attacked.traffic.publish([attacked.port])
        # Checking a password takes memory by design (scrypt), which the allocator keeps.
        with attacked.connect() as connected:
            login(connected, "guest", "wrong")
            everything(connected)
        attacked.wait_for_traffic(3000)
        yield attacked
        counts = attacked.traffic.finish().check()
        assert counts["reconnects"] == 0
        assert counts["duplicates"] == 0


@pytest.fixture(autouse=True)
def unharmed(attacked: Attacked) -> Iterator[None]:
    """After each attack the node is the same process, not grown, and serves the other client."""
    cluster = attacked.cluster
    before = {name: resident(cluster.pid(name)) for name in cluster.names}
    yield
    attacked.wait_for_traffic()
    assert attacked.cluster.running() == attacked.cluster.names
    # The others' traffic fills caches meanwhile, on all nodes alike: that is not the attacker's doing.
    grown = {name: resident(cluster.pid(name)) - before[name] for name in cluster.names}
    usual = max(0, *(grown[name] for name in cluster.names if name != attacked.name))
    assert grown[attacked.name] - usual <= GROWTH, f"{attacked.name}'s memory grew: {grown}"


def everything(connected: socket.socket) -> bytes:
    """What the node says until it closes the connection."""
    connected.settimeout(20)
    said = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := connected.recv(1 << 16):
            said += data
    return bytes(said)


def closing(said: bytes) -> tuple[int, str, int, int]:
    """The (code, text, class, method) of the connection.close at the end of ``said``."""
    at = said.rindex(b"\x00\x0a\x00\x32")
    code = int.from_bytes(said[at + 4 : at + 6], "big")
    size = said[at + 6]
    text = said[at + 7 : at + 7 + size].decode()
    class_id, method_id = struct.unpack_from(">HH", said, at + 7 + size)
    return code, text, class_id, method_id


def answer(connected: socket.socket, sent: bytes) -> tuple[int, str, int, int]:
    """Send, wait for connection.close, confirm it, and see the socket closed."""
    connected.sendall(sent)
    connected.settimeout(20)
    said = bytearray()
    while b"\x00\x0a\x00\x32" not in said or not said.endswith(b"\xce"):
        data = connected.recv(1 << 16)
        assert data, f"closed without a word after {bytes(said)!r}"
        said += data
    with contextlib.suppress(OSError):
        connected.sendall(method(10, 51, channel=0))
    assert everything(connected) == b""
    return closing(bytes(said))


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"AMQP\x00\x01\x00\x00",
        b"AMQP\x03\x01\x00\x00",
        b"AMQP\x01\x01\x08\x00",
        b"\x00" * 100_000,
    ],
    ids=["http", "tls", "amqp-1.0", "amqp-1.0-sasl", "amqp-0-8", "zeros"],
)
def test_another_protocol_is_told_which_one_is_spoken(attacked: Attacked, garbage: bytes) -> None:
    with attacked.connect() as connected:
        connected.sendall(garbage)
        assert everything(connected) == HEADER


def login(connected: socket.socket, user: str, password: str, properties: bytes = b"") -> None:
    connected.sendall(HEADER)
    plain = f"\0{user}\0{password}".encode()
    connected.sendall(method(10, 11, long(properties) + short("PLAIN") + long(plain) + short("en_US"), 0))


def test_a_wrong_password_is_refused_in_words_to_those_who_listen(attacked: Attacked) -> None:
    capability = b"\x1cauthentication_failure_closet\x01"
    properties = b"\x0ccapabilitiesF" + long(capability)
    with attacked.connect() as connected:
        login(connected, "guest", "wrong", properties)
        code, text, _, _ = answer(connected, b"")
    assert code == 403
    assert text == (
        "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
        "For details see the broker logfile."
    )


def test_a_wrong_password_closes_the_socket_of_others(attacked: Attacked) -> None:
    with attacked.connect() as connected:
        login(connected, "guest", "wrong")
        assert b"\x00\x0a\x00\x32" not in everything(connected)


@pytest.mark.parametrize("size", [4097, 1 << 20, 0xFFFF_FFFF])
def test_a_huge_frame_before_login_is_not_waited_for(attacked: Attacked, size: int) -> None:
    with attacked.connect() as connected:
        connected.sendall(HEADER + struct.pack(">BHI", 1, 0, size) + b"x" * 4096)
        assert closing(everything(connected))[0] == 501


def test_a_huge_frame_after_login_is_not_waited_for(attacked: Attacked) -> None:
    for size in (131_073, 0xFFFF_FFFF):
        client = RawClient(attacked.port)
        with client.socket as connected:
            connected.sendall(struct.pack(">BHI", 3, 1, size) + b"x" * 100_000)
            code, text, _, _ = closing(everything(connected))
        assert code == 501
        assert text.startswith("FRAME_ERROR")


def test_a_body_larger_than_any_message_is_refused_by_its_header(attacked: Attacked) -> None:
    client = RawClient(attacked.port)
    with client.socket as connected:
        publish = method(60, 40, b"\0\0" + short("") + short(QUEUE) + b"\0")
        head = frame(2, 1, struct.pack(">HHQH", 60, 0, 1 << 40, 0))
        connected.sendall(publish + head)
        code, text, class_id, method_id = channel_close(client)
    assert (code, class_id, method_id) == (406, 60, 40)
    assert "message size" in text


def channel_close(client: RawClient) -> tuple[int, str, int, int]:
    arguments = client.expect(20, 40)
    code = int.from_bytes(arguments[:2], "big")
    size = arguments[2]
    class_id, method_id = struct.unpack_from(">HH", arguments, 3 + size)
    return code, arguments[3 : 3 + size].decode(), class_id, method_id


BAD_TABLE = b"\x01aZ\x00"
NESTED = b"\x01aF\x00\x00\x00\x00"


def nested(depth: int) -> bytes:
    """A table in a table in a table."""
    table = b""
    for _ in range(depth):
        table = b"\x01aF" + long(table)
    return table


def declare(table: bytes, name: str = "bad") -> bytes:
    return method(50, 10, b"\0\0" + short(name) + b"\x00" + long(table))


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(1, 1, b"\x00\x32\x00\x0a")[:-1] + b"\x00", 501),
        (frame(9, 1, b"x"), 501),
        (frame(8, 1, b""), 505),
        (method(99, 99), 503),
        (method(10, 40, short("/") + short("") + b"\0", 0), 504),
        (method(10, 11, b"", 0), 502),
        (method(60, 10, struct.pack(">IHB", 0, 1, 0), 7), 504),
        (method(20, 10, short("")), 504),
        (method(10, 31, struct.pack(">HIH", 1, 4096, 0), 0), 504),
        (frame(3, 1, b"a body without a method"), 505),
        (frame(2, 1, struct.pack(">HHQH", 60, 0, 1, 0)), 505),
        (method(60, 40, b"\0\0" + short("") + short("q") + b"\0") + method(60, 40, b""), 505),
        (method(50, 10, b"\0\0\xffq"), 502),
        (declare(BAD_TABLE), 502),
        (declare(b"\x05abc"), 502),
        (declare(nested(10_000)), 502),
        (declare(NESTED[:-4] + b"\xff\xff\xff\xff"), 502),
        (method(50, 10, b"\0\0" + short("q") + b"\x00\xff\xff\xff\xff"), 502),
        (method(50, 10, b"\0\0\x02\xff\xfe\x00" + long(b"")), 502),
    ],
    ids=[
        "frame-end",
        "frame-type",
        "heartbeat-on-channel",
        "unknown-method",
        "second-open",
        "second-start-ok-cut",
        "unknown-channel",
        "channel-opened-twice",
        "second-tune-ok",
        "body-first",
        "header-first",
        "method-within-content",
        "short-string-cut",
        "table-type",
        "table-key-cut",
        "table-nested",
        "table-size-within",
        "table-size",
        "name-not-utf-8",
    ],
)
def test_what_is_malformed_or_out_of_order_closes_the_connection(
    attacked: Attacked, sent: bytes, code: int
) -> None:
    client = RawClient(attacked.port)
    with client.socket as connected:
        got, text, _, _ = answer(connected, sent)
    assert got == code, text
    assert " - " in text


def test_methods_before_login_are_refused(attacked: Attacked) -> None:
    for early in (
        method(50, 10, b"\0\0" + short("q") + b"\0" + long(b"")),
        method(10, 40, short("/") + short("") + b"\0", 0),
        method(10, 31, struct.pack(">HIH", 0, 0, 0), 0),
    ):
        with attacked.connect() as connected:
            code, _, _, _ = answer(connected, HEADER + early)
        assert code in (503, 504, 505)


def test_frames_for_a_channel_that_was_closed_are_an_error_of_the_connection(attacked: Attacked) -> None:
    client = RawClient(attacked.port)
    client.call(20, 40, struct.pack(">H", 200) + short("bye") + struct.pack(">HH", 0, 0), 20, 41)
    with client.socket as connected:
        assert answer(connected, method(60, 10, struct.pack(">IHB", 0, 1, 0)))[0] == 504


def test_errors_of_one_channel_spare_the_others(attacked: Attacked) -> None:
    client = RawClient(attacked.port)
    with client.socket as connected:
        connected.sendall(method(20, 10, short(""), 2))
        client.expect(20, 11)
        connected.sendall(method(60, 80, struct.pack(">QB", 99, 0)))
        code, text, class_id, method_id = channel_close(client)
        assert (code, text) == (406, "PRECONDITION_FAILED - unknown delivery tag 99")
        assert (class_id, method_id) == (60, 80)
        connected.sendall(method(20, 41) + method(85, 10, b"\0", 2))
        client.expect(85, 11)


def test_hundreds_of_half_open_handshakes(attacked: Attacked) -> None:
    beginnings: list[Callable[[socket.socket], object]] = [
        lambda connected: None,
        lambda connected: connected.sendall(HEADER[:3]),
        lambda connected: connected.sendall(HEADER),
        lambda connected: connected.sendall(HEADER + struct.pack(">BHI", 1, 0, 4000) + b"x" * 100),
    ]
    connections = []
    try:
        for i in range(400):
            connections.append(attacked.connect())
            beginnings[i % len(beginnings)](connections[-1])
        attacked.wait_for_traffic()
        client = RawClient(attacked.port)
        client.confirm()
        client.socket.close()
        for connected in connections:
            everything(connected)  # the node ends all of them, by itself, within its handshake time-out
    finally:
        for connected in connections:
            connected.close()


def test_a_login_one_octet_at_a_time_is_ended_too(attacked: Attacked) -> None:
    with attacked.connect() as connected:
        connected.settimeout(0.5)
        drip = HEADER + struct.pack(">BHI", 1, 0, 4000) + b"x" * 3000
        with contextlib.suppress(ConnectionError):
            for octet in drip:
                connected.sendall(bytes((octet,)))
                with contextlib.suppress(TimeoutError):
                    if not connected.recv(4096):
                        return
        raise AssertionError("still there after half an hour of drops")


def test_thousands_of_random_frames(attacked: Attacked) -> None:
    seed = 20_26
    state = seed
    for _ in range(200):
        client = RawClient(attacked.port)
        frames = bytearray()
        for _ in range(20):
            state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            noise = state.to_bytes(8, "big") * 4
            frames += frame(1 + noise[0] % 3, noise[1] % 3, noise[2 : 2 + noise[3] % 30])
        with client.socket as connected:
            connected.sendall(frames)
            connected.shutdown(socket.SHUT_WR)
            everything(connected)
