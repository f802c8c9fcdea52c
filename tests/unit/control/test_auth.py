from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from brokers.engine.control import auth
from brokers.engine.control.auth import ClientHandshake, ServerHandshake
from brokers.engine.control.protocol import ControlError, LineStream

SECRET = bytes(range(32))
OTHER = bytes(32)


def shake(server: ServerHandshake, client: ClientHandshake) -> None:
    client.finish(server.receive(client.answer(server.challenge())))


def test_both_sides_prove_themselves_and_learn_who_the_other_is() -> None:
    server = ServerHandshake(SECRET, auth.PEER, {"node": 1})
    client = ClientHandshake(SECRET, auth.PEER, {"node": 2, "boot": 77})
    shake(server, client)
    assert server.client_hello == {"node": 2, "boot": 77}
    assert client.server_hello == {"node": 1}


def test_a_client_with_another_secret_is_turned_away_and_not_believed() -> None:
    server = ServerHandshake(SECRET, auth.CONTROL)
    with pytest.raises(ControlError, match="the client does not know this cluster's secret"):
        shake(server, ClientHandshake(OTHER, auth.CONTROL, {"node": "mallory"}))
    assert server.client_hello == {}


def test_a_server_that_does_not_know_the_secret_is_not_believed() -> None:
    client = ClientHandshake(SECRET, auth.CONTROL)
    client.answer(ServerHandshake(OTHER, auth.CONTROL).challenge())
    forged = json.dumps({"v": 1, "proof": bytes(32).hex()}).encode()
    with pytest.raises(ControlError, match="the server does not know this cluster's secret"):
        client.finish(forged)


def test_a_proof_cannot_be_reflected_to_who_made_it() -> None:
    client = ClientHandshake(SECRET, auth.CONTROL)
    answer = json.loads(client.answer(ServerHandshake(OTHER, auth.CONTROL).challenge()))
    with pytest.raises(ControlError, match="does not know"):
        client.finish(json.dumps({"v": 1, "proof": answer["proof"]}).encode())


def test_an_answer_cannot_be_replayed_to_another_challenge() -> None:
    first, second = ServerHandshake(SECRET, auth.CONTROL), ServerHandshake(SECRET, auth.CONTROL)
    answer = ClientHandshake(SECRET, auth.CONTROL).answer(first.challenge())
    first.receive(answer)
    with pytest.raises(ControlError, match="does not know"):
        second.receive(answer)


def test_a_control_credential_does_not_open_a_peer_link() -> None:
    server = ServerHandshake(SECRET, auth.PEER)
    challenge = json.loads(server.challenge()) | {"role": auth.CONTROL}
    answer = json.loads(ClientHandshake(SECRET, auth.CONTROL).answer(json.dumps(challenge).encode()))
    with pytest.raises(ControlError, match="this is a peer connection, the other side wants 'control'"):
        server.receive(json.dumps(answer).encode())
    with pytest.raises(ControlError, match="does not know"):
        server.receive(json.dumps(answer | {"role": auth.PEER}).encode())


@pytest.mark.parametrize("key", ["hello", "nonce"])
def test_what_a_client_says_cannot_be_altered_on_the_way(key: str) -> None:
    server = ServerHandshake(SECRET, auth.PEER)
    answer = json.loads(ClientHandshake(SECRET, auth.PEER, {"node": 2}).answer(server.challenge()))
    altered = {"hello": {"node": 3}, "nonce": bytes(32).hex()}[key]
    with pytest.raises(ControlError, match="does not know"):
        server.receive(json.dumps(answer | {key: altered}).encode())


def test_a_server_hello_cannot_be_altered_on_the_way() -> None:
    server = ServerHandshake(SECRET, auth.PEER, {"node": 1})
    challenge = json.loads(server.challenge()) | {"hello": {"node": 3}}
    answer = ClientHandshake(SECRET, auth.PEER).answer(json.dumps(challenge).encode())
    with pytest.raises(ControlError, match="does not know"):
        server.receive(answer)


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda line: b"GET / HTTP/1.1", "not JSON"),
        (lambda line: b"[1]", "must hold an object"),
        (lambda line: b"[" * 4000, "not JSON"),
        (lambda line: line.replace(b'"v":1', b'"v":2'), "version 2"),
        (lambda line: line.replace(b'"nonce":"', b'"nonce":"zz'), "'nonce' must be 32 bytes"),
        (lambda line: line.replace(b'"proof":"', b'"proof":"00'), "'proof' must be 32 bytes"),
        (lambda line: line.replace(b'"hello":{}', b'"hello":3'), "'hello' must be an object"),
        (lambda line: line.replace(b'"proof":"', b'"proof":12,"x":"'), "'proof' must be 32 bytes"),
    ],
)
def test_a_malformed_answer_is_named(break_it: Callable[[bytes], bytes], complaint: str) -> None:
    server = ServerHandshake(SECRET, auth.CONTROL)
    answer = ClientHandshake(SECRET, auth.CONTROL).answer(server.challenge())
    with pytest.raises(ControlError, match=complaint):
        server.receive(break_it(answer))


async def _stranger(send: bytes) -> ControlError:
    """What serve_handshake makes of a client that sends ``send`` and then nothing."""
    outcome: asyncio.Future[ControlError] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = LineStream(reader, writer)
        try:
            await auth.serve_handshake(stream, SECRET, auth.CONTROL, within=0.2)
        except ControlError as error:
            outcome.set_result(error)
        await stream.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(send)
    error = await asyncio.wait_for(outcome, 5)
    writer.close()
    server.close()
    return error


def test_a_silent_stranger_is_dropped() -> None:
    assert "did not authenticate within 0.2 s" in asyncio.run(_stranger(b"")).text


def test_a_stranger_cannot_make_us_hold_much() -> None:
    error = asyncio.run(_stranger(b"x" * (auth.MAX_HANDSHAKE_LINE + 1)))
    assert error.text == f"a control line is longer than {auth.MAX_HANDSHAKE_LINE} bytes"
