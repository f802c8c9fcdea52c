"""Dead letters in a real browser: looked at, sent back by real workers, one of which is killed on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pika
from playwright.sync_api import Page, expect

from mqconsole.supervisor.program import PROJECT_ROOT, end_with_parent
from tests.browser.conftest import Console, sign_in

EVIL = "<img src=x onerror=\"document.title='owned'\">"
COUNT = 120


def fill(console: Console) -> None:
    """Dead letters of two causes."""
    port = console.cluster.node("node1").amqp
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port)) as connection:
        channel = connection.channel()
        channel.queue_declare("crates.dead", durable=True)
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "crates.dead"}
        channel.queue_declare("crates", durable=True, arguments=arguments)
        channel.confirm_delivery()
        for n in range(COUNT):
            error = f"crate {n} is lost" if n else EVIL
            properties = pika.BasicProperties(headers={"x-exception": error}, message_id=str(n))
            channel.basic_publish("", "crates", f'{{"crate": {n}}}'.encode() if n else EVIL, properties)
        for method, _, _ in channel.consume("crates"):
            channel.basic_reject(method.delivery_tag, requeue=False)
            if method.delivery_tag == COUNT:
                break
        channel.cancel()


def message_ids(console: Console) -> list[int]:
    """What lies in the queue that the dead letters came from."""
    rows = console.cluster.control.call("peek", {"name": "crates", "count": 2 * COUNT})["messages"]
    return [int(row["properties"]["message_id"]) for row in rows]


def start_worker(console: Console, folder: Path) -> subprocess.Popen[bytes]:
    """A Celery worker with its own beat."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "celery", "--app", "mqconsole.celery:app", "worker", "--beat"),
            *("--pool", "solo", "--schedule", str(folder / "schedule"), "--loglevel", "WARNING"),
        ],
        cwd=PROJECT_ROOT,
        env=console.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=end_with_parent(),
    )


def test_dead_letters_are_sent_back_although_a_worker_dies(
    console: Console, page: Page, tmp_path: Path
) -> None:
    fill(console)
    sign_in(page, console, "operator")
    page.get_by_role("link", name="Dead letters", exact=True).click()
    page.get_by_role("link", name="crates.dead", exact=True).click()
    groups = page.locator("#dead-letter-groups tbody tr")
    expect(groups).to_have_count(2)
    expect(groups.first).to_contain_text("crate # is lost")
    expect(groups.nth(1)).to_contain_text(EVIL)
    groups.nth(1).get_by_role("link", name="Look").click()
    page.get_by_role("link", name="0", exact=True).click()
    expect(page.locator(".message pre").first).to_be_attached()
    expect(page.get_by_text(EVIL).first).to_be_visible()
    assert "owned" not in page.title()
    page.get_by_role("link", name="crates.dead", exact=True).click()

    worker = start_worker(console, tmp_path)
    try:
        page.locator("#redrive-all").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_text(f"{COUNT} messages in crates.dead: sent back")).to_be_visible()
        dialog.get_by_label("Messages a second at most").fill("40")
        dialog.get_by_role("button", name="Redrive").click()
        dialog.get_by_role("link", name="Watch it").click()
        expect(page.locator("#operation")).to_contain_text("sent on", timeout=60_000)
    finally:
        worker.kill()
        worker.wait()
    console.cluster.wait_for(lambda: len(message_ids(console)) > 0, "some were sent")
    assert len(message_ids(console)) < COUNT
    worker = start_worker(console, tmp_path)
    try:
        expect(page.locator("#operation")).to_contain_text(f"{COUNT} messages were sent on.", timeout=60_000)
    finally:
        worker.kill()
        worker.wait()
    assert sorted(message_ids(console)) == list(range(COUNT))
