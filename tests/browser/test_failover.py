"""Watching a queue and failing it over, in a real browser, on a real cluster, while a program publishes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.conftest import Console, sign_in
from tests.browser.traffic import Publisher, declare, drain


def wait_for(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def depth(page: Page) -> int:
    return int(page.locator("#queue-messages").inner_text().replace(",", ""))


def leader(page: Page) -> str:
    return page.locator("#replicas tbody tr", has_text="leader").locator("th").inner_text()


def open_queue(page: Page, console: Console, name: str) -> None:
    page.get_by_role("link", name="Queues", exact=True).click()
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    # What a reload would take away: the page must change in place from here on.
    page.locator("#queue-figures").evaluate("element => { element.marked = true }")


def was_not_reloaded(page: Page) -> bool:
    marked: bool = page.locator("#queue-figures").evaluate("element => element.marked === true")
    return marked


def test_fail_over_while_a_program_publishes(console: Console, page: Page) -> None:
    cluster = console.cluster
    declare(cluster.node("node1").amqp, "orders")
    first = cluster.leader("orders")
    elsewhere = cluster.node(next(name for name in cluster.names if name != first)).amqp
    sign_in(page, console, "operator")
    open_queue(page, console, "orders")

    with Publisher(elsewhere, "orders") as publisher:
        for _ in range(3):
            shown = depth(page)
            wait_for(lambda shown=shown: depth(page) > shown, "the depth moves by itself")  # type: ignore[misc]  # a bool all the same
        expect(page.locator("#queue-figures")).not_to_contain_text("Published 0/s")
        assert leader(page) == first

        page.locator("#failover").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_text(f"Leadership moves from {first} to ")).to_be_visible()
        expect(dialog.get_by_text("No confirmed message is lost")).to_be_visible()
        target = dialog.locator("input[name=target]").last
        target.check()
        chosen = target.get_attribute("value")
        expect(dialog.get_by_text(f"Leadership moves from {first} to {chosen}")).to_be_visible()
        dialog.get_by_label("Reason").fill("a rehearsal")
        before = len(publisher.confirmed)
        dialog.get_by_role("button", name="Fail over").click()
        result = rf"{chosen} leads now, after {first}\. The queue was unavailable for [\d.]+ m?s"
        expect(dialog.get_by_text(re.compile(result))).to_be_visible()
        dialog.get_by_role("button", name="Close").click()
        expect(dialog).to_be_hidden()

        expect(page.locator("#last-failover")).to_contain_text(f"{first} → {chosen}")
        expect(page.locator("#last-failover")).to_contain_text(re.compile(r"unavailable for [\d.]+ (ms|s)"))
        expect(page.locator("#queue-operations")).to_contain_text(f"{chosen} leads now")
        assert leader(page) == chosen
        wait_for(lambda: len(publisher.confirmed) > before + 100, "the publisher goes on")
        assert was_not_reloaded(page)

    assert publisher.error is None
    assert cluster.leader("orders") == chosen
    received = drain(cluster.node("node1").amqp, "orders")
    assert set(publisher.confirmed) <= set(received)
    assert received == sorted(received)
    expect(page.locator("#queue-messages")).to_have_text("0")

    page.get_by_role("link", name="Operations", exact=True).click()
    row = page.locator("#operation-rows tbody tr").first
    expect(row).to_contain_text("Failover of orders")
    expect(row).to_contain_text("operator")
    expect(row).to_contain_text("a rehearsal")


def test_a_killed_leader_and_its_return_are_seen_live(console: Console, page: Page) -> None:
    cluster = console.cluster
    declare(cluster.node("node1").amqp, "payments")
    first = cluster.leader("payments")
    survivor = next(name for name in cluster.names if name != first)
    sign_in(page, console, "viewer")
    open_queue(page, console, "payments")

    with Publisher(cluster.node(survivor).amqp, "payments") as publisher:
        wait_for(lambda: depth(page) > 20, "messages arrive")
        cluster.kill(first)
        lost = page.locator("#replicas tbody tr", has=page.get_by_text(first, exact=True))
        expect(lost).to_contain_text("down")
        expect(page.locator("#last-failover")).to_contain_text(f"{first} → ")
        expect(page.locator("#last-failover")).to_contain_text(re.compile(r"unavailable for [\d.]+ (ms|s)"))
        before = len(publisher.confirmed)
        wait_for(lambda: len(publisher.confirmed) > before + 100, "the publisher goes on")

        cluster.start_node(first)
        expect(lost).to_contain_text("follower")
        expect(page.locator("#queue-state")).to_contain_text("running")
        assert was_not_reloaded(page)

    assert publisher.error is None
    assert set(publisher.confirmed) <= set(drain(cluster.node(survivor).amqp, "payments"))


def test_the_overview_says_what_is_wrong_and_when_it_is_over(console: Console, page: Page) -> None:
    sign_in(page, console, "viewer")
    verdict = page.locator("#verdict")
    expect(verdict).to_contain_text("All is well")
    console.cluster.kill("node2")
    expect(verdict).to_contain_text("node2")
    expect(verdict).to_contain_text("is down. 2 of 3 nodes run")
    console.cluster.start_node("node2")
    expect(verdict).to_contain_text("All is well")


def test_a_lost_web_server_is_said_and_the_page_catches_up(console: Console, page: Page) -> None:
    port = console.cluster.node("node1").amqp
    declare(port, "letters")
    sign_in(page, console, "viewer")
    open_queue(page, console, "letters")
    banner = page.locator("#socket")
    expect(banner).to_be_hidden()
    console.kill()
    expect(banner).to_contain_text("connection to the console is lost")
    with Publisher(port, "letters") as publisher:
        wait_for(lambda: len(publisher.confirmed) >= 50, "messages arrive unseen")
    console.start()
    expect(banner).to_be_hidden()
    expect(page.locator("#queue-messages")).to_have_text(f"{len(publisher.confirmed)}")
    assert was_not_reloaded(page)


def test_focus_and_selection_survive_live_updates(console: Console, page: Page) -> None:
    port = console.cluster.node("node1").amqp
    declare(port, "focus")
    sign_in(page, console, "viewer")
    page.goto(f"{console.url}/clusters/local/queues/?q=focus")
    link = page.get_by_role("link", name="focus", exact=True)
    link.focus()
    cell = page.locator("#queue-rows td.num").first
    with Publisher(port, "focus"):
        expect(cell).not_to_have_text("0")
        shown = cell.inner_text()
        expect(cell).not_to_have_text(shown)
    expect(link).to_be_focused()


def test_search_as_you_type_keeps_the_field_and_follows_the_results(console: Console, page: Page) -> None:
    port = console.cluster.node("node1").amqp
    for name in ("zebra.one", "zebra.two"):
        declare(port, name)
    sign_in(page, console, "viewer")
    page.get_by_role("link", name="Queues", exact=True).click()
    rows = page.locator("#queue-rows tr")
    # A key pressed before the page is there goes to the page before.
    expect(page.get_by_role("heading", name="Queues", exact=True)).to_be_visible()
    page.locator("html[data-socket=open]").wait_for(state="attached")
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("zebra")
    expect(rows).to_have_count(2)
    page.keyboard.type(".t")
    expect(rows).to_have_count(1)
    expect(page.locator("#search")).to_be_focused()
    expect(page).to_have_url(re.compile(r"\?q=zebra.t"))
    # Live updates now follow the new view.
    with Publisher(port, "zebra.two"):
        expect(rows.locator("td.num").first).not_to_have_text("0")
    declare(port, "zebra.three")
    expect(rows).to_have_count(2)


def test_signing_out_closes_other_pages(console: Console, page: Page) -> None:
    sign_in(page, console, "viewer")
    other = page.context.new_page()
    other.goto(f"{console.url}/clusters/local/nodes/")
    page.get_by_role("button", name="Sign out").click()
    expect(other.locator("#socket")).to_contain_text("You were signed out", timeout=5_000)
    other.get_by_role("link", name="Reload").click()
    expect(other.get_by_role("button", name="Sign in")).to_be_visible()
