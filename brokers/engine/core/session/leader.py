"""The leader of a queue: takes batches, hands out messages, turns settlements into entries.

One object a term (a leader that lost the floor and got it back starts anew): what it knows beyond the
replicated state it has from the links, who say it again after its ``Hello``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from brokers.engine.core.model import entries
from brokers.engine.core.model.death import with_delivery_count
from brokers.engine.core.model.delivery import UNBOUNDED, WINDOW_BYTES, Assignment, Slot
from brokers.engine.core.model.entries import Messages, Run, Settled
from brokers.engine.core.model.lane_delivery import dispatcher
from brokers.engine.core.model.queue_settings import DEFAULT, QueueSettings
from brokers.engine.core.model.queue_state import OutOfOrder, Published, QueueState, SettledRuns
from brokers.engine.core.session import messages as m
from brokers.engine.core.session.stream import Readers
from brokers.engine.core.session.upkeep import Upkeep

WATERMARK_STEP = 65_536
"""How far ahead of the cursor the watermark is set: one entry for that many messages."""
WATERMARK_LOW = WATERMARK_STEP // 2
"""The watermark moves again when the cursor comes this near."""
READ_AHEAD = 1 << 20
"""About how many bytes one turn hands out."""
OVERHEAD = 64
"""Bytes a message takes beyond its body, about."""

ACK, REQUEUE, REJECT = 0, 1, 2


def merge(ranges: Iterable[Run]) -> list[Run]:
    """Runs sorted, with those that touch joined."""
    merged: list[Run] = []
    for first, end in sorted(ranges):
        if merged and first <= merged[-1][1]:
            if end > merged[-1][1]:
                merged[-1] = (merged[-1][0], end)
        else:
            merged.append((first, end))
    return merged


class QueueLeader:
    """``receive`` what links send, ``applied`` what was committed; then take ``out`` and ``proposals``.

    ``read(index)`` gives the publish entry at a log index; ``now`` is the wall clock in milliseconds;
    ``again``: how often the same node has led in the same term before; all that was proposed then is applied.
    """

    def __init__(
        self,
        group: int,
        term: int,
        state: QueueState,
        nodes: Iterable[int],
        read: Callable[[int], Messages],
        settings: QueueSettings = DEFAULT,
        now: int = 0,
        *,
        again: int = 0,
    ) -> None:
        self.group = group
        self.term = term
        self.state = state
        self.dispatcher = dispatcher(state)
        if again:
            self.dispatcher.fence_off()
        self.upkeep = Upkeep(state, self.dispatcher, read)
        self.upkeep.take_over(now)
        self.upkeep.configure(settings)
        self.readers = Readers(state, read)
        self._joined = 0
        self.out: list[tuple[int, m.Message]] = []
        """Messages for nodes, in order."""
        self.deserted = False
        """The last consumer left (an auto-delete queue is then deleted)."""
        self.delivered = 0
        self.acked = 0
        self.redelivered = 0
        self._read = read
        self._awaited = set(nodes)
        """Nodes that may hold messages of an earlier leader and haven't said ``Resumed`` yet."""
        self._accepted = dict(state.origins)
        self._origin_nodes: dict[int, int] = {}
        self._to_settle: dict[Settled, list[Run]] = {}
        self._to_return: list[Run] = []
        self._to_answer: list[tuple[int, m.Message]] = []
        """Said when the settlements of this turn are committed."""
        self._late: list[tuple[int, m.Get | m.Ask]] = []
        """Requests that came after publishes not committed yet: their answers have to know of these."""
        self._batches: list[bytes] = []
        self._on_commit: dict[int, list[tuple[int, m.Message]]] = {}
        self._last_index = 0
        self._watermark_asked = state.watermark
        self._gets: list[tuple[int, m.Get]] = []
        self._asks: list[tuple[int, m.Ask]] = []
        self._published: dict[int, int] = {}
        self._hellos = again << 32
        self._deaf: dict[int, int] = {}
        """Nodes that have not answered their last hello yet, and its number: what they say is for another."""
        self._unconfirmed: dict[int, dict[tuple[int, int], bool]] = {}
        """By node: who was attached when it was greeted again, and has not been attached again since; whether
        it was a consumer or a mere holder."""
        for node in self._awaited:
            self.greet(node)

    # -- links ----------------------------------------------------------------------------------------

    def receive(self, node: int, message: m.Message) -> None:
        """A link's message from ``node``."""
        if node in self._deaf and not self._hears(node, message):
            return
        self.handlers[type(message)](self, node, message)

    def _hears(self, node: int, message: m.Message) -> bool:
        return isinstance(message, m.Resuming) and message.number == self._deaf[node]

    def greet(self, node: int) -> None:
        """``node`` came (back) into reach, or has to say again what is open."""
        self._hellos += 1
        self._deaf[node] = self._hellos
        self._drop_requests(lambda n, request: n == node)
        self.readers.remove_node(node)
        former = self._unconfirmed.setdefault(node, {})
        for key, slot in self.dispatcher.slots.items():
            if key[0] == node:
                former.setdefault(key, not slot.holder)
        for key in former:
            self.dispatcher.stop(key)
        self.out.append((node, m.Hello(self.group, self.term, self._hellos)))

    def node_down(self, node: int) -> None:
        """``node`` is gone: its consumers hold nothing any more."""
        self._awaited.discard(node)
        former = self._unconfirmed.pop(node, {})
        for key in [key for key in self.dispatcher.slots if key[0] == node]:
            self._leave(key)
        if any(former.values()):
            self._check_deserted()
        if self.readers.remove_node(node):
            self._check_deserted()
        self._drop_requests(lambda n, request: n == node)

    @property
    def awaited(self) -> frozenset[int]:
        """Nodes whose consumers' messages are not known yet; nothing is handed out before that."""
        return frozenset(self._awaited)

    def give_up(self, node: int) -> None:
        """``node`` does not say what its consumers hold: others may get it, marked as redelivered."""
        self._awaited.discard(node)

    def _drop_requests(self, unwanted: Callable[[int, m.Get | m.Ask], bool]) -> None:
        """Forget requests that nobody waits for any more, wherever they wait."""

        def wanted(entry: tuple[int, m.Message]) -> bool:
            node, message = entry
            return not (isinstance(message, m.Get | m.Ask) and unwanted(node, message))

        self._gets = list(filter(wanted, self._gets))
        self._asks = list(filter(wanted, self._asks))
        self._late = list(filter(wanted, self._late))
        for index, answers in self._on_commit.items():
            self._on_commit[index] = list(filter(wanted, answers))

    def take_proposals(self, stamp: int) -> list[tuple[bytes, list[tuple[int, m.Message]]]]:
        """Payloads to propose, in order, each with what is to be said when it is committed.

        ``stamp`` is the wall clock in milliseconds, to be kept with the messages. The caller proposes each
        and calls ``proposed``; when one is refused, this leader is over.
        """
        upkeep = self.upkeep
        proposals: list[tuple[bytes, list[tuple[int, m.Message]]]] = [
            (entries.encode_publish(stamp, batch, upkeep.admit(batch)), []) for batch in self._batches
        ]
        self._batches.clear()
        for outcome, ranges in upkeep.doomed:
            self._to_settle.setdefault(outcome, []).extend(ranges)
        upkeep.doomed.clear()
        scales = self.dispatcher.scales
        for outcome, ranges in self._to_settle.items():
            merged = merge(ranges)
            bodies = -1 if scales is None else scales.settle(merged)
            proposals.append((entries.encode_settle(outcome, merged, bodies), []))
        self._to_settle.clear()
        if self._to_return:
            limit = upkeep.settings.delivery_limit
            proposals.append((entries.encode_return(merge(self._to_return), limit, stamp), []))
            self._to_return = []
        proposals.extend((payload, []) for payload in upkeep.payloads(stamp))
        cursor = self.dispatcher.cursor
        if self._watermark_asked - cursor < WATERMARK_LOW and (self._gets or self.dispatcher.wants()):
            self._watermark_asked = cursor + WATERMARK_STEP
            proposals.append((entries.encode_watermark(self._watermark_asked), []))
        if self._to_answer:
            if proposals:
                proposals[-1][1].extend(self._to_answer)
            elif self._last_index > self.state.applied:
                self._on_commit.setdefault(self._last_index, []).extend(self._to_answer)
            else:
                self.out.extend(self._to_answer)
            self._to_answer = []
        if self._late and (proposals or self._last_index > self.state.applied):
            waiting = proposals[-1][1] if proposals else self._on_commit.setdefault(self._last_index, [])
            waiting.extend(self._late)
            self._late = []
        return proposals

    def proposed(self, index: int, answers: list[tuple[int, m.Message]]) -> None:
        """The entry at ``index`` was proposed; ``answers`` are due when it is committed."""
        self._last_index = index
        self.upkeep.proposed(index)
        if answers:
            self._on_commit[index] = answers

    def _publish(self, node: int, message: m.Publish) -> None:
        origin, serial, _ = entries.batch_identity(message.batch)
        self._origin_nodes[origin] = node
        accepted = self._accepted.get(origin, 0)
        if serial == accepted + 1:
            self._accepted[origin] = serial
            self._batches.append(message.batch)
        elif serial <= self.state.origins.get(origin, 0):
            for refused, taken in self.state.refusals.get(origin, {}).items():
                if refused >= serial:
                    self.out.append((node, m.Refused(self.group, refused, taken)))
            self.out.append((node, m.Published(self.group, self.state.origins[origin])))

    def _settle(self, node: int, message: m.Settle) -> None:
        key = (node, message.consumer)
        slot = self.dispatcher.slots.get(key)
        before = len(slot.unsettled) if slot is not None else 0
        named = sum(end - first for first, end in message.runs)
        if message.outcome == REQUEUE:
            park = self.upkeep.parks_returns
            self._given_back(self.dispatcher.give_back(key, message.runs, park), park)
        else:
            taken = self.dispatcher.settle(key, message.runs)
            if taken and message.outcome == ACK:
                self._to_settle.setdefault(Settled.ACK, []).extend(taken)
            elif taken:
                self.upkeep.rejected(taken)
            self.acked += sum(end - first for first, end in taken)
        if slot is not None:
            if not slot.windowed:
                slot.credit += named
            if slot.strays:
                slot.strays = max(0, slot.strays - (named - (before - len(slot.unsettled))))
            if slot.holder and not slot.unsettled:
                self.dispatcher.detach(key)
        self._to_answer.append((node, m.SettledTo(self.group, message.number)))

    def _attach(self, node: int, message: m.Attach) -> None:
        in_use = not message.resumed and self._in_exclusive_use(message.exclusive)
        order = message.order
        if not order:
            self._joined += 1
            order = self.term << 32 | self._joined
        self._unconfirmed.get(node, {}).pop((node, message.consumer), None)
        if not in_use:
            slot = Slot(
                (node, message.consumer),
                message.credit,
                no_ack=message.no_ack,
                exclusive=message.exclusive,
                priority=message.priority,
                windowed=message.windowed,
                holder=message.holder,
                order=order,
            )
            self.dispatcher.attach(slot, message.outstanding)
            self.deserted = False
        if not message.resumed:
            self.out.append((node, m.Attached(self.group, message.consumer, in_use, order)))

    def _follow(self, node: int, message: m.Follow) -> None:
        position = self.readers.add((node, message.consumer), message)
        self.deserted = False
        self.out.append((node, m.Following(self.group, message.consumer, position)))

    def _in_exclusive_use(self, exclusive: bool) -> bool:
        consumers = [slot for slot in self.dispatcher.slots.values() if not slot.holder]
        return any(slot.exclusive for slot in consumers) or (exclusive and bool(consumers))

    def _detach(self, node: int, message: m.Detach) -> None:
        key = (node, message.consumer)
        if self.readers.remove(key):
            self._check_deserted()
            return
        if message.release:
            self._drop_requests(
                lambda n, request: isinstance(request, m.Get) and key == (n, request.consumer)
            )
            self._leave(key)
            return
        slot = self.dispatcher.slots.get(key)
        if slot is not None:
            self.dispatcher.stop(key)
            if not slot.unsettled:
                self.dispatcher.detach(key)
            self._check_deserted()

    def _leave(self, key: tuple[int, int]) -> None:
        slot = self.dispatcher.slots.get(key)
        if slot is None:
            return
        was_consumer = not slot.holder
        park = self.upkeep.parks_returns
        self._given_back([(p, p + 1) for p in self.dispatcher.detach(key, park)], park)
        if was_consumer:
            self._check_deserted()

    def _given_back(self, ranges: list[Run], park: bool) -> None:
        self._to_return.extend(ranges)
        if park:
            self.upkeep.parked(sum(end - first for first, end in ranges))

    def _check_deserted(self) -> None:
        if not self.consumers:
            self.deserted = True

    @property
    def consumers(self) -> int:
        """How many consumers there are, mere holders left out."""
        return len(self.readers) + sum(1 for slot in self.dispatcher.slots.values() if not slot.holder)

    def _credit(self, node: int, message: m.Credit) -> None:
        if (node, message.consumer) in self.readers:
            self.readers.credit((node, message.consumer), message.amount, message.size)
            return
        slot = self.dispatcher.slots.get((node, message.consumer))
        if slot is not None:
            slot.credit += message.amount
            slot.room += message.size

    def _limit(self, node: int, message: m.Limit) -> None:
        if (node, message.consumer) in self.readers:
            self.readers.limit((node, message.consumer), message.prefetch, message.windowed)
            return
        slot = self.dispatcher.slots.get((node, message.consumer))
        if slot is None or slot.holder:
            return
        held = 0 if message.windowed else len(slot.unsettled) + slot.strays
        slot.credit = message.prefetch - held
        slot.windowed = message.windowed
        slot.room = WINDOW_BYTES if message.windowed else UNBOUNDED

    def _get(self, node: int, message: m.Get) -> None:
        self.upkeep.used()
        if self._is_behind() and not self.dispatcher.ready:
            self._late.append((node, message))
        else:
            self._gets.append((node, message))

    def _ask(self, node: int, message: m.Ask) -> None:
        self.upkeep.used()
        if self._is_behind():
            self._late.append((node, message))
        else:
            self._asks.append((node, message))

    def _is_behind(self) -> bool:
        """Whether publishes may be on their way to being committed."""
        return bool(self._batches) or self._last_index > self.state.applied

    def _admit(self, answers: list[tuple[int, m.Message]]) -> None:
        """What was held back until now: answers go out, requests are served in this turn."""
        for node, message in answers:
            if isinstance(message, m.Get):
                self._gets.append((node, message))
            elif isinstance(message, m.Ask):
                self._asks.append((node, message))
            else:
                self.out.append((node, message))

    def _serve_ask(self, node: int, message: m.Ask) -> None:
        if not message.purge:
            answer = m.Answer(self.group, message.request, self.dispatcher.ready, self.consumers)
            self.out.append((node, answer))
            return
        dropped = self.dispatcher.drop_ready()
        if dropped:
            self._to_settle.setdefault(Settled.PURGE, []).extend(dropped)
        count = sum(end - first for first, end in dropped)
        self._to_answer.append((node, m.Answer(self.group, message.request, count, self.consumers)))

    def _resuming(self, node: int, message: m.Resuming) -> None:
        self._deaf.pop(node, None)

    def _resumed(self, node: int, message: m.Resumed) -> None:
        if message.term == self.term:
            self._awaited.discard(node)
            former = self._unconfirmed.pop(node, {})
            for key in former:
                self._leave(key)
            if any(former.values()):
                self._check_deserted()

    handlers: ClassVar[dict[type[m.Message], Callable[..., None]]] = {
        m.Publish: _publish,
        m.Settle: _settle,
        m.Attach: _attach,
        m.Follow: _follow,
        m.Detach: _detach,
        m.Credit: _credit,
        m.Limit: _limit,
        m.Get: _get,
        m.Ask: _ask,
        m.Resuming: _resuming,
        m.Resumed: _resumed,
    }

    # -- the log --------------------------------------------------------------------------------------

    def applied(self, index: int, result: object) -> None:
        """The entry at ``index`` was applied to the state with ``result`` (see ``QueueState.apply``)."""
        if isinstance(result, Published):
            node = self._origin_nodes.get(result.origin)
            if node is not None:
                self._published[node] = result.serial
                if result.refused:
                    self.out.append((node, m.Refused(self.group, result.serial, result.size)))
        elif isinstance(result, SettledRuns):
            self.dispatcher.committed(result.size - result.died, result.bodies)
        elif isinstance(result, OutOfOrder):
            self._accepted[result.origin] = result.expected - 1
            if result.origin in self._origin_nodes:
                self.greet(self._origin_nodes[result.origin])
        self.upkeep.applied(index, result)
        answers = self._on_commit.pop(index, None)
        if answers is not None:
            self._admit(answers)

    def pump(self, now: int = 0) -> bool:
        """Say what was published and hand out what can be; True when there is more than fits in one turn.

        ``now`` is the wall clock in milliseconds.
        """
        if self._published:
            for node, serial in self._published.items():
                self.out.append((node, m.Published(self.group, serial)))
            self._published.clear()
        if self._late and not self._is_behind():
            late, self._late = self._late, []
            self._admit(list(late))
        if self._awaited:
            return False
        dispatcher = self.dispatcher
        self.upkeep.begin(now)
        holds = self.upkeep.holds
        more = not holds and dispatcher.wants() and self._hand_out()
        done = not more and not holds and not (dispatcher.wants() and dispatcher.blocked_by_watermark())
        more |= self.upkeep.end(done, self.consumers)
        if self._gets and not holds:
            self._serve_gets()
        if self.readers:
            more |= self._pump_readers()
        asks, self._asks = self._asks, []
        for node, ask in asks:
            self._serve_ask(node, ask)
        return more or bool(dispatcher.expired)

    def _pump_readers(self) -> bool:
        before = self.readers.delivered
        out, more = self.readers.pump()
        self.delivered += self.readers.delivered - before
        self.out += [(node, message._replace(group=self.group)) for node, message in out]
        return more

    def _hand_out(self) -> bool:
        pieces: dict[tuple[int, int], list[m.Piece]] = {}
        average = self.state.bytes // self.state.messages if self.state.messages else 0
        budget = max(1, READ_AHEAD // (average + OVERHEAD))
        for assignment in self.dispatcher.assign(budget):
            budget -= assignment.end - assignment.first
            pieces.setdefault(assignment.slot.key, []).extend(self._pieces(assignment))
            if assignment.slot.no_ack:
                self._settle_sent(assignment)
        for (node, consumer), found in pieces.items():
            self.out.append((node, m.Deliver(self.group, consumer, found)))
        return budget <= 0

    def _settle_sent(self, assignment: Assignment) -> None:
        self._to_settle.setdefault(Settled.ACK, []).append((assignment.first, assignment.end))

    def _pieces(self, assignment: Assignment) -> list[m.Piece]:
        found: list[m.Piece] = []
        slot, first, end = assignment.slot, assignment.first, assignment.end
        self.delivered += end - first
        if assignment.redelivered:
            self.redelivered += end - first
        while first < end:
            entry, base, size = self.state.index.find(first)
            stop = min(end, base + size)
            ends, data = self._read(entry).slice(first - base, stop - base)
            if assignment.redelivered and self.state.counts and self.upkeep.settings.counts_deliveries:
                ends, data = self._with_counts(first, ends, data)
            found.append((first, assignment.redelivered, ends, data))
            if slot.windowed:
                slot.room -= len(data)
            first = stop
        return found

    def passed_on(self, passed: list[Run]) -> None:
        """These messages are elsewhere by now (a delayed exchange let them go): they leave the queue."""
        self._to_settle.setdefault(Settled.ACK, []).extend(passed)
        self.dispatcher.settling += sum(end - first for first, end in passed)

    def _with_counts(self, first: int, ends: list[int], data: bytes) -> tuple[list[int], bytes]:
        """The messages from ``first`` on, with their headers saying how often they were delivered before."""
        counts = self.state.counts
        parts: list[bytes] = []
        stops: list[int] = []
        size = 0
        for position, (route, header, body) in enumerate(entries.split(ends, data), first):
            count = counts.get(position)
            if count:
                header = with_delivery_count(header, count)
            message = b"".join((entries.message_prefix(route, header), route, header, body))
            size += len(message)
            stops.append(size)
            parts.append(message)
        return stops, b"".join(parts)

    def _serve_gets(self) -> None:
        waiting = self._gets
        self._gets = []
        for node, get in waiting:
            slot = Slot((node, get.consumer), 1, no_ack=get.no_ack, holder=True)
            assignment = self.dispatcher.once(slot)
            if assignment is None:
                if self.dispatcher.blocked_by_watermark():
                    self._gets.append((node, get))
                    continue
                pieces: list[m.Piece] = []
            else:
                pieces = self._pieces(assignment)
                if get.no_ack:
                    self._settle_sent(assignment)
                else:
                    self.dispatcher.attach(slot)
            self.out.append((node, m.Got(self.group, get.consumer, self.dispatcher.ready, pieces)))
