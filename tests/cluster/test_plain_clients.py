"""Programs that know nothing of this project, as their authors would have written them for RabbitMQ."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster
from tests.cluster.java import CLASS_PATH, compile_java, require_java

PIKA_PROGRAM = """
import pika

connection = pika.BlockingConnection(pika.ConnectionParameters('localhost'))
channel = connection.channel()
channel.queue_declare(queue='hello')
channel.basic_publish(exchange='', routing_key='hello', body='Hello World!')
print(" [x] Sent 'Hello World!'")
connection.close()
"""

PIKA_RECEIVER = """
import pika

connection = pika.BlockingConnection(pika.ConnectionParameters('localhost'))
channel = connection.channel()
channel.queue_declare(queue='hello')

def callback(ch, method, properties, body):
    print(f" [x] Received {body}")
    ch.stop_consuming()

channel.basic_consume(queue='hello', on_message_callback=callback, auto_ack=True)
channel.start_consuming()
connection.close()
"""

JAVA_PROGRAM = """
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;

public class Send {
    public static void main(String[] argv) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost("localhost");
        try (Connection connection = factory.newConnection();
             Channel channel = connection.createChannel()) {
            channel.queueDeclare("hello", true, false, false, null);
            channel.basicPublish("", "hello", null, "Hello World!".getBytes("UTF-8"));
            System.out.println(" [x] Sent 'Hello World!'");
        }
    }
}
"""

JAVA_RECEIVER = """
import com.rabbitmq.client.*;
import java.util.concurrent.*;

public class Recv {
    public static void main(String[] argv) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost("localhost");
        try (Connection connection = factory.newConnection()) {
            Channel channel = connection.createChannel();
            channel.queueDeclare("hello", true, false, false, null);
            BlockingQueue<String> got = new LinkedBlockingQueue<>();
            channel.basicConsume("hello", true, new DefaultConsumer(channel) {
                public void handleDelivery(
                        String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body) {
                    got.add(new String(body));
                }
            });
            System.out.println(" [x] Received '" + got.poll(20, TimeUnit.SECONDS) + "'");
        }
    }
}
"""

DEFAULT_PORT = 5672
WIDTH = 3


@pytest.fixture
def port(make_cluster: Callable[..., Cluster]) -> int:
    """A cluster, on RabbitMQ's own port when nobody else has it (or any near it that the nodes need)."""
    wanted = [DEFAULT_PORT + offset + i for offset in (0, 10_000, 20_000) for i in range(WIDTH)]
    base = DEFAULT_PORT if all(map(is_free, wanted)) else None
    return make_cluster(base=base).start().config.nodes[0].amqp


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def run(*command: object) -> str:
    """What the program prints, once it ended well."""
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_a_python_program(port: int) -> None:
    def python(program: str) -> str:
        told = f"'localhost', {port}" if port != DEFAULT_PORT else "'localhost'"
        return run(sys.executable, "-c", program.replace("'localhost'", told))

    assert python(PIKA_PROGRAM) == "[x] Sent 'Hello World!'"
    assert python(PIKA_RECEIVER) == "[x] Received b'Hello World!'"


@pytest.mark.java
def test_a_java_program(port: int, tmp_path: Path) -> None:
    require_java()
    told = 'factory.setHost("localhost");'
    if port != DEFAULT_PORT:
        told += f" factory.setPort({port});"
    for name, program in (("Send", JAVA_PROGRAM), ("Recv", JAVA_RECEIVER)):
        source = tmp_path / f"{name}.java"
        source.write_text(program.replace('factory.setHost("localhost");', told))
        compile_java(source, tmp_path)
    java = (shutil.which("java"), "-cp", os.pathsep.join([str(tmp_path), CLASS_PATH]))
    assert run(*java, "Send") == "[x] Sent 'Hello World!'"
    assert run(*java, "Recv") == "[x] Received 'Hello World!'"
