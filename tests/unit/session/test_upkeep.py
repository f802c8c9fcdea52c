"""What a queue's settings ask of its leader: every rule, on a log that commits what is proposed."""

from __future__ import annotations

import pytest

from brokers.engine.core.amqp.properties import BasicProperties, decode_properties, encode_header
from brokers.engine.core.model import entries
from brokers.engine.core.model.entries import Messages
from brokers.engine.core.model.intervals import runs
from brokers.engine.core.model.queue_settings import QueueSettings, settings
from brokers.engine.core.model.queue_state import QueueState
from brokers.engine.core.session import messages as m
from brokers.engine.core.session.leader import ACK, REJECT, REQUEUE, QueueLeader
from brokers.engine.core.session.upkeep import NEVER, Letter

NODE = 1
DLX = {"x-dead-letter-exchange": "dlx"}


class Queue:
    """A queue and its leader; what is proposed is committed at once. ``now`` is the wall clock."""

    def __init__(self, **arguments: object) -> None:
        self.now = 1_000_000
        self.settings: QueueSettings = settings(
            {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}, "classic"
        )
        self.log: dict[int, bytes] = {}
        self.index = 1
        self.serial = 0
        self.state = QueueState()
        self.term = 0
        self.settles = 0
        self.outbox: list[m.Message] = []
        self.fail_over()

    def fail_over(self) -> None:
        """Another leader takes over, with a state restored from a snapshot."""
        self.state = QueueState.load(self.state.dump())
        self.term += 1
        self.index += 1
        self.state.open_term(self.index)
        self.leader = QueueLeader(1, self.term, self.state, [], self.read, self.settings, self.now)
        self.work()

    def read(self, index: int) -> Messages:
        return Messages(self.log[index])

    def work(self) -> None:
        """Turns until there is nothing more to do."""
        for _ in range(100):
            more = self.leader.pump(self.now)
            proposals = self.leader.take_proposals(self.now)
            for payload, answers in proposals:
                self.index += 1
                self.log[self.index] = payload
                self.leader.proposed(self.index, answers)
                self.leader.applied(self.index, self.state.apply(self.index, payload))
            self.outbox += [message for _, message in self.leader.out]
            self.leader.out = []
            if not more and not proposals:
                return
        raise AssertionError("the queue does not come to rest")

    def wait(self, milliseconds: int) -> None:
        """Time goes by; the leader is woken when it asked to be."""
        end = self.now + milliseconds
        while self.leader.upkeep.due <= end:
            self.now = max(self.now, self.leader.upkeep.due)
            self.work()
        self.now = end

    def publish(self, *bodies: bytes, expiration: str | None = None) -> None:
        """One batch."""
        parts: list[bytes] = []
        ends: list[int] = []
        flags = size = 0
        for body in bodies:
            header = encode_header(BasicProperties(expiration=expiration), len(body))
            flags |= int.from_bytes(header[12:14], "big")
            route = b"\x00\x01q"
            parts.append(entries.message_prefix(route, header) + route + header + body)
            size += len(parts[-1])
            ends.append(size)
        self.serial += 1
        batch = entries.encode_batch(7, self.serial, ends, parts, flags, sum(map(len, bodies)))
        self.leader.receive(NODE, m.Publish(1, batch))
        self.work()

    def consume(self, number: int = 1, credit: int = 100, *, order: int = 0) -> None:
        attach = m.Attach(1, number, credit, False, False, False, order > 0, False, 0, order, [])
        self.leader.receive(NODE, attach)
        self.work()

    def settle(self, outcome: int, *positions: int, consumer: int = 1) -> None:
        self.settles += 1
        self.leader.receive(NODE, m.Settle(1, self.settles, consumer, outcome, runs(sorted(positions))))
        self.work()

    def delivered(self, consumer: int = 1) -> list[int]:
        """The positions handed to a consumer since the last look."""
        found: list[int] = []
        for message in self.outbox:
            if isinstance(message, m.Deliver) and message.consumer == consumer:
                for first, _, ends, _ in message.pieces:
                    found += range(first, first + len(ends))
        self.outbox = [
            message
            for message in self.outbox
            if not (isinstance(message, m.Deliver) and message.consumer == consumer)
        ]
        return found

    def letters(self) -> list[Letter]:
        return self.leader.upkeep.take_letters()

    def bury(self, letters: list[Letter]) -> None:
        self.leader.upkeep.buried([letter.position for letter in letters if letter.position is not None])
        self.work()

    @property
    def ready(self) -> int:
        return self.leader.dispatcher.ready


def bodies(letters: list[Letter]) -> list[bytes]:
    return [letter.body for letter in letters]


# Expiry


def test_queue_ttl_drops_from_the_head() -> None:
    queue = Queue(message_ttl=100)
    queue.publish(b"a", b"b")
    queue.now += 50
    queue.publish(b"c")
    assert queue.leader.upkeep.due == queue.now + 50
    queue.wait(50)
    assert (queue.ready, queue.state.messages) == (1, 1)
    queue.wait(50)
    assert queue.state.messages == 0
    assert queue.leader.upkeep.due == NEVER


def test_what_is_held_does_not_expire_but_does_when_it_comes_back() -> None:
    queue = Queue(message_ttl=100)
    queue.publish(b"a")
    queue.consume()
    assert queue.delivered() == [0]
    queue.wait(500)
    assert queue.state.messages == 1
    queue.settle(REQUEUE, 0)
    assert queue.delivered() == []
    assert queue.state.messages == 0


def test_expiration_counts_when_the_message_reaches_the_head() -> None:
    queue = Queue()
    queue.publish(b"stays")
    queue.publish(b"goes", expiration="100")
    queue.wait(1000)
    assert queue.state.messages == 2
    queue.consume(credit=1)
    assert queue.delivered() == [0]
    queue.wait(0)
    assert queue.state.messages == 1


def test_the_lower_of_ttl_and_expiration() -> None:
    queue = Queue(message_ttl=100)
    queue.publish(b"long", expiration="1000")
    queue.wait(100)
    assert queue.state.messages == 0
    queue.publish(b"short", expiration="10")
    queue.wait(10)
    assert queue.state.messages == 0


@pytest.mark.parametrize("zero", ["queue", "message"])
def test_zero_is_for_whoever_waits(zero: str) -> None:
    queue = Queue(message_ttl=0) if zero == "queue" else Queue()
    expiration = "0" if zero == "message" else None
    queue.publish(b"nobody waits", expiration=expiration)
    assert queue.state.messages == 0
    queue.consume(credit=1)
    queue.publish(b"somebody does", b"but for one only", expiration=expiration)
    assert len(queue.delivered()) == 1
    assert (queue.ready, queue.state.messages) == (0, 1)


def test_expired_messages_are_not_handed_out_even_before_the_timer() -> None:
    queue = Queue()
    queue.publish(b"a", b"b", expiration="10")
    queue.publish(b"c")
    queue.now += 1000
    queue.consume()
    assert queue.delivered() == [2]


def test_a_long_expired_backlog_goes_in_turns() -> None:
    queue = Queue(message_ttl=10)
    for _ in range(200):
        queue.publish(b"x", b"y")
    queue.now += 5
    queue.publish(b"young")
    queue.now += 6
    queue.consume()
    assert queue.delivered() == [400]


def test_expiry_after_a_fail_over_counts_from_the_publish() -> None:
    queue = Queue(message_ttl=100, **{"dead-letter-exchange": "dlx"})
    queue.publish(b"a")
    queue.now += 60
    queue.fail_over()
    assert queue.leader.upkeep.due == queue.now + 40
    queue.wait(40)
    assert [(letter.body, letter.outcome.name) for letter in queue.letters()] == [(b"a", "EXPIRE")]


def test_a_snapshot_knows_that_messages_expire() -> None:
    queue = Queue()
    queue.publish(b"a", expiration="100")
    queue.fail_over()
    queue.wait(100)
    assert queue.state.messages == 0


def test_of_what_came_back_the_rest_stays_redelivered() -> None:
    queue = Queue(message_ttl=100)
    queue.publish(b"old")
    queue.now += 50
    queue.publish(b"young")
    queue.consume(credit=2)
    assert queue.delivered() == [0, 1]
    queue.leader.receive(NODE, m.Detach(1, 1, True))
    queue.work()
    queue.wait(50)
    assert (queue.ready, queue.state.messages) == (1, 1)
    queue.consume(2)
    (deliver,) = [x for x in queue.outbox if isinstance(x, m.Deliver)]
    assert [(first, redelivered) for first, redelivered, _, _ in deliver.pieces] == [(1, True)]


# Dead letters


def rejected(queue: Queue, *positions: int) -> None:
    queue.consume()
    queue.settle(REJECT, *positions)


def test_the_queue_lets_go_when_the_letter_is_safe() -> None:
    queue = Queue(dead_letter_exchange="dlx")
    queue.publish(b"a", b"b", b"c")
    rejected(queue, 0, 2)
    queue.settle(ACK, 1)
    letters = queue.letters()
    assert bodies(letters) == [b"a", b"c"]
    assert (queue.ready, queue.state.messages) == (0, 2)
    assert queue.letters() == []
    queue.bury(letters)
    assert queue.state.messages == 0
    assert queue.state.dying == {}


def test_without_an_exchange_it_lets_go_at_once() -> None:
    queue = Queue()
    queue.publish(b"a")
    rejected(queue, 0)
    assert queue.letters() == []
    assert queue.state.messages == 0


def test_a_new_leader_goes_on_with_what_is_dying_and_hands_none_of_it_out() -> None:
    queue = Queue(dead_letter_exchange="dlx")
    queue.publish(b"a", b"b", b"c")
    rejected(queue, 0, 1)
    before = queue.letters()
    queue.fail_over()
    queue.outbox.clear()
    queue.consume()
    assert queue.delivered() == [2]
    letters = queue.letters()
    assert [(x.body, x.stamp) for x in letters] == [(x.body, x.stamp) for x in before]
    queue.bury(letters)
    queue.settle(ACK, 2)
    assert queue.state.messages == 0


def test_a_late_settlement_of_a_dying_message_changes_nothing() -> None:
    queue = Queue(dead_letter_exchange="dlx")
    queue.publish(b"a", b"b")
    rejected(queue, 0)
    queue.settle(ACK, 0)
    assert (queue.ready, queue.state.messages, len(queue.state.dying)) == (0, 2, 1)
    queue.bury(queue.letters())
    assert queue.state.messages == 1
    assert queue.leader.dispatcher.settling == 0


def test_no_more_than_a_window_is_under_way() -> None:
    queue = Queue(dead_letter_exchange="dlx")
    queue.publish(*[b"x"] * 3000)
    queue.consume(credit=3000)
    queue.settle(REJECT, *range(3000))
    first = queue.letters()
    assert len(first) == 1024
    queue.bury(first[:500])
    assert len(queue.letters()) == 500


def test_what_found_no_room_is_tried_again() -> None:
    queue = Queue(dead_letter_exchange="dlx")
    queue.publish(b"a")
    rejected(queue, 0)
    queue.letters()
    queue.leader.upkeep.put_off([0], 1000)
    queue.work()
    assert queue.letters() == []
    queue.wait(1000)
    assert bodies(queue.letters()) == [b"a"]


def test_dying_messages_lose_their_exchange_by_a_new_policy() -> None:
    queue = Queue(dead_letter_exchange="dlx")
    queue.publish(b"a")
    rejected(queue, 0)
    queue.leader.upkeep.configure(settings({}, "classic"))
    assert queue.letters() == []
    queue.work()
    assert queue.state.messages == 0


# Limits of length


def test_drop_head() -> None:
    queue = Queue(max_length=3, dead_letter_exchange="dlx")
    queue.publish(b"a", b"b")
    queue.publish(b"c", b"d", b"e")
    assert (queue.ready, bodies(queue.letters())) == (3, [b"a", b"b"])


def test_only_what_is_ready_counts() -> None:
    queue = Queue(max_length=1)
    queue.publish(b"a")
    queue.consume(credit=1)
    queue.publish(b"b")
    assert queue.state.messages == 2
    queue.settle(REQUEUE, 0)
    # It came back to the head, and the consumer had credit for it again.
    assert queue.delivered() == [0, 0]
    queue.publish(b"c")
    assert (queue.ready, queue.state.messages) == (1, 2)


def test_length_zero_is_for_whoever_waits() -> None:
    queue = Queue(max_length=0)
    queue.publish(b"a")
    assert queue.state.messages == 0
    queue.consume(credit=1)
    queue.publish(b"b", b"c")
    assert queue.delivered() == [1]
    assert queue.state.messages == 1


def test_reject_publish() -> None:
    queue = Queue(max_length=2, overflow="reject-publish")
    queue.publish(b"a", b"b", b"c", b"d")
    assert [x for x in queue.outbox if isinstance(x, m.Refused | m.Published)] == [
        m.Refused(1, 1, 2),
        m.Published(1, 1),
    ]
    assert queue.state.messages == 2
    queue.consume(credit=1)
    queue.settle(ACK, 0)
    queue.outbox.clear()
    queue.publish(b"e")
    assert m.Refused(1, 2, 0) not in queue.outbox


def test_refusals_are_told_again_after_a_fail_over() -> None:
    queue = Queue(max_length=1, overflow="reject-publish")
    queue.publish(b"a", b"b")
    queue.publish(b"c")
    queue.fail_over()
    queue.outbox.clear()
    empty = entries.encode_batch(7, 1, [1, 2], [b"a", b"b"])
    queue.leader.receive(NODE, m.Publish(1, empty))
    queue.work()
    assert [x for x in queue.outbox if isinstance(x, m.Refused | m.Published)] == [
        m.Refused(1, 1, 1),
        m.Refused(1, 2, 0),
        m.Published(1, 2),
    ]


def test_publishes_under_way_count() -> None:
    queue = Queue(max_length=3, overflow="reject-publish")
    for body in (b"a", b"b", b"c", b"d"):
        queue.serial += 1
        batch = entries.encode_batch(7, queue.serial, [1], [body])
        queue.leader.receive(NODE, m.Publish(1, batch))
    queue.work()
    assert queue.state.messages == 3
    assert m.Refused(1, 4, 0) in queue.outbox


def test_consumers_appetite_makes_room() -> None:
    queue = Queue(max_length=1, overflow="reject-publish")
    queue.consume(credit=10)
    queue.publish(*[b"x"] * 12)
    assert (queue.ready, len(queue.delivered())) == (1, 10)


def test_reject_publish_dlx() -> None:
    queue = Queue(max_length=1, overflow="reject-publish-dlx", dead_letter_exchange="dlx")
    queue.publish(b"a", b"b", b"c")
    letters = queue.letters()
    assert [(x.position, x.outcome.name, x.body) for x in letters] == [
        (None, "DROP", b"b"),
        (None, "DROP", b"c"),
    ]
    queue.bury(letters)
    assert queue.state.messages == 1


def test_reject_publish_dlx_without_an_exchange_only_refuses() -> None:
    queue = Queue(max_length=1, overflow="reject-publish-dlx")
    queue.publish(b"a", b"b")
    assert not queue.leader.upkeep.letters
    assert queue.letters() == []


def test_bytes_drop_head() -> None:
    queue = Queue(max_length_bytes=10)
    queue.publish(b"x" * 6)
    queue.publish(b"y" * 4)
    assert (queue.ready, queue.state.bytes) == (2, 10)
    queue.publish(b"z")
    assert (queue.ready, queue.state.bytes) == (2, 5)


def test_bytes_reject_publish() -> None:
    queue = Queue(max_length_bytes=10, overflow="reject-publish")
    queue.publish(b"x" * 6, b"y" * 4, b"z")
    assert (queue.ready, queue.state.bytes) == (2, 10)
    assert m.Refused(1, 1, 2) in queue.outbox


def test_bytes_are_exact_whatever_happens_to_messages() -> None:
    queue = Queue(max_length_bytes=1000, dead_letter_exchange="dlx")
    queue.publish(*[b"x" * n for n in range(1, 11)])
    queue.consume(credit=6)
    assert queue.leader.dispatcher.ready_bytes == 7 + 8 + 9 + 10
    queue.settle(ACK, 0)
    queue.settle(REJECT, 1)
    queue.settle(REQUEUE, 2)
    held = sorted({2, 3, 4, 5, 6, 7} & queue.leader.dispatcher.slots[NODE, 1].unsettled)
    assert queue.leader.dispatcher.ready_bytes == 55 - 1 - 2 - sum(p + 1 for p in held)
    queue.fail_over()
    assert queue.leader.dispatcher.ready_bytes == 55 - 1 - 2
    queue.bury(queue.letters())
    assert (queue.state.bytes, queue.leader.dispatcher.ready_bytes) == (52, 52)
    queue.leader.receive(NODE, m.Ask(1, 1, True))
    queue.work()
    assert (queue.state.bytes, queue.leader.dispatcher.ready_bytes) == (0, 0)
    queue.publish(b"12345")
    assert queue.leader.dispatcher.ready_bytes == 5


# Deliveries


def test_delivery_limit() -> None:
    queue = Queue(delivery_limit=2, dead_letter_exchange="dlx")
    queue.publish(b"poison", b"good")
    queue.consume(credit=1)
    for _ in range(3):
        assert queue.delivered() == [0]
        queue.settle(REQUEUE, 0)
    assert queue.delivered() == [1]
    letters = queue.letters()
    assert [(x.body, x.outcome.name) for x in letters] == [(b"poison", "LIMIT")]
    queue.bury(letters)
    queue.publish(b"more")
    assert (queue.ready, queue.leader.dispatcher.waiting) == (1, 0)


def test_consumers_that_leave_count_too() -> None:
    queue = Queue(delivery_limit=0)
    queue.publish(b"poison")
    queue.consume()
    queue.leader.receive(NODE, m.Detach(1, 1, True))
    queue.work()
    assert queue.state.messages == 0
    assert queue.ready == 0


def test_delivery_count_is_in_the_header() -> None:
    queue = Queue(delivery_limit=5)
    queue.publish(b"a", b"b")
    queue.consume()
    queue.outbox.clear()
    queue.settle(REQUEUE, 0)
    queue.settle(REQUEUE, 0)
    (deliver,) = [x for x in queue.outbox if isinstance(x, m.Deliver)][-1:]
    ((first, redelivered, ends, data),) = deliver.pieces
    ((_, header, body),) = entries.split(ends, data)
    assert (first, redelivered, body) == (0, True, b"a")
    assert decode_properties(header).headers == {"x-delivery-count": 2}


def test_what_waits_for_its_count_can_still_be_settled() -> None:
    queue = Queue(delivery_limit=5)
    queue.publish(b"a")
    queue.consume()
    queue.leader.receive(NODE, m.Detach(1, 1, True))
    queue.leader.receive(NODE, m.Settle(1, 1, 1, ACK, [(0, 1)]))
    queue.work()
    assert (queue.ready, queue.state.messages) == (0, 0)
    queue.consume(2)
    assert queue.delivered(2) == []


# Retries


@pytest.fixture
def retrying() -> Queue:
    queue = Queue(retry_attempts=2, retry_backoff="100,300", dead_letter_exchange="dlx")
    queue.publish(b"a", b"b")
    queue.consume(credit=1)
    assert queue.delivered() == [0]
    return queue


def test_rejected_messages_come_back_after_a_while_and_then_die(retrying: Queue) -> None:
    queue = retrying
    queue.settle(REJECT, 0)
    assert queue.delivered() == [1]
    queue.settle(ACK, 1)
    assert queue.ready == 0
    queue.wait(99)
    assert queue.delivered() == []
    queue.wait(1)
    assert queue.delivered() == [0]
    queue.settle(REJECT, 0)
    queue.wait(299)
    assert queue.delivered() == []
    queue.wait(1)
    assert queue.delivered() == [0]
    queue.settle(REJECT, 0)
    assert [(x.body, x.outcome.name) for x in queue.letters()] == [(b"a", "REJECT")]


def test_retries_survive_a_fail_over(retrying: Queue) -> None:
    queue = retrying
    queue.settle(REJECT, 0)
    queue.now += 40
    queue.fail_over()
    queue.outbox.clear()
    queue.consume()
    assert queue.delivered() == [1]
    queue.wait(59)
    assert queue.delivered() == []
    queue.wait(1)
    assert queue.delivered() == [0]
    queue.settle(REJECT, 0)
    queue.now += 1000
    queue.fail_over()
    queue.consume()
    assert queue.delivered() == [0, 1]
    queue.settle(REJECT, 0)
    assert bodies(queue.letters()) == [b"a"]


def test_what_waits_for_its_retry_can_still_be_settled(retrying: Queue) -> None:
    queue = retrying
    queue.settle(REJECT, 0)
    queue.settle(ACK, 0)
    queue.settle(ACK, 1)
    assert (queue.state.messages, queue.leader.dispatcher.waiting) == (0, 0)
    queue.wait(200)
    assert queue.delivered() == [1]


def test_requeueing_uses_up_no_attempt(retrying: Queue) -> None:
    queue = retrying
    for _ in range(5):
        queue.settle(REQUEUE, 0)
        assert queue.delivered() == [0]
    queue.settle(REJECT, 0)
    assert queue.letters() == []


def test_retries_do_not_count_against_the_delivery_limit() -> None:
    queue = Queue(retry_attempts=3, retry_backoff="1", delivery_limit=1, dead_letter_exchange="dlx")
    queue.publish(b"a")
    queue.consume()
    for _ in range(3):
        queue.settle(REJECT, 0)
        queue.wait(1)
    assert queue.state.counts == {0: 3}
    queue.settle(REQUEUE, 0)
    assert queue.state.dying == {}
    queue.settle(REQUEUE, 0)
    assert len(queue.state.dying) == 1


def test_a_purge_leaves_what_waits_for_its_retry(retrying: Queue) -> None:
    queue = retrying
    queue.settle(REJECT, 0)
    queue.settle(ACK, 1)
    queue.publish(b"c")
    queue.settle(ACK, 2)
    queue.leader.receive(NODE, m.Ask(1, 1, True))
    queue.work()
    assert queue.state.messages == 1
    queue.wait(100)
    assert queue.delivered()[-1] == 0


# Use and consumers


def test_unused_for_too_long() -> None:
    queue = Queue(expires=100)
    queue.wait(99)
    assert not queue.leader.upkeep.outlived
    queue.leader.receive(NODE, m.Ask(1, 1, False))
    queue.work()
    queue.wait(99)
    queue.leader.receive(NODE, m.Get(1, 5, True))
    queue.work()
    queue.wait(99)
    assert not queue.leader.upkeep.outlived
    queue.wait(1)
    assert queue.leader.upkeep.outlived


def test_consumers_keep_it_until_the_last_one_leaves() -> None:
    queue = Queue(expires=100)
    queue.consume()
    queue.wait(10_000)
    assert not queue.leader.upkeep.outlived
    queue.leader.receive(NODE, m.Detach(1, 1, True))
    queue.work()
    queue.wait(99)
    assert not queue.leader.upkeep.outlived
    queue.wait(1)
    assert queue.leader.upkeep.outlived


def test_single_active_consumer() -> None:
    queue = Queue(single_active_consumer=True)
    for number in (1, 2, 3):
        queue.consume(number, credit=2)
    queue.publish(b"a", b"b", b"c")
    assert (queue.delivered(1), queue.delivered(2)) == ([0, 1], [])
    queue.leader.receive(NODE, m.Detach(1, 1, False))
    queue.work()
    assert (queue.delivered(2), queue.delivered(3)) == ([2], [])


def test_the_active_consumer_stays_so_under_a_new_leader() -> None:
    queue = Queue(single_active_consumer=True)
    queue.consume(1)
    queue.consume(2)
    orders = {x.consumer: x.order for x in queue.outbox if isinstance(x, m.Attached)}
    queue.fail_over()
    queue.consume(3)
    queue.consume(2, order=orders[2])
    queue.consume(1, order=orders[1])
    queue.publish(b"a")
    assert queue.delivered(1) == [0]


def test_settings_may_change_at_any_time() -> None:
    queue = Queue()
    queue.publish(b"aa", b"b", b"c")
    queue.leader.upkeep.configure(settings({}, "classic", {"max-length": 2, "max-length-bytes": 1}))
    queue.work()
    assert (queue.ready, queue.state.bytes) == (1, 1)
    queue.leader.upkeep.configure(settings({}, "classic"))
    queue.publish(b"d", b"e")
    assert queue.ready == 3


def test_idle_queues_without_settings_ask_for_nothing() -> None:
    queue = Queue()
    queue.publish(b"a")
    assert queue.leader.upkeep.due == NEVER
