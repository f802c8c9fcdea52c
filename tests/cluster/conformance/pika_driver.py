"""pika under remote control: a command a line on stdin, answers and events a line on stdout (see driver.py)."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pika
from pika import exceptions
from pika.adapters.blocking_connection import BlockingChannel

Command = dict[str, str]
connections: dict[str, pika.BlockingConnection] = {}
channels: dict[str, BlockingChannel] = {}
nacked: set[str] = set()


def say(**fields: object) -> None:
    sys.stdout.write(urlencode(fields) + "\n")
    sys.stdout.flush()


def table(command: Command) -> dict[str, Any]:
    convert: dict[str, Callable[[str], Any]] = {
        "i": int,
        "b": lambda text: text == "1",
        "s": str,
        "l": lambda text: text.split(","),
    }
    return {key[2:]: convert[value[0]](value[2:]) for key, value in command.items() if key.startswith("a.")}


def delivery(method: Any, properties: pika.BasicProperties, body: bytes) -> dict[str, object]:
    said = {
        "delivery": method.delivery_tag,
        "redelivered": int(method.redelivered),
        "exchange": method.exchange,
        "key": method.routing_key,
        "size": len(body),
        "sha": hashlib.sha256(body).hexdigest(),
    }
    if len(body) <= 1000:
        said["body"] = body.decode()
    for name in ("expiration", "reply_to"):
        if getattr(properties, name) is not None:
            said[name] = getattr(properties, name)
    for key, value in (properties.headers or {}).items():
        said.update(flat(f"h.{key}", value))
    return said


def flat(name: str, value: Any) -> Iterator[tuple[str, object]]:
    """The leaves of a header, each with its path."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(f"{name}.{key}", inner)
    else:
        yield name, value


class Verbs:
    """One method a command; its result is the answer's fields."""

    def connect(self, command: Command) -> None:
        options: dict[str, Any] = {
            key: int(command[key]) for key in ("heartbeat", "frame_max") if key in command
        }
        parameters = pika.ConnectionParameters("127.0.0.1", int(command["port"]), **options)
        connections[command["c"]] = pika.BlockingConnection(parameters)

    def disconnect(self, command: Command) -> None:
        connections.pop(command["c"]).close()

    def channel(self, command: Command) -> None:
        name = command["ch"]
        channels[name] = channel = connections[command["c"]].channel()
        channel.add_on_return_callback(
            lambda _, method, properties, body: say(
                event="return",
                ch=name,
                code=method.reply_code,
                text=method.reply_text,
                exchange=method.exchange,
                key=method.routing_key,
                body=body.decode(),
            )
        )
        channel.add_on_cancel_callback(
            lambda frame: say(event="cancel", ch=name, tag=frame.method.consumer_tag)
        )
        if command.get("confirm") == "1":
            channel.confirm_delivery()

    def close_channel(self, command: Command) -> None:
        channels[command["ch"]].close()

    def exchange_declare(self, command: Command) -> None:
        channels[command["ch"]].exchange_declare(
            command["name"],
            command["type"],
            passive=on(command, "passive"),
            durable=on(command, "durable"),
            auto_delete=on(command, "auto_delete"),
            internal=on(command, "internal"),
            arguments=table(command),
        )

    def exchange_delete(self, command: Command) -> None:
        channels[command["ch"]].exchange_delete(command["name"], if_unused=on(command, "if_unused"))

    def exchange_bind(self, command: Command) -> None:
        places = command["destination"], command["source"], command["key"]
        channels[command["ch"]].exchange_bind(*places, arguments=table(command))

    def exchange_unbind(self, command: Command) -> None:
        places = command["destination"], command["source"], command["key"]
        channels[command["ch"]].exchange_unbind(*places, arguments=table(command))

    def queue_declare(self, command: Command) -> dict[str, object]:
        found = channels[command["ch"]].queue_declare(
            command["name"],
            passive=on(command, "passive"),
            durable=on(command, "durable"),
            exclusive=on(command, "exclusive"),
            auto_delete=on(command, "auto_delete"),
            arguments=table(command),
        )
        ok = found.method
        return {"name": ok.queue, "messages": ok.message_count, "consumers": ok.consumer_count}

    def queue_bind(self, command: Command) -> None:
        places = command["queue"], command["exchange"], command["key"]
        channels[command["ch"]].queue_bind(*places, arguments=table(command))

    def queue_unbind(self, command: Command) -> None:
        places = command["queue"], command["exchange"], command["key"]
        channels[command["ch"]].queue_unbind(*places, arguments=table(command))

    def queue_purge(self, command: Command) -> dict[str, object]:
        return {"messages": channels[command["ch"]].queue_purge(command["queue"]).method.message_count}

    def queue_delete(self, command: Command) -> dict[str, object]:
        flags = {"if_unused": on(command, "if_unused"), "if_empty": on(command, "if_empty")}
        deleted = channels[command["ch"]].queue_delete(command["queue"], **flags)
        return {"messages": deleted.method.message_count}

    def publish(self, command: Command) -> None:
        size = command.get("fill")
        body = command.get("body", "").encode() if size is None else pattern(int(size))
        properties = pika.BasicProperties(
            headers=table(command) or None,
            delivery_mode=2 if on(command, "persistent") else 1,
            expiration=command.get("expiration"),
            priority=int(command["priority"]) if "priority" in command else None,
            reply_to=command.get("reply_to"),
        )
        # What is returned in confirm mode is raised, too; the callback has said so by then.
        with contextlib.suppress(exceptions.UnroutableError):
            self._publish(command, body, properties)

    def _publish(self, command: Command, body: bytes, properties: pika.BasicProperties) -> None:
        try:
            channels[command["ch"]].basic_publish(
                command["exchange"], command["key"], body, properties, mandatory=on(command, "mandatory")
            )
        except exceptions.NackError:
            nacked.add(command["ch"])

    def confirmed(self, command: Command) -> dict[str, object]:
        was = command["ch"] in nacked
        nacked.discard(command["ch"])
        return {"nacked": int(was)}

    def get(self, command: Command) -> dict[str, object]:
        got = channels[command["ch"]].basic_get(command["queue"], auto_ack=on(command, "no_ack"))
        if got[0] is None:
            return {"empty": 1}
        return delivery(*got) | {"messages": got[0].message_count}

    def consume(self, command: Command) -> dict[str, object]:
        name = command["ch"]
        tag = channels[name].basic_consume(
            command["queue"],
            lambda _, method, properties, body: say(
                event="deliver", ch=name, tag=method.consumer_tag, **delivery(method, properties, body)
            ),
            auto_ack=on(command, "no_ack"),
            exclusive=on(command, "exclusive"),
            consumer_tag=command.get("tag"),
            arguments=table(command),
        )
        return {"tag": tag}

    def cancel(self, command: Command) -> None:
        channels[command["ch"]].basic_cancel(command["tag"])

    def qos(self, command: Command) -> None:
        channels[command["ch"]].basic_qos(
            prefetch_count=int(command["count"]), global_qos=on(command, "shared")
        )

    def ack(self, command: Command) -> None:
        channels[command["ch"]].basic_ack(int(command["delivery"]), on(command, "multiple"))

    def nack(self, command: Command) -> None:
        flags = on(command, "multiple"), on(command, "requeue")
        channels[command["ch"]].basic_nack(int(command["delivery"]), *flags)

    def reject(self, command: Command) -> None:
        channels[command["ch"]].basic_reject(int(command["delivery"]), on(command, "requeue"))

    def recover(self, command: Command) -> None:
        channels[command["ch"]].basic_recover(requeue=True)

    def tx_select(self, command: Command) -> None:
        channels[command["ch"]].tx_select()

    def tx_commit(self, command: Command) -> None:
        channels[command["ch"]].tx_commit()

    def tx_rollback(self, command: Command) -> None:
        channels[command["ch"]].tx_rollback()


def on(command: Command, flag: str) -> bool:
    return command.get(flag) == "1"


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def failure(error: Exception) -> dict[str, object]:
    code, text = getattr(error, "reply_code", 0), getattr(error, "reply_text", repr(error))
    return {"error": "error", "code": code, "text": text}


def attend() -> None:
    """Let the connections work; say which ended, and which channels did."""
    for name, connection in list(connections.items()):
        try:
            connection.process_data_events(0.002)
        except exceptions.AMQPError as error:
            del connections[name]
            say(event="disconnected", c=name, **failure(error))
    for name, channel in list(channels.items()):
        if channel.is_closed:
            del channels[name]
            # pika raises it from the channel's next call only, and keeps it here.
            reason = channel._closing_reason
            if isinstance(reason, exceptions.ChannelClosedByBroker):
                say(event="closed", ch=name, **failure(reason))


def main() -> None:
    """Carry out what stdin says, until it ends."""
    commands: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            commands.put(line.strip())
        commands.put(None)

    threading.Thread(target=read, daemon=True).start()
    verbs = Verbs()
    while True:
        try:
            line = commands.get(timeout=0.002 if connections else None)
        except queue.Empty:
            attend()
            continue
        if line is None:
            return
        command = dict(parse_qsl(line, keep_blank_values=True))
        try:
            answer = getattr(verbs, command["do"])(command) or {}
        except Exception as error:
            answer = failure(error)
        say(re=command["id"], **answer)


if __name__ == "__main__":
    main()
