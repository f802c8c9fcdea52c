from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from brokers.engine.control import auth, client, failover, server
from brokers.engine.control.client import ControlClient, Endpoint, SyncControlClient
from brokers.engine.control.protocol import ControlError, LineStream
from tests.unit.control.served import SECRET, Served


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario

    asyncio.run(bounded())


@contextlib.asynccontextmanager
async def raw_session(endpoint: Endpoint) -> AsyncIterator[LineStream]:
    stream = LineStream(*await asyncio.open_connection(endpoint.host, endpoint.port))
    await auth.join_handshake(stream, SECRET, auth.CONTROL)
    yield stream
    await stream.close()


@contextlib.contextmanager
def deaf_endpoint(name: str) -> Any:
    """A port that accepts and says nothing, as a paused process does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Endpoint(name, *listener.getsockname())


def closed_endpoint(name: str) -> Endpoint:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return Endpoint(name, *listener.getsockname())


def test_a_call_is_answered_and_its_errors_keep_their_code() -> None:
    async def scenario() -> None:
        async with Served("node1") as one, ControlClient([one.endpoint], SECRET) as control:
            assert await control.call("ping", {"x": 1}) == {"node": "node1", "echo": {"x": 1}}
            with pytest.raises(ControlError, match="no queue 'q'") as caught:
                await control.call("queue", {"vhost": "/", "name": "q"})
            assert caught.value.code == "not-found"
            with pytest.raises(ControlError, match="there is no method 'fly'") as caught:
                await control.call("fly")
            assert caught.value.code == "unknown-method"
            assert (await control.call("ping"))["node"] == "node1"

    run(scenario())


@pytest.mark.parametrize(("method", "text"), [("broken", "ZeroDivisionError: boom"), ("unwritable", "JSON")])
def test_a_failure_inside_the_node_is_told_and_harms_nobody_else(method: str, text: str) -> None:
    async def scenario() -> None:
        async with Served("node1") as one, ControlClient([one.endpoint], SECRET) as control:
            with pytest.raises(ControlError, match=text) as caught:
                await control.call(method)
            assert caught.value.code == "internal"
            assert (await control.call("ping"))["node"] == "node1"

    run(scenario())


def test_calls_on_one_connection_do_not_wait_for_each_other() -> None:
    async def scenario() -> None:
        async with Served("node1") as one, ControlClient([one.endpoint], SECRET) as control:
            slow = asyncio.create_task(control.call("snapshot"))
            await one.api.entered.wait()
            assert (await control.call("ping"))["node"] == "node1"
            assert not slow.done()
            one.api.release.set()
            assert await slow == {"node": "node1"}

    run(scenario())


def test_a_wrong_secret_is_told() -> None:
    async def scenario() -> None:
        async with Served("node1") as one, ControlClient([one.endpoint], bytes(32)) as control:
            with pytest.raises(ControlError, match="does not know this cluster's secret") as caught:
                await control.call("ping")
            assert caught.value.code == "unavailable"
        assert one.api.calls == []

    run(scenario())


def test_nothing_is_carried_out_before_the_handshake() -> None:
    async def scenario() -> None:
        async with Served("node1") as one:
            reader, writer = await asyncio.open_connection(one.endpoint.host, one.endpoint.port)
            writer.write(b'{"v":1,"id":1,"method":"ping"}\n')
            told = await reader.read()
            assert b"this is a control connection" in told
            assert one.api.calls == []
            writer.close()

    run(scenario())


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"nonsense\n", "bad-request"),
        (b'{"v":9,"id":1,"method":"ping"}\n', "version"),
        (b'{"v":1,"id":"1","method":"ping"}\n', "bad-request"),
    ],
)
def test_a_broken_request_ends_the_session_with_the_reason(line: bytes, code: str) -> None:
    async def scenario() -> None:
        async with Served("node1") as one, raw_session(one.endpoint) as stream:
            await stream.write_line(line)
            assert (await stream.read())["error"]["code"] == code
            with pytest.raises(EOFError):
                await stream.read()

    run(scenario())


def test_a_request_without_a_method_is_refused_alone() -> None:
    async def scenario() -> None:
        async with Served("node1") as one, raw_session(one.endpoint) as stream:
            await stream.write({"v": 1, "id": 1, "method": "ping", "params": []})
            assert (await stream.read())["error"]["code"] == "bad-request"
            await stream.write({"v": 1, "id": 2, "method": "ping"})
            assert (await stream.read())["id"] == 2

    run(scenario())


def test_another_node_answers_when_one_is_down() -> None:
    async def scenario() -> None:
        async with Served("node2") as two:
            async with ControlClient([closed_endpoint("node1"), two.endpoint], SECRET) as control:
                assert (await control.call("ping"))["node"] == "node2"
                with pytest.raises(ControlError, match=r"node1 \(127.0.0.1:.*refused") as caught:
                    await control.call("ping", node="node1")
                assert caught.value.code == "unavailable"

    run(scenario())


def test_a_paused_node_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_TIMEOUT", 0.1)

    async def scenario() -> None:
        with deaf_endpoint("node1") as one:
            async with Served("node2") as two, ControlClient([one, two.endpoint], SECRET) as control:
                assert (await control.call("ping"))["node"] == "node2"

    run(scenario())


def test_a_lost_read_is_asked_again_elsewhere_but_a_lost_change_is_not() -> None:
    async def scenario() -> None:
        async with Served("node1") as one, Served("node2") as two:
            async with ControlClient([one.endpoint, two.endpoint], SECRET) as control:
                change = asyncio.create_task(control.call("transfer_leadership", {}))
                read = asyncio.create_task(control.call("snapshot"))
                while len(one.api.calls) < 2:
                    await asyncio.sleep(0)
                two.api.release.set()
                await one.server.close()
                with pytest.raises(ControlError, match="may have been carried out") as caught:
                    await change
                assert caught.value.code == "outcome-unknown"
                assert await read == {"node": "node2"}
                assert two.api.calls == [("snapshot", {})]

    run(scenario())


def test_a_call_that_is_never_answered_times_out() -> None:
    async def scenario() -> None:
        async with Served("node1") as one, ControlClient([one.endpoint], SECRET) as control:
            with pytest.raises(ControlError, match=r"no answer within 0.05 s"):
                await control.call("snapshot", timeout=0.05)
            assert (await control.call("ping"))["node"] == "node1"
            await one.api.cancelled.wait()

    run(scenario())


def test_a_restarted_node_is_used_again() -> None:
    async def scenario() -> None:
        one = Served("node1")
        async with ControlClient([(await one.__aenter__()).endpoint], SECRET) as control:
            await control.call("ping")
            await one.server.close()
            again = Served("node1")
            again.endpoint = one.endpoint
            async with again:
                assert (await control.call("ping"))["node"] == "node1"
                assert len(again.api.calls) == 1

    run(scenario())


def test_a_watch_begins_with_everything_and_goes_on_with_changes() -> None:
    async def scenario() -> None:
        async with Served("node1") as one, ControlClient([one.endpoint], SECRET) as control:
            async with aclosing(control.watch()) as changes:
                assert await anext(changes) == {"full": True, "answered_by": "node1"}
                one.api.changes.put_nowait({"queues": [{"vhost": "/", "name": "q"}]})
                assert await anext(changes) == {"queues": [{"vhost": "/", "name": "q"}]}
            while not one.api.watchers_closed:
                await asyncio.sleep(0)

    run(scenario())


def test_a_watch_moves_to_another_node_and_starts_afresh() -> None:
    async def scenario() -> None:
        async with Served("node1") as one, Served("node2") as two:
            async with ControlClient([one.endpoint, two.endpoint], SECRET) as control:
                async with aclosing(control.watch()) as changes:
                    assert (await anext(changes))["answered_by"] == "node1"
                    await one.server.close()
                    assert "node1" in (await anext(changes))["disconnected"]
                    assert await anext(changes) == {"full": True, "answered_by": "node2"}

    run(scenario())


def test_a_watch_waits_for_nodes_to_come_back() -> None:
    async def scenario() -> None:
        one = Served("node1")
        async with ControlClient([(await one.__aenter__()).endpoint], SECRET) as control:
            async with aclosing(control.watch()) as changes:
                await anext(changes)
                await one.server.close()
                assert "disconnected" in await anext(changes)
                again = Served("node1")
                again.endpoint = one.endpoint
                async with again:
                    assert (await anext(changes))["full"]

    run(scenario())


def test_a_silent_watched_node_counts_as_lost_but_an_idle_one_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "WATCH_TIMEOUT", 0.3)

    async def scenario() -> None:
        async with Served("idle", keepalive=0.05) as one, Served("paused", keepalive=60) as two:
            async with ControlClient([one.endpoint], SECRET) as control:
                async with aclosing(control.watch()) as changes:
                    await anext(changes)
                    waiting = asyncio.ensure_future(anext(changes))
                    assert not (await asyncio.wait([waiting], timeout=0.9))[0]
                    one.api.changes.put_nowait({"nodes": []})
                    assert await waiting == {"nodes": []}
            async with ControlClient([two.endpoint], SECRET) as control:
                async with aclosing(control.watch()) as changes:
                    await anext(changes)
                    assert "silent for 0.3 s" in (await anext(changes))["disconnected"]

    run(scenario())


def test_a_server_closes_though_a_watcher_never_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_FAREWELL", 0.05)

    async def scenario() -> None:
        async with Served("node1") as one, raw_session(one.endpoint) as stream:
            await stream.write({"v": 1, "id": 1, "method": "watch", "params": {}})
            # More than the kernel takes for a peer who does not read.
            one.api.changes.put_nowait({"filler": "x" * 40_000_000})
            one.api.changes.put_nowait({"next": True})
            while one.api.changes.qsize() == 2:
                await asyncio.sleep(0)
            for _ in range(500):
                await asyncio.sleep(0)
            assert one.api.changes.qsize() == 1, "a slow watcher is not given the next change"
            await one.server.close()
            stream.abort()

    run(scenario())


def test_blocking_calls() -> None:
    async def scenario() -> None:
        async with Served("node2") as two:
            control = SyncControlClient([closed_endpoint("node1"), two.endpoint], SECRET)
            assert (await asyncio.to_thread(control.call, "ping"))["node"] == "node2"
            with pytest.raises(ControlError, match="no queue 'q'") as caught:
                await asyncio.to_thread(control.call, "queue", {"name": "q"})
            assert caught.value.code == "not-found"
            with pytest.raises(ControlError, match=r"no answer within 0.05 s") as caught:
                await asyncio.to_thread(control.call, "transfer_leadership", timeout=0.05)
            assert caught.value.code == "outcome-unknown"
            with pytest.raises(ControlError, match="there is no node 'node9'; there are node1, node2"):
                control.call("ping", node="node9")

    run(scenario())


def test_blocking_calls_from_many_threads() -> None:
    async def scenario() -> None:
        async with Served("node1") as one:
            control = SyncControlClient([one.endpoint], SECRET)
            answers: list[object] = []
            threads = [
                threading.Thread(
                    target=lambda i=i: answers.append(control.call("ping", {"i": i})["echo"]["i"])
                )
                for i in range(16)
            ]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                await asyncio.sleep(0.001)
            assert sorted(map(int, map(str, answers))) == list(range(16))

    run(scenario())


def test_a_wrong_secret_is_told_to_blocking_callers() -> None:
    async def scenario() -> None:
        async with Served("node1") as one:
            control = SyncControlClient([one.endpoint], bytes(32))
            with pytest.raises(ControlError, match="does not know this cluster's secret"):
                await asyncio.to_thread(control.call, "ping")

    run(scenario())


def test_without_endpoints_there_is_no_client() -> None:
    with pytest.raises(ValueError, match="at least one endpoint"):
        ControlClient([], SECRET)
    assert failover.REPEATABLE.isdisjoint({"transfer_leadership", "shutdown"})
