"""History, replay and a drill, clicked through in a real browser on a real cluster."""

from __future__ import annotations

import pika
from playwright.sync_api import Page, expect

from tests.browser.conftest import Console, sign_in

QUEUE = "parcels"
WORK = "from brokers.operations import worker\nfor pk in worker.waiting():\n    while worker.work(pk): pass"
DRILL = (
    "from brokers.models import Operation\nfrom brokers.tasks import run_drill\n"
    "run_drill(Operation.objects.filter(kind='drill').latest('pk').pk)"
)


def fill(console: Console) -> None:
    """Thirty messages, of which twenty are acknowledged."""
    parameters = pika.ConnectionParameters("127.0.0.1", console.cluster.node("node1").amqp)
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        channel.queue_declare("parcels-again", durable=True)
        channel.confirm_delivery()
        for number in range(30):
            body = b'{"parcel": %d, "note": "<img src=x onerror=alert(1)>"}' % number
            channel.basic_publish("", QUEUE, body, pika.BasicProperties(headers={"parity": number % 2}))
        for _ in range(20):
            method, _, _ = channel.basic_get(QUEUE)
            assert method is not None
            channel.basic_ack(method.delivery_tag)


def test_history_replay_and_drill(console: Console, page: Page) -> None:
    fill(console)
    sign_in(page, console, "operator")
    page.get_by_role("link", name="Queues", exact=True).click()
    page.get_by_role("link", name=QUEUE, exact=True).click()

    page.get_by_role("link", name="History", exact=True).click()
    expect(page.locator("#time-line")).to_be_visible()
    rows = page.locator("#history-rows tbody tr")
    expect(rows).to_have_count(30)
    expect(rows.first).to_contain_text("settled")
    expect(rows.last).to_contain_text("ready")
    rows.nth(7).get_by_role("link").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text('"parcel": 7')
    expect(dialog.locator("img")).to_have_count(0)
    dialog.get_by_role("button", name="Close").click()

    page.get_by_role("link", name="Replay…").click()
    page.get_by_label("Headers").fill("parity=1")
    page.get_by_label("another queue").check()
    page.get_by_label("The other queue").fill("parcels-again")
    page.get_by_role("button", name="Show what that is").click()
    expect(page.locator("#replay-plan")).to_contain_text("15 messages")
    page.get_by_label("Reason").fill("a test")
    page.get_by_role("button", name="Replay 15 messages").click()
    page.wait_for_url("**/operations/*/")
    console.manage("shell", "--verbosity", "0", "--command", WORK)
    expect(page.get_by_text("15 messages replayed.").first).to_be_visible()
    console.cluster.wait_for(
        lambda: console.cluster.queue("parcels-again")["messages"] == 15, "they are in the other queue"
    )

    page.goto(f"{console.url}/clusters/local/queues/~2F/{QUEUE}/drill/")
    page.get_by_role("button", name="Begin the drill").click()
    page.wait_for_url("**/operations/*/")
    console.manage("shell", "--verbosity", "0", "--command", DRILL)
    expect(page.get_by_text("0 of ").first).to_be_visible()
    page.get_by_role("link", name="Drills", exact=True).click()
    expect(page.locator("#drill-trend rect")).to_have_count(1)
