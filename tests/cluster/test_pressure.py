"""Short of memory or disk, or faced with a consumer that does not read: publishers wait, nothing is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest

from tests.bench.rawclient import RawClient
from tests.cluster.harness import Cluster

QUEUE = "pressed"


def alarms(cluster: Cluster) -> set[str]:
    return {alarm for node in cluster.snapshot()["nodes"] for alarm in node["alarms"] or ()}


def memory(cluster: Cluster, name: str) -> int:
    rows = cluster.snapshot(name)["nodes"]
    return int(next(row["memory"] for row in rows if row["name"] == name))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 MB of its own (a loop-mounted file: real blocks, real ENOSPC)."""
    image, mount = tmp_path / "disk.img", tmp_path / "disk"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop", str(image), str(mount)], capture_output=True, check=False
    )
    if mounted.returncode and not os.environ.get("CI"):
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode()}")
    assert mounted.returncode == 0, mounted.stderr.decode()
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")
def test_low_disk_blocks_publishers_until_there_is_room(
    make_cluster: Callable[..., Cluster], small_disk: Path
) -> None:
    limit = 60 << 20
    cluster = make_cluster(env={"MQ_DISK_FREE_LIMIT": str(limit)}, home=small_disk / "home").start()
    port = cluster.node("node1").amqp
    publisher = RawClient(port)
    publisher.declare(QUEUE)
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - limit // 2)
    cluster.wait_for(lambda: "disk" in alarms(cluster), "the disk alarm is raised")

    blocked: list[str] = []
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    connection.add_on_connection_blocked_callback(lambda _, frame: blocked.append(frame.method.reason))
    unblocked: list[bool] = []
    connection.add_on_connection_unblocked_callback(lambda _, frame: unblocked.append(True))
    channel = connection.channel()
    channel.basic_publish("", QUEUE, b"first")
    cluster.wait_for(lambda: connection.process_data_events(0.05) or blocked, "the publisher is told")
    assert "disk" in blocked[0]

    reader = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port)).channel()
    cluster.wait_for(lambda: reader.basic_get(QUEUE, auto_ack=True)[0], "others still get and acknowledge")

    ballast.unlink()
    cluster.wait_for(lambda: not alarms(cluster), "the alarm is over")
    cluster.wait_for(lambda: connection.process_data_events(0.05) or unblocked, "the publisher goes on")
    channel.confirm_delivery()
    channel.basic_publish("", QUEUE, b"second")


def test_memory_alarm_blocks_publishers_everywhere(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(env={"MQ_MEMORY_LIMIT": str(1 << 20)}).start()
    cluster.wait_for(lambda: "memory" in alarms(cluster), "the alarm is raised")
    client = RawClient(cluster.node("node2").amqp)
    client.declare(QUEUE)
    client.confirm()
    client.socket.sendall(client.publish_frames(QUEUE, b"x"))
    client.expect(60, 80)
    cluster.wait_for(lambda: _held(client), "the connection is not read any more")


def _held(client: RawClient) -> bool:
    """Whether the broker has stopped reading: a publish does not come back confirmed."""
    client.socket.settimeout(1)
    client.socket.sendall(client.publish_frames(QUEUE, b"x"))
    try:
        client.expect(60, 80)
    except TimeoutError:
        return True
    return False


def test_consumer_that_does_not_read_costs_no_memory(cluster: Cluster) -> None:
    """No prefetch limit, large messages, and a socket that nobody reads."""
    size, count = 256 * 1024, 600
    publisher = RawClient(cluster.node("node1").amqp)
    publisher.declare(QUEUE)
    publisher.confirm()
    lazy = RawClient(cluster.node("node2").amqp)
    lazy.consume(QUEUE, 0)
    before = {name: memory(cluster, name) for name in cluster.names}
    message = publisher.publish_frames(QUEUE, b"z" * size)
    for _ in range(count):
        publisher.socket.sendall(message)
        publisher.expect(60, 80)
    cluster.wait_for(lambda: cluster.queue(QUEUE)["messages"] == count, "all are there")
    for name in cluster.names:
        grown = memory(cluster, name) - before[name]
        assert grown < 150 << 20, f"{name} grew by {grown >> 20} MiB for {size * count >> 20} MiB of backlog"


def test_backlog_larger_than_what_is_kept_in_memory_is_served_from_disk(cluster: Cluster) -> None:
    size, count = 128 * 1024, 3200
    publisher = RawClient(cluster.node("node1").amqp)
    publisher.declare(QUEUE)
    publisher.confirm()
    before = {name: memory(cluster, name) for name in cluster.names}
    message = publisher.publish_frames(QUEUE, b"z" * size)
    for _ in range(count // 100):
        publisher.socket.sendall(message * 100)
        confirmed = 0
        while confirmed < 100:
            tag = int.from_bytes(publisher.expect(60, 80)[:8], "big")
            confirmed = tag % 100 or 100
    grown = {name: memory(cluster, name) - before[name] for name in cluster.names}
    assert max(grown.values()) < 200 << 20, f"grew by {grown} for {size * count} bytes of backlog"

    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", cluster.node("node3").amqp))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=50)
    for got, (method, _, body) in enumerate(channel.consume(QUEUE), 1):
        assert len(body) == size
        channel.basic_ack(method.delivery_tag)
        if got == count:
            break
    grown = {name: memory(cluster, name) - before[name] for name in cluster.names}
    assert max(grown.values()) < 200 << 20, f"grew by {grown} while {size * count} bytes were consumed"
