"""The leader's hand-out of messages: order, turns, credit, redelivery, what survives a change of leader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.engine.core.model import entries
from brokers.engine.core.model.delivery import Dispatcher, Slot
from brokers.engine.core.model.queue_state import OutOfOrder, Published, QueueState


def publish(state: QueueState, count: int, *, origin: int = 1) -> None:
    parts = []
    ends = []
    end = 0
    for n in range(count):
        message = entries.message_prefix(b"\x00\x01q", b"h") + b"\x00\x01q" + b"h" + str(n).encode()
        end += len(message)
        parts.append(message)
        ends.append(end)
    serial = state.origins.get(origin, 0) + 1
    batch = entries.encode_batch(origin, serial, ends, parts)
    applied = state.apply(state.applied + 1, entries.encode_publish(0, batch))
    assert isinstance(applied, Published)
    assert applied.size == count


@pytest.fixture
def state() -> QueueState:
    state = QueueState()
    state.open_term(1)
    state.apply(2, entries.encode_watermark(1 << 40))
    return state


def handed(dispatcher: Dispatcher) -> list[tuple[int, int, bool]]:
    return [
        (a.slot.key[1], position, a.redelivered)
        for a in dispatcher.assign()
        for position in range(a.first, a.end)
    ]


def test_one_consumer_gets_everything_in_order(state: QueueState) -> None:
    publish(state, 3)
    publish(state, 2)
    dispatcher = Dispatcher(state)
    dispatcher.attach(Slot((1, 7), credit=4))
    assert handed(dispatcher) == [(7, 0, False), (7, 1, False), (7, 2, False), (7, 3, False)]
    assert dispatcher.ready == 1


def test_consumers_take_turns(state: QueueState) -> None:
    publish(state, 4)
    dispatcher = Dispatcher(state)
    dispatcher.attach(Slot((1, 1), credit=9))
    dispatcher.attach(Slot((1, 2), credit=9))
    assert [(c, p) for c, p, _ in handed(dispatcher)] == [(1, 0), (2, 1), (1, 2), (2, 3)]


def test_higher_priority_first(state: QueueState) -> None:
    publish(state, 3)
    dispatcher = Dispatcher(state)
    dispatcher.attach(Slot((1, 1), credit=9))
    dispatcher.attach(Slot((1, 2), credit=2, priority=5))
    assert [(c, p) for c, p, _ in handed(dispatcher)] == [(2, 0), (2, 1), (1, 2)]


def test_given_back_comes_first_and_flagged(state: QueueState) -> None:
    publish(state, 3)
    dispatcher = Dispatcher(state)
    slot = Slot((1, 1), credit=2)
    dispatcher.attach(slot)
    handed(dispatcher)
    assert dispatcher.give_back((1, 1), [(0, 1)]) == [(0, 1)]
    slot.credit = 3
    assert handed(dispatcher) == [(1, 0, True), (1, 2, False)]


def test_a_consumer_that_leaves_gives_back_what_it_held(state: QueueState) -> None:
    publish(state, 3)
    dispatcher = Dispatcher(state)
    dispatcher.attach(Slot((1, 1), credit=2))
    handed(dispatcher)
    assert dispatcher.detach((1, 1)) == [0, 1]
    dispatcher.attach(Slot((1, 2), credit=9))
    assert handed(dispatcher) == [(2, 0, True), (2, 1, True), (2, 2, False)]


def test_nothing_above_the_watermark() -> None:
    state = QueueState()
    state.open_term(1)
    publish(state, 4)
    state.apply(9, entries.encode_watermark(2))
    dispatcher = Dispatcher(state)
    dispatcher.attach(Slot((1, 1), credit=9))
    assert [p for _, p, _ in handed(dispatcher)] == [0, 1]
    assert dispatcher.blocked_by_watermark()


def test_a_new_leader_flags_what_may_have_been_handed_out(state: QueueState) -> None:
    publish(state, 3)
    state.open_term(20)
    publish(state, 1)
    dispatcher = Dispatcher(state)
    dispatcher.attach(Slot((1, 1), credit=9))
    assert [flag for _, _, flag in handed(dispatcher)] == [True, True, True, False]


def test_what_consumers_hold_is_not_sent_again(state: QueueState) -> None:
    publish(state, 4)
    state.open_term(20)
    dispatcher = Dispatcher(state)
    dispatcher.attach(Slot((2, 2), credit=1), [(1, 3)])
    assert dispatcher.ready == 2
    dispatcher.attach(Slot((1, 1), credit=9))
    assert [(c, p) for c, p, _ in handed(dispatcher)] == [(2, 0), (1, 3)]
    assert dispatcher.settle((2, 2), [(0, 3)]) == [(0, 3)]
    dispatcher.detach((2, 2))
    assert handed(dispatcher) == []


def test_a_late_settlement_takes_the_message_from_whoever_holds_it(state: QueueState) -> None:
    publish(state, 2)
    dispatcher = Dispatcher(state)
    dispatcher.attach(Slot((1, 1), credit=1))
    handed(dispatcher)
    dispatcher.detach((1, 1))
    assert dispatcher.settle((1, 1), [(0, 1)]) == [(0, 1)]
    dispatcher.attach(Slot((1, 2), credit=5))
    assert handed(dispatcher) == [(2, 1, False)]


def test_purge_leaves_what_is_held(state: QueueState) -> None:
    publish(state, 5)
    dispatcher = Dispatcher(state)
    dispatcher.attach(Slot((1, 1), credit=2))
    handed(dispatcher)
    dropped = dispatcher.drop_ready()
    assert dropped == [(2, 5)]
    state.apply(30, entries.encode_settle(entries.Settled.PURGE, dropped))
    dispatcher.committed(3)
    assert state.messages == 2
    dispatcher.detach((1, 1))
    dispatcher.attach(Slot((1, 2), credit=9))
    assert [p for _, p, _ in handed(dispatcher)] == [0, 1]


def test_a_repeated_batch_is_applied_once_and_a_gap_not_at_all(state: QueueState) -> None:
    batch = entries.encode_batch(5, 1, [1], [b"x"])
    assert state.apply(3, entries.encode_publish(0, batch)) == Published(5, 1, 0, 1)
    assert state.apply(4, entries.encode_publish(0, batch)) == Published(5, 1, 1, 0)
    late = entries.encode_batch(5, 3, [1], [b"x"])
    assert state.apply(5, entries.encode_publish(0, late)) == OutOfOrder(5, 2)
    assert state.messages == 1


def test_messages_come_out_of_an_entry_as_they_went_in() -> None:
    parts: list[bytes] = []
    ends: list[int] = []
    for body in (b"", b"one", b"two" * 100):
        parts.append(entries.message_prefix(b"rt", b"head") + b"rt" + b"head" + body)
        ends.append(len(parts[-1]) + (ends[-1] if ends else 0))
    payload = entries.encode_publish(7, entries.encode_batch(1, 1, ends, parts))
    messages = entries.Messages(payload)
    assert messages.stamp == 7
    assert entries.split(*messages.slice(0, 3)) == [
        (b"rt", b"head", b""),
        (b"rt", b"head", b"one"),
        (b"rt", b"head", b"two" * 100),
    ]
    assert entries.split(*messages.slice(1, 2)) == [(b"rt", b"head", b"one")]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 5)),
        st.tuples(st.just("hand out"), st.integers(0, 6)),
        st.tuples(st.just("ack"), st.integers(0, 9)),
        st.tuples(st.just("give back"), st.integers(0, 9)),
        st.tuples(st.just("park"), st.integers(0, 9)),
        st.tuples(st.just("restore"), st.integers(0, 3)),
        st.tuples(st.just("kill"), st.integers(0, 9)),
        st.tuples(st.just("drop head"), st.integers(1, 3)),
        st.tuples(st.just("bury"), st.integers(1, 3)),
        st.tuples(st.just("die"), st.integers(1, 2)),
        st.tuples(st.just("fail over"), st.booleans()),
        st.tuples(st.just("purge"), st.just(0)),
        st.tuples(st.just("snapshot"), st.just(0)),
    ),
    max_size=60,
)


@given(steps)
def test_nothing_is_lost_nor_held_twice(plan: list[tuple[str, int]]) -> None:
    state = QueueState()
    state.open_term(1)
    state.apply(2, entries.encode_watermark(1 << 40))
    dispatcher = Dispatcher(state)
    settled: set[int] = set()
    for number in (1, 2):
        dispatcher.attach(Slot((1, number), credit=0))

    def commit(payload: bytes) -> None:
        state.apply(state.applied + 1, payload)

    for step, n in plan:
        slots = [dispatcher.slots[1, 1], dispatcher.slots[1, 2]]
        held = sorted(slots[n % 2].unsettled)
        if step == "publish":
            publish(state, n)
        elif step == "hand out":
            for slot in slots:
                slot.credit = n
            for _, position, _ in handed(dispatcher):
                assert position not in settled
        elif step == "ack" and held:
            got = dispatcher.settle(slots[n % 2].key, [(held[0], held[0] + 1)])
            commit(entries.encode_settle(entries.Settled.ACK, got))
            dispatcher.committed(1)
            settled.add(held[0])
        elif step == "give back" and held:
            commit(entries.encode_return(dispatcher.give_back(slots[n % 2].key, [(held[-1], held[-1] + 1)])))
        elif step == "park" and held:
            dispatcher.give_back(slots[n % 2].key, [(held[0], held[0] + 1)], park=True)
        elif step == "restore":
            dispatcher.restore(sorted(dispatcher.limbo)[:n])
        elif step == "kill" and held:
            got = dispatcher.settle(slots[n % 2].key, [(held[-1], held[-1] + 1)])
            commit(entries.encode_dead(entries.Settled.REJECT, 0, got))
            dispatcher.committed(1)
        elif step == "drop head":
            dropped = dispatcher.drop_head(n)
            commit(entries.encode_dead(entries.Settled.DROP, 0, dropped))
            dispatcher.committed(sum(end - first for first, end in dropped))
        elif step == "bury":
            buried = sorted(state.dying)[:n]
            commit(entries.encode_settle(entries.Settled.DROP, [(p, p + 1) for p in buried]))
            settled.update(buried)
        elif step == "die":
            dispatcher.detach((1, n))
            dispatcher.attach(Slot((1, n), credit=0))
        elif step == "fail over":
            keep = {key: sorted(slot.unsettled) for key, slot in dispatcher.slots.items()}
            state.open_term(state.applied + 1)
            dispatcher = Dispatcher(state)
            for key, positions in keep.items():
                dispatcher.attach(Slot(key, credit=0), [(p, p + 1) for p in positions] if n else [])
        elif step == "purge":
            dropped = dispatcher.drop_ready()
            commit(entries.encode_settle(entries.Settled.PURGE, dropped))
            dispatcher.committed(sum(end - first for first, end in dropped))
            settled.update(p for first, end in dropped for p in range(first, end))
        elif step == "snapshot":
            copy = QueueState.load(state.dump())
            assert copy.dump() == state.dump()
        both = [p for slot in dispatcher.slots.values() for p in slot.unsettled]
        assert len(both) == len(set(both))
        ready = {p for first, end in dispatcher.ready_runs() for p in range(first, end)}
        apart = [ready, set(both), settled, set(state.dying), dispatcher.limbo]
        assert set().union(*apart) == set(range(state.next_position))
        assert sum(map(len, apart)) == state.next_position
        assert state.messages == state.next_position - len(settled)
        assert dispatcher.ready == len(ready)
