"""Priority and deduplicating queues: the state that all replicas share, and the hand-out by priority."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brokers.engine.core.amqp.properties import BasicProperties, encode_header
from brokers.engine.core.model import entries
from brokers.engine.core.model.delivery import Dispatcher, Slot
from brokers.engine.core.model.lane_delivery import LaneDispatcher, dispatcher
from brokers.engine.core.model.lanes import HEADERS_FLAG, PRIORITY_FLAG
from brokers.engine.core.model.queue_state import QueueState


def publish(state: QueueState, *properties: BasicProperties, stamp: int = 0) -> None:
    parts: list[bytes] = []
    ends: list[int] = []
    for found in properties:
        header = encode_header(found, 4)
        parts.append(entries.message_prefix(b"\0\1q", header) + b"\0\1q" + header + b"body")
        ends.append(len(parts[-1]) + (ends[-1] if ends else 0))
    batch = entries.encode_batch(
        1, state.origins.get(1, 0) + 1, ends, parts, PRIORITY_FLAG | HEADERS_FLAG, 4 * len(ends)
    )
    state.apply(state.applied + 1, entries.encode_publish(stamp, batch))


def priorities(*values: int) -> list[BasicProperties]:
    return [BasicProperties(priority=value) for value in values]


def open_state(**arguments: object) -> QueueState:
    state = QueueState.founded({key.replace("_", "-"): value for key, value in arguments.items()})
    state.open_term(1)
    state.apply(2, entries.encode_watermark(1 << 40))
    return state


def handed(found: Dispatcher, credit: int = 100) -> list[int]:
    found.slots[1, 1].credit = credit
    return [position for a in found.assign() for position in range(a.first, a.end)]


def leader(state: QueueState) -> Dispatcher:
    found = dispatcher(state)
    found.attach(Slot((1, 1), credit=0))
    return found


def test_highest_first_and_what_comes_back_keeps_its_rank() -> None:
    state = open_state(x_max_priority=9)
    publish(state, *priorities(1, 9, 5, 9))
    found = leader(state)
    assert isinstance(found, LaneDispatcher)
    assert handed(found, 2) == [1, 3]
    found.give_back((1, 1), [(3, 4)])
    publish(state, *priorities(9, 1))
    assert handed(found) == [3, 4, 2, 0, 5]


def test_without_the_argument_nothing_is_minded() -> None:
    state = open_state()
    publish(state, *priorities(1, 9))
    assert state.lanes is None
    assert handed(leader(state)) == [0, 1]


def test_snapshot_keeps_lanes_and_keys() -> None:
    state = open_state(x_max_priority=5, x_message_deduplication=True, x_cache_ttl=1000)
    publish(state, *priorities(0, 3, 3))
    publish(state, BasicProperties(headers={"x-deduplication-header": "k"}), stamp=5)
    copy = QueueState.load(state.dump())
    assert copy.dump() == state.dump()
    publish(copy, BasicProperties(headers={"x-deduplication-header": "k"}), stamp=500)
    assert copy.messages == state.messages
    assert handed(leader(copy)) == [1, 2, 0, 3]


def test_repeated_key_is_settled_at_once_and_the_window_moves_on() -> None:
    state = open_state(x_message_deduplication=True, x_cache_ttl=1000)
    once = BasicProperties(headers={"x-deduplication-header": 7})
    publish(state, once, once, BasicProperties(), stamp=0)
    assert state.messages == 2
    publish(state, once, stamp=999)
    assert state.messages == 2
    publish(state, once, stamp=1000)
    assert state.messages == 3
    assert handed(leader(state)) == [0, 2, 4]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 4)),
        st.tuples(st.just("hand out"), st.integers(1, 4)),
        st.tuples(st.just("ack"), st.integers(0, 9)),
        st.tuples(st.just("back"), st.integers(0, 9)),
        st.tuples(st.just("fail over"), st.booleans()),
        st.tuples(st.just("purge"), st.just(0)),
    ),
    max_size=60,
)


@given(steps)
def test_nothing_is_lost_nor_held_twice_nor_out_of_rank(plan: list[tuple[str, int]]) -> None:
    state = open_state(x_max_priority=4)
    found = leader(state)
    ranks: list[int] = []
    gone: set[int] = set()
    for step, n in plan:
        held = sorted(found.slots[1, 1].unsettled)
        if step == "publish":
            publish(state, *priorities(n))
            ranks.append(n)
        elif step == "hand out":
            ready = {p for first, end in found.ready_runs() for p in range(first, end)}
            taken = handed(found, n)
            best = sorted(ready, key=lambda p: -ranks[p])[: len(taken)]
            assert sorted(ranks[p] for p in taken) == sorted(ranks[p] for p in best)
            assert len(taken) == min(n, len(ready))
        elif step == "ack" and held:
            position = held[n % len(held)]
            settled = found.settle((1, 1), [(position, position + 1)])
            state.apply(state.applied + 1, entries.encode_settle(entries.Settled.ACK, settled))
            found.committed(1)
            gone.add(position)
        elif step == "back" and held:
            position = held[n % len(held)]
            back = found.give_back((1, 1), [(position, position + 1)])
            state.apply(state.applied + 1, entries.encode_return(back))
        elif step == "fail over":
            state.open_term(state.applied + 1)
            found = dispatcher(QueueState.load(state.dump()))
            state = found.state
            found.attach(Slot((1, 1), credit=0), [(p, p + 1) for p in held] if n else [])
        elif step == "purge":
            dropped = found.drop_ready()
            state.apply(state.applied + 1, entries.encode_settle(entries.Settled.PURGE, dropped))
            found.committed(sum(end - first for first, end in dropped))
            gone.update(p for first, end in dropped for p in range(first, end))
        ready = {p for first, end in found.ready_runs() for p in range(first, end)}
        holding = found.slots[1, 1].unsettled
        assert ready.isdisjoint(holding)
        assert ready | holding | gone == set(range(len(ranks)))
        assert found.ready == len(ready)
