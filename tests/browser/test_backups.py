"""A backup made, proven and restored in a real browser, on a real cluster."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import Console, sign_in
from tests.cluster.clients import channel_on

WORK = (
    "from brokers.models import Operation\n"
    "from brokers.operations import runner, worker\n"
    "for operation in Operation.objects.filter(kind__in=('backup', 'restore'), state='confirmed'):\n"
    "    worker.work(operation.pk, 60)\n"
    "for operation in Operation.objects.filter(kind='verify', state='confirmed'):\n"
    "    runner.run(operation)"
)


def test_back_up_verify_and_restore(console: Console, page: Page) -> None:
    with channel_on(console.cluster, "node1") as channel:
        channel.confirm_delivery()
        channel.queue_declare("saved", durable=True)
        for number in range(20):
            channel.basic_publish("", "saved", b"%d" % number)
    sign_in(page, console, "operator")
    page.get_by_role("link", name="Backups", exact=True).click()
    page.get_by_role("link", name="Back up now").click()
    page.get_by_label("Reason").fill("a test")
    page.get_by_role("button", name="Back up", exact=True).click()
    expect(page.get_by_role("heading", name="Backup of the whole cluster")).to_be_visible()
    console.manage("shell", "--verbosity", "0", "--command", WORK)
    expect(page.locator("#operation")).to_contain_text("messages of")  # by itself, through the socket

    page.get_by_role("link", name="Backups", exact=True).click()
    page.locator("#backup-rows tbody a").first.click()
    expect(page.locator("#backup")).to_contain_text("saved")
    page.get_by_role("link", name="Verify", exact=True).click()
    page.get_by_role("button", name="Verify", exact=True).click()
    console.manage("shell", "--verbosity", "0", "--command", WORK)
    expect(page.locator("#operation")).to_contain_text("came back exactly as they were")

    page.get_by_role("link", name="Backups", exact=True).click()
    expect(page.locator("#backup-point")).not_to_contain_text("never")
    page.locator("#backup-rows tbody a").first.click()
    page.get_by_role("link", name="Restore", exact=True).click()
    page.get_by_label("these queues").check()
    page.locator("label.choice", has_text=re.compile(r"^\s*saved")).get_by_role("checkbox").check()
    page.get_by_label("Put before").fill("copy.")
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("main")).to_contain_text("20 messages")
    page.get_by_label("to confirm").fill("wrong")
    page.get_by_role("button", name="Restore", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was done")
    name = page.get_by_role("alert").inner_text().split("name, ")[1].split(", to")[0]
    page.get_by_label("to confirm").fill(name)
    page.get_by_role("button", name="Restore", exact=True).click()
    console.manage("shell", "--verbosity", "0", "--command", WORK)
    expect(page.locator("#operation")).to_contain_text("20 messages are back")
    assert console.cluster.queue("copy.saved")["messages"] == 20
