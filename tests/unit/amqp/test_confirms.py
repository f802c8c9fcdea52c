from hypothesis import given
from hypothesis import strategies as st

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.confirms import Confirms
from tests.unit.amqp.recording import split_frames


def told(data: bytes) -> list[m.Method]:
    return [m.decode_method(payload) for _, _, payload in split_frames(data)]


def confirms(published: int) -> Confirms:
    made = Confirms(1)
    made.published = published
    return made


def test_a_range_from_the_head_is_one_ack() -> None:
    tracker = confirms(10)
    assert told(tracker.confirmed(1, 5)) == [m.BasicAck(5, True)]
    assert told(tracker.confirmed(6, 6)) == [m.BasicAck(6, False)]
    assert told(tracker.refused(7, 9)) == [m.BasicNack(9, True, False)]
    assert tracker.outstanding == 1


def test_a_range_further_on_does_not_speak_for_older_messages() -> None:
    tracker = confirms(6)
    assert told(tracker.confirmed(3, 4)) == [m.BasicAck(3, False), m.BasicAck(4, False)]
    assert told(tracker.refused(6, 6)) == [m.BasicNack(6, False, False)]
    assert tracker.outstanding == 3
    assert told(tracker.confirmed(1, 2)) == [m.BasicAck(2, True)]
    assert told(tracker.confirmed(5, 5)) == [m.BasicAck(5, False)]
    assert tracker.outstanding == 0


def test_after_a_gap_is_closed_one_ack_speaks_for_many_again() -> None:
    tracker = confirms(8)
    for first, last in ((5, 6), (3, 4), (1, 2)):
        tracker.confirmed(first, last)
    assert told(tracker.confirmed(7, 8)) == [m.BasicAck(8, True)]


@given(st.data())
def test_every_message_is_told_its_own_fate_whatever_the_order(data: st.DataObject) -> None:
    """A model of a client: it applies acks and nacks as the specification says."""
    count = data.draw(st.integers(1, 40))
    cuts = sorted(data.draw(st.sets(st.integers(2, count)))) if count > 1 else []
    ranges = list(zip([1, *cuts], [*(cut - 1 for cut in cuts), count], strict=True))
    tracker = confirms(count)
    open_tags = dict.fromkeys(range(1, count + 1))
    fate: dict[int, bool] = {}
    expected: dict[int, bool] = {}
    for first, last in data.draw(st.permutations(ranges)):
        good = data.draw(st.booleans())
        expected.update(dict.fromkeys(range(first, last + 1), good))
        for method in told(tracker.confirmed(first, last) if good else tracker.refused(first, last)):
            assert isinstance(method, m.BasicAck | m.BasicNack)
            tags = [method.delivery_tag]
            if method.multiple:
                tags = [tag for tag in open_tags if tag <= method.delivery_tag]
            for tag in tags:
                del open_tags[tag]
                fate[tag] = isinstance(method, m.BasicAck)
        assert fate == expected
        assert tracker.outstanding == len(open_tags)
